// The C face of the core (bitladder.h). A handle is a number that is never used twice, so that a call on a closed network
// finds nothing; whoever is inside holds a share of what it works with.
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "bitladder.h"
#include "border.h"

namespace {

using namespace bl;

static_assert(int(bl_bool) == int(Type::boolean) && int(bl_float16) == int(Type::f16) && int(bl_float64) == int(Type::f64));
static_assert(int(bl_malformed) == int(Status::malformed) && int(bl_no_memory) == int(Status::no_memory));

// What a run needs: a rung, and the types and shapes it was prepared for.
struct Prepared {
  std::shared_ptr<Rung> rung;
  std::vector<Shape> shapes;
  std::vector<Tensor> inputs, outputs;
};

struct Opened {
  std::shared_ptr<Network> network;
  std::mutex changing;  // guards what stands below
  Widths widths;
  std::shared_ptr<Rung> rung;
  std::shared_ptr<const Prepared> prepared;  // null before the first bl_prepare
};

std::mutex table_lock;
uintptr_t last_handle = 0;

// The open networks by handle. Never destroyed, so that threads may outlive main.
std::map<uintptr_t, std::shared_ptr<Opened>>& table() {
  static auto* const opened = new std::map<uintptr_t, std::shared_ptr<Opened>>;
  return *opened;
}

std::shared_ptr<Opened> find(const bl_network* handle) {
  const std::lock_guard lock(table_lock);
  const auto it = table().find(reinterpret_cast<uintptr_t>(handle));
  return it == table().end() ? nullptr : it->second;
}

thread_local char message[1024];  // fixed, so that a lack of memory can be told too

bl_status told(bl_status status, const char* text) {
  std::snprintf(message, sizeof message, "%s", text);  // may cut a long text
  for (char* c = message; *c; ++c)
    if (*c == '\n') *c = ' ';
  return status;
}

bl_status told(const Problem& problem) {
  if (problem.status == Status::no_memory && problem.message.empty()) return told(bl_no_memory, "out of memory");
  told(static_cast<bl_status>(problem.status), problem.message.c_str());
  const size_t used = std::strlen(message);
  if (problem.needed)
    std::snprintf(message + used, sizeof message - used, " (%llu bytes would do)",
                  static_cast<unsigned long long>(problem.needed));
  return static_cast<bl_status>(problem.status);
}

constexpr char no_room[] = "bl_inputs, bl_outputs: count, and values where room is not 0, must not be NULL";

Problem wrong(std::string text) { return {Status::wrong_input, std::move(text), 0}; }

// The status of `body` called with the network behind `handle`.
template <class Body>
bl_status with(bl_network* handle, Body body) {
  bool closed = false;
  const Problem problem = guarded([&]() -> Problem {
    const std::shared_ptr<Opened> opened = find(handle);
    closed = !opened;
    return closed ? Problem{} : body(*opened);
  });
  return closed ? told(bl_closed, "no network is open under this handle; open it again") : told(problem);
}

// `rung` made ready for inputs of these shapes.
Problem prepare(const Network& network, std::shared_ptr<Rung> rung, std::vector<Shape> shapes,
                std::shared_ptr<const Prepared>& out) {
  if (Problem problem = check_shapes(network.graph(), shapes)) return problem;
  auto made = std::make_shared<Prepared>();
  if (Problem problem = rung->prepare(shapes, made->outputs)) return problem;
  for (size_t i = 0; i < shapes.size(); ++i) made->inputs.push_back({network.graph().inputs[i].type, shapes[i], nullptr});
  made->rung = std::move(rung);
  made->shapes = std::move(shapes);
  out = std::move(made);
  return {};
}

// `opened` at these widths; as it was if that fails. The caller holds the lock.
Problem set_widths(Opened& opened, Widths widths) {
  std::shared_ptr<Rung> rung;
  if (Problem problem = check_widths(opened.network->graph(), widths)) return problem;
  if (Problem problem = opened.network->at(widths, rung)) return problem;
  std::shared_ptr<const Prepared> prepared;
  if (opened.prepared)
    if (Problem problem = prepare(*opened.network, rung, opened.prepared->shapes, prepared)) return problem;
  opened.widths = std::move(widths);
  opened.rung = std::move(rung);
  opened.prepared = std::move(prepared);
  return {};
}

Problem open(const uint8_t* data, size_t size, const bl_options* chosen, bl_network** out) {
  Options options;
  const bl_options given = chosen ? *chosen : bl_options{};
  if (Problem problem = choose(given.threads, given.batch, given.isa ? given.isa : "", options)) return problem;
  const int64_t most = given.most > PTRDIFF_MAX ? INT64_MAX : given.most ? static_cast<int64_t>(given.most) : kMostDecoded;
  Graph graph;
  if (Problem problem = read_file(data, size, 0, graph, most)) return problem;
  auto opened = std::make_shared<Opened>();
  if (Problem problem = open_network(std::move(graph), options, opened->network)) return problem;
  for (const Input& input : opened->network->graph().inputs)
    if (input.shape.size() > bl_max_rank)
      return {Status::unsupported, "bl_open: input '" + input.name + "' has more than 8 axes", 0};
  if (Problem problem = set_widths(*opened, {})) return problem;
  const std::lock_guard lock(table_lock);
  table()[last_handle + 1] = std::move(opened);
  *out = reinterpret_cast<bl_network*>(++last_handle);
  return {};
}

// The bytes of a file; false, with errno, if the system does not give them.
bool read_all(const char* path, std::vector<uint8_t>& out) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), &std::fclose);
  if (!file) return false;
  for (size_t got = 0;;) {
    if (got == out.size()) out.resize(got ? 2 * got : size_t{1} << 16);
    const size_t more = std::fread(out.data() + got, 1, out.size() - got, file.get());
    if (!more) {
      out.resize(got);
      return !std::ferror(file.get());
    }
    got += more;
  }
}

void describe(const std::string& name, Type type, const Shape& shape, bl_value& out) {
  out = {name.c_str(), static_cast<bl_type>(type), static_cast<int>(shape.size()), {}, size_of(type)};
  for (size_t i = 0; i < shape.size(); ++i) {
    out.shape[i] = static_cast<ptrdiff_t>(shape[i]);
    out.bytes *= shape[i] < 0 ? 0 : static_cast<size_t>(shape[i]);
  }
}

// `wanted` with the caller's memory, if that has the right sizes.
template <class Pointer>
Problem bind(const char* kind, const std::vector<Tensor>& wanted, const Pointer* data, const size_t* bytes, int count,
             std::vector<Tensor>& out) {
  if (count < 0 || static_cast<size_t>(count) != wanted.size() || (count && (!data || !bytes)))
    return wrong("bl_run: must have " + std::to_string(wanted.size()) + " " + kind + "s, got " + std::to_string(count));
  out = wanted;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const size_t needed = static_cast<size_t>(elements(wanted[i].shape)) * size_of(wanted[i].type);
    const std::string which = std::string("bl_run: ") + kind + " " + std::to_string(i);
    if (bytes[i] != needed)
      return wrong(which + " must have " + std::to_string(needed) + " bytes, got " + std::to_string(bytes[i]));
    if (!data[i] && needed) return wrong(which + " must not be NULL");
    out[i].data = const_cast<void*>(static_cast<const void*>(data[i]));
  }
  return {};
}

}  // namespace

extern "C" {

bl_status bl_open(const void* data, size_t size, const bl_options* options, bl_network** out) {
  if (!out || (!data && size)) return told(bl_wrong_input, "bl_open: data and out must not be NULL");
  *out = nullptr;
  return told(guarded([&] { return open(static_cast<const uint8_t*>(data), size, options, out); }));
}

bl_status bl_open_file(const char* path, const bl_options* options, bl_network** out) {
  if (!out || !path) return told(bl_wrong_input, "bl_open_file: path and out must not be NULL");
  *out = nullptr;
  int error = 0;
  const Problem problem = guarded([&]() -> Problem {
    std::vector<uint8_t> bytes;
    errno = 0;
    if (!read_all(path, bytes)) {
      error = errno ? errno : EIO;
      return {};
    }
    return open(bytes.data(), bytes.size(), options, out);
  });
  if (!error) return told(problem);
  char text[sizeof message];
  std::snprintf(text, sizeof text, "bl_open_file: cannot read '%s': %s", path, std::strerror(error));
  return told(bl_unreadable, text);
}

bl_status bl_set_bits(bl_network* network, int bits) {
  return with(network, [&](Opened& opened) {
    const std::lock_guard lock(opened.changing);
    return set_widths(opened, {bits, {}});
  });
}

bl_status bl_set_width_of(bl_network* network, const char* weight, int bits) {
  if (!weight) return told(bl_wrong_input, "bl_set_width_of: weight must not be NULL");
  return with(network, [&](Opened& opened) {
    const std::lock_guard lock(opened.changing);
    Widths widths = opened.widths;
    widths.each[weight] = bits;
    return set_widths(opened, std::move(widths));
  });
}

bl_status bl_inputs(bl_network* network, bl_value* values, int room, int* count) {
  return with(network, [&](Opened& opened) {
    const std::vector<Input>& inputs = opened.network->graph().inputs;
    if (!count || room < 0 || (room && !values)) return wrong(no_room);
    const std::lock_guard lock(opened.changing);
    *count = static_cast<int>(inputs.size());
    for (size_t i = 0; i < inputs.size() && i < static_cast<size_t>(room); ++i) {
      describe(inputs[i].name, inputs[i].type, opened.prepared ? opened.prepared->shapes[i] : inputs[i].shape, values[i]);
      if (inputs[i].any_shape && !opened.prepared) values[i].rank = -1, values[i].bytes = 0;
    }
    return Problem{};
  });
}

bl_status bl_outputs(bl_network* network, bl_value* values, int room, int* count) {
  return with(network, [&](Opened& opened) {
    if (!count || room < 0 || (room && !values)) return wrong(no_room);
    const std::lock_guard lock(opened.changing);
    if (!opened.prepared) return wrong("bl_outputs: shapes are not known yet; call bl_prepare first");
    const std::vector<Tensor>& outputs = opened.prepared->outputs;
    *count = static_cast<int>(outputs.size());
    for (size_t i = 0; i < outputs.size() && i < static_cast<size_t>(room); ++i)
      describe(opened.network->graph().outputs[i], outputs[i].type, outputs[i].shape, values[i]);
    return Problem{};
  });
}

bl_status bl_prepare(bl_network* network, const bl_shape* shapes, int count) {
  return with(network, [&](Opened& opened) -> Problem {
    std::vector<Shape> wanted;
    if (!shapes && count == 0) {
      for (const Input& input : opened.network->graph().inputs) {
        if (input.any_shape) return wrong("bl_prepare: input '" + input.name + "' may have any shape; say which");
        wanted.push_back(input.shape);
        for (int64_t& size : wanted.back()) size = size < 0 ? 1 : size;
      }
    }
    for (int i = 0; i < count; ++i) {
      if (!shapes || shapes[i].rank < 0 || shapes[i].rank > bl_max_rank) return wrong("bl_prepare: a rank must be from 0 to 8");
      wanted.emplace_back(shapes[i].size, shapes[i].size + shapes[i].rank);
    }
    const std::lock_guard lock(opened.changing);
    std::shared_ptr<const Prepared> prepared;
    if (Problem problem = prepare(*opened.network, opened.rung, std::move(wanted), prepared)) return problem;
    for (const Tensor& output : prepared->outputs)
      if (output.shape.size() > bl_max_rank) return {Status::unsupported, "bl_prepare: an output has more than 8 axes", 0};
    opened.prepared = std::move(prepared);
    return {};
  });
}

bl_status bl_run(bl_network* network, const void* const* inputs, const size_t* input_bytes, int input_count,
                 void* const* outputs, const size_t* output_bytes, int output_count) {
  return with(network, [&](Opened& opened) -> Problem {
    std::shared_ptr<const Prepared> prepared;
    {
      const std::lock_guard lock(opened.changing);
      prepared = opened.prepared;
    }
    if (!prepared) return wrong("bl_run: shapes are not known yet; call bl_prepare first");
    std::vector<Tensor> in, out;
    if (Problem problem = bind("input", prepared->inputs, inputs, input_bytes, input_count, in)) return problem;
    if (Problem problem = bind("output", prepared->outputs, outputs, output_bytes, output_count, out)) return problem;
    return prepared->rung->run(in, out, nullptr);
  });
}

bl_status bl_close(bl_network* network) {
  return with(network, [&](Opened&) {
    const std::lock_guard lock(table_lock);
    table().erase(reinterpret_cast<uintptr_t>(network));
    return Problem{};
  });
}

const char* bl_error(void) { return message; }

const char* bl_version(void) { return BL_VERSION; }

}  // extern "C"
