// The Python face of the core: the only file that knows Python. It checks arguments in Python's terms, releases the
// interpreter and calls.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "bind_codec.h"
#include "bind_straight.h"
#include "border.h"
#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace bl;

constexpr int64_t kNoLimit = INT64_MAX;  // for decoded bytes: the Python reader has held them to the caller's before

// Raises `problem` as the exception of bitladder.errors that has its meaning, if there is one.
void check(const Problem& problem) {
  if (!problem) return;
  const char* type = nullptr;
  switch (problem.status) {
    case Status::malformed: type = "Malformed"; break;
    case Status::truncated: type = "Truncated"; break;
    case Status::unsupported: type = "Unsupported"; break;
    case Status::no_memory: PyErr_NoMemory(); nb::raise_python_error();
    default: throw nb::value_error(problem.message.c_str());
  }
  const nb::object raised = nb::module_::import_("bitladder.errors").attr(type);
  const nb::object error =
      problem.status == Status::truncated ? raised(problem.message, problem.needed) : raised(problem.message);
  if (!problem.node.empty()) error.attr("node") = problem.node;
  PyErr_SetObject(raised.ptr(), error.ptr());
  nb::raise_python_error();
}

[[noreturn]] void wrong(const std::string& message) { throw nb::value_error(message.c_str()); }

// `body` without the interpreter.
template <class Body>
void quietly(Body body) {
  Problem problem;
  {
    const nb::gil_scoped_release quiet;
    problem = guarded(body);
  }
  check(problem);
}

// A view of the memory of a Python object, for as long as it lives.
class View {
 public:
  View(nb::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags)) nb::raise_python_error();
  }
  View(View&& other) noexcept : view_(std::exchange(other.view_, Py_buffer{})) {}
  View(const View&) = delete;
  ~View() { PyBuffer_Release(&view_); }
  const Py_buffer* operator->() const { return &view_; }
  const Py_buffer& operator*() const { return view_; }

 private:
  Py_buffer view_{};
};

// The bytes of a file in memory. Others may change what is not `bytes` while it is read, so that is copied.
class Bytes {
 public:
  explicit Bytes(nb::handle object) : view_(object, PyBUF_SIMPLE) {
    if (PyBytes_CheckExact(object.ptr())) return;
    const auto* data = static_cast<const uint8_t*>(view_->buf);
    copy_.assign(data, data + view_->len);
  }
  const uint8_t* data() const { return copy_.empty() ? static_cast<const uint8_t*>(view_->buf) : copy_.data(); }
  size_t size() const { return static_cast<size_t>(view_->len); }

 private:
  View view_;
  std::vector<uint8_t> copy_;
};

const char* format_of(const Py_buffer& view) { return view.format ? view.format : "B"; }

// The type of the elements of a buffer; false if the core has none of that name.
bool type_of(const Py_buffer& view, Type& out) {
  const char* format = format_of(view);
  if (*format == '@' || *format == '=' || (*format == '<' && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)) ++format;
  if (!*format || format[1]) return false;
  const auto one_of = [&](const char* letters) {
    for (; *letters; ++letters)
      if (*letters == *format) return true;
    return false;
  };
  const auto sized = [&](std::initializer_list<Type> types) {
    for (const Type type : types)
      if (size_of(type) == static_cast<size_t>(view.itemsize)) return out = type, true;
    return false;
  };
  if (one_of("?")) return sized({Type::boolean});
  if (one_of("bhilqn")) return sized({Type::i8, Type::i16, Type::i32, Type::i64});
  if (one_of("BHILQN")) return sized({Type::u8, Type::u16, Type::u32, Type::u64});
  return one_of("efd") && sized({Type::f16, Type::f32, Type::f64});
}

// The array in `object` as a tensor over its own memory, or a ValueError that says what is wrong with it.
Tensor tensor_of(const View& view, const std::string& which, Type type) {
  Tensor tensor;
  const bool known = type_of(*view, tensor.type);
  if (!known || tensor.type != type)
    wrong("run: " + which + " must be an array of " + name_of(type) + ", got " +
          (known ? std::string(name_of(tensor.type)) : "elements of format '" + std::string(format_of(*view)) + "'"));
  if (!PyBuffer_IsContiguous(&*view, 'C'))
    wrong("run: " + which + " must be in C order without gaps; pass numpy.ascontiguousarray of it");
  tensor.shape.assign(view->shape, view->shape + view->ndim);
  tensor.data = view->buf;
  return tensor;
}

// A view of each array of `arrays`; `flags` say whether it is written to.
std::vector<View> views_of(nb::list arrays, const char* kind, int flags) {
  std::vector<View> views;
  views.reserve(arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    const std::string which = std::string("run: ") + kind + " " + std::to_string(i);
    const nb::object array = arrays[i];
    if (!PyObject_CheckBuffer(array.ptr())) throw nb::type_error((which + " must be an array").c_str());
    try {
      views.emplace_back(array, flags);
    } catch (const nb::python_error& error) {
      wrong(which + " must be an array of numbers" + (flags & PyBUF_WRITABLE ? " that can be written to" : ""));
    }
  }
  return views;
}

nb::tuple tuple_of(const Shape& shape) {
  nb::list sizes;
  for (const int64_t size : shape) sizes.append(size);
  return nb::tuple(sizes);
}

using StepRow = std::tuple<std::string, std::string, int64_t, int64_t, int64_t>;

// A rung with the network it belongs to.
class PythonRung {
 public:
  PythonRung(std::shared_ptr<Network> network, std::shared_ptr<Rung> rung)
      : network_(std::move(network)), rung_(std::move(rung)) {}

  std::vector<std::pair<nb::tuple, std::string>> prepare(const std::vector<Shape>& shapes) const {
    std::vector<Tensor> outputs;
    quietly([&] { return ready(shapes, outputs); });
    std::vector<std::pair<nb::tuple, std::string>> described;
    for (const Tensor& output : outputs) described.emplace_back(tuple_of(output.shape), name_of(output.type));
    return described;
  }

  void run(nb::list inputs, nb::list outputs) const { run_timed(inputs, outputs, nullptr); }

  std::vector<StepRow> profile(nb::list inputs, nb::list outputs) const {
    std::vector<StepTime> times;
    run_timed(inputs, outputs, &times);
    std::vector<StepRow> rows;
    for (const StepTime& time : times) rows.emplace_back(time.name, time.kernel, time.nanoseconds, time.macs, time.bytes);
    return rows;
  }

  int64_t arena_bytes() const { return rung_->arena_bytes(); }

 private:
  Problem ready(const std::vector<Shape>& shapes, std::vector<Tensor>& outputs) const {
    if (Problem problem = check_shapes(network_->graph(), shapes)) return problem;
    return rung_->prepare(shapes, outputs);
  }

  void run_timed(nb::list inputs, nb::list outputs, std::vector<StepTime>* times) const {
    const Graph& graph = network_->graph();
    const std::vector<View> read = views_of(inputs, "input", PyBUF_FULL_RO);
    const std::vector<View> written = views_of(outputs, "output", PyBUF_FULL);
    std::vector<Tensor> in, out, wanted;
    std::vector<Shape> shapes;
    if (read.size() != graph.inputs.size()) check(check_shapes(graph, std::vector<Shape>(read.size())));
    for (size_t i = 0; i < read.size(); ++i) {
      in.push_back(tensor_of(read[i], "input '" + graph.inputs[i].name + "'", graph.inputs[i].type));
      shapes.push_back(in.back().shape);
    }
    quietly([&] { return ready(shapes, wanted); });
    if (written.size() != wanted.size())
      wrong("run: must have " + std::to_string(wanted.size()) + " outputs, got " + std::to_string(written.size()));
    for (size_t i = 0; i < wanted.size(); ++i) {
      const std::string which = "output '" + graph.outputs[i] + "'";
      out.push_back(tensor_of(written[i], which, wanted[i].type));
      if (out.back().shape != wanted[i].shape)
        wrong("run: " + which + " must have shape " + text_of(wanted[i].shape) + ", got " + text_of(out.back().shape));
    }
    quietly([&] { return rung_->run(in, out, times); });
  }

  std::shared_ptr<Network> network_;
  std::shared_ptr<Rung> rung_;
};

class PythonNetwork {
 public:
  PythonNetwork(nb::handle data, int64_t threads, int64_t batch, const std::string& isa) {
    Options options;
    check(choose(threads, batch, isa, options));
    const Bytes bytes(data);
    quietly([&] {
      Graph graph;
      if (Problem problem = read_file(bytes.data(), bytes.size(), 0, graph, kNoLimit)) return problem;
      return open_network(std::move(graph), options, network_);
    });
  }

  PythonRung at(int all, std::map<std::string, int> each) const {
    const Widths widths{all, std::move(each)};
    std::shared_ptr<Rung> rung;
    check(check_widths(network_->graph(), widths));
    quietly([&] { return network_->at(widths, rung); });
    return {network_, std::move(rung)};
  }

  int64_t weight_bytes() const { return network_->weight_bytes(); }

 private:
  std::shared_ptr<Network> network_;
};

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels) names.emplace_back((*kernels)->name);
  return names;
}

std::vector<std::pair<std::string, std::string>> unsupported(nb::handle data) {
  std::vector<std::pair<std::string, std::string>> found;
  const Bytes bytes(data);
  quietly([&] {
    Graph graph;
    if (Problem problem = read_file(bytes.data(), bytes.size(), 0, graph, kNoLimit)) return problem;
    found = without_kernel(graph);
    return Problem{};
  });
  return found;
}

// What loading has freed goes back to the system, where the C library keeps it otherwise.
void trim() {
#ifdef __GLIBC__
  const nb::gil_scoped_release quiet;
  malloc_trim(0);
#endif
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The native core. What its functions take and give back stands in _native.pyi.";
  m.def("isas", &isas);
  m.def("unsupported", &unsupported, "data"_a);
  m.def("trim", &trim);
  bind_codec(m);
  bind_straight(m);
  nb::class_<PythonRung>(m, "Rung")
      .def("prepare", &PythonRung::prepare, "shapes"_a)
      .def("run", &PythonRung::run, "inputs"_a, "outputs"_a)
      .def("profile", &PythonRung::profile, "inputs"_a, "outputs"_a)
      .def_prop_ro("arena_bytes", &PythonRung::arena_bytes);
  nb::class_<PythonNetwork>(m, "Network")
      .def(nb::init<nb::handle, int64_t, int64_t, const std::string&>(), "data"_a, "threads"_a, "batch"_a, "isa"_a)
      .def("at", &PythonNetwork::at, "all"_a, "each"_a)
      .def_prop_ro("weight_bytes", &PythonNetwork::weight_bytes);
}
