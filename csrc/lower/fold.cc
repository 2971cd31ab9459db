#include "fold.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "file/checked.h"
#include "view.h"

namespace bl {

int64_t whole(double x) {
  if (!(x > -9223372036854775808.0)) return x == x ? INT64_MIN : 0;
  return x < 9223372036854775808.0 ? static_cast<int64_t>(x) : INT64_MAX;
}

namespace {

constexpr int64_t small = 1 << 16;  // elements

// A known array of any type as doubles, which hold whole numbers up to 2^53.
struct Known {
  Type type = Type::i64;
  Shape shape;
  std::vector<double> v;
};

template <class T>
void read_as(const Array& a, std::vector<double>& out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(a.as<T>()[i]);
}

template <class T>
void write_as(const std::vector<double>& v, Array& out) {
  for (size_t i = 0; i < v.size(); ++i) {
    T x;
    if constexpr (std::is_floating_point_v<T>) x = static_cast<T>(v[i]);
    else x = static_cast<T>(whole(v[i]));
    std::memcpy(out.bytes.data() + i * sizeof(T), &x, sizeof(T));
  }
}

bool read(const Array& a, Known& out) {
  out.type = a.type;
  out.shape = a.shape;
  out.v.resize(static_cast<size_t>(elements(a.shape)));
  switch (a.type) {
    case Type::boolean: case Type::u8: read_as<uint8_t>(a, out.v); return true;
    case Type::i8: read_as<int8_t>(a, out.v); return true;
    case Type::i32: read_as<int32_t>(a, out.v); return true;
    case Type::i64: read_as<int64_t>(a, out.v); return true;
    case Type::f32: read_as<float>(a, out.v); return true;
    default: return false;
  }
}

bool write(const Known& k, Array& out) {
  out.type = k.type;
  out.shape = k.shape;
  out.bytes.resize(k.v.size() * size_of(k.type));
  switch (k.type) {
    case Type::boolean:
      for (size_t i = 0; i < k.v.size(); ++i) out.bytes[i] = k.v[i] != 0;
      return true;
    case Type::u8: write_as<uint8_t>(k.v, out); return true;
    case Type::i8: write_as<int8_t>(k.v, out); return true;
    case Type::i32: write_as<int32_t>(k.v, out); return true;
    case Type::i64: write_as<int64_t>(k.v, out); return true;
    case Type::f32: write_as<float>(k.v, out); return true;
    default: return false;
  }
}

// x in the order of a view of it.
Known seen(const Known& x, const View& view) {
  Known out{x.type, view.shape, {}};
  Shape at(view.shape.size(), 0);
  for (int64_t n = elements(view.shape); n > 0; --n) {
    int64_t from = view.first;
    for (size_t a = 0; a < at.size(); ++a) from += at[a] * view.strides[a];
    out.v.push_back(x.v[static_cast<size_t>(from)]);
    for (size_t a = at.size(); a-- > 0;) {
      if (++at[a] < view.shape[a]) break;
      at[a] = 0;
    }
  }
  return out;
}

using Two = double (*)(double, double);
struct Binary {
  const char* op;
  Two f;
  bool truth;
};
const Binary binaries[] = {
    {"add", [](double a, double b) { return a + b; }, false},
    {"sub", [](double a, double b) { return a - b; }, false},
    {"mul", [](double a, double b) { return a * b; }, false},
    {"div", [](double a, double b) { return b == 0 ? 0 : std::trunc(a / b); }, false},
    {"mod", [](double a, double b) { return b == 0 ? 0 : a - std::floor(a / b) * b; }, false},
    {"max", [](double a, double b) { return std::max(a, b); }, false},
    {"min", [](double a, double b) { return std::min(a, b); }, false},
    {"equal", [](double a, double b) { return a == b ? 1.0 : 0.0; }, true},
    {"greater", [](double a, double b) { return a > b ? 1.0 : 0.0; }, true},
    {"less", [](double a, double b) { return a < b ? 1.0 : 0.0; }, true},
    {"greater_or_equal", [](double a, double b) { return a >= b ? 1.0 : 0.0; }, true},
    {"less_or_equal", [](double a, double b) { return a <= b ? 1.0 : 0.0; }, true},
    {"and_", [](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; }, true},
    {"or_", [](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; }, true},
};

bool whole_type(Type t) { return t == Type::boolean || t == Type::i32 || t == Type::i64; }

bool fold_binary(const Binary& how, const Known& a, const Known& b, Known& out) {
  Shape shape;
  if (!whole_type(a.type) || !whole_type(b.type) || !broadcast_shape(a.shape, b.shape, shape) || elements(shape) > small) return false;
  const Known x = seen(a, broadcast(view_of(a.shape), shape)), y = seen(b, broadcast(view_of(b.shape), shape));
  out = {how.truth ? Type::boolean : a.type, shape, x.v};
  for (size_t i = 0; i < out.v.size(); ++i) out.v[i] = how.f(x.v[i], y.v[i]);
  return true;
}

bool fold_cast(const Node& node, const Known& x, Known& out) {
  out = x;
  if (!type_named(attr(node, "to", ""), out.type)) return false;
  if (out.type == Type::f32) return whole_type(x.type);
  for (double& v : out.v) v = out.type == Type::boolean ? v != 0 : std::trunc(v);
  return true;
}

bool fold_gather(const Node& node, const Known& x, const Known& at, Known& out) {
  const int64_t axis = axis_of(attr(node, "axis", int64_t{0}), x.shape.size());
  if (axis >= static_cast<int64_t>(x.shape.size())) return false;
  const auto begin = x.shape.begin();
  const int64_t n = x.shape[static_cast<size_t>(axis)], inner = elements(Shape(begin + axis + 1, x.shape.end()));
  out = {x.type, Shape(begin, begin + axis), {}};
  const int64_t outer = elements(out.shape);
  out.shape.insert(out.shape.end(), at.shape.begin(), at.shape.end());
  out.shape.insert(out.shape.end(), begin + axis + 1, x.shape.end());
  if (elements(out.shape) > small) return false;
  for (int64_t o = 0; o < outer; ++o)
    for (double index : at.v) {
      const int64_t i = axis_of(whole(index), static_cast<size_t>(n));
      if (i < 0 || i >= n) return false;
      for (int64_t k = 0; k < inner; ++k) out.v.push_back(x.v[static_cast<size_t>((o * n + i) * inner + k)]);
    }
  return true;
}

bool fold_concat(const Node& node, const std::vector<Known>& in, Known& out) {
  const size_t axis = static_cast<size_t>(axis_of(attr(node, "axis", int64_t{0}), in[0].shape.size()));
  if (axis != 0 || in[0].shape.size() != 1) return false;
  out = {in[0].type, {0}, {}};
  for (const Known& k : in) {
    if (k.shape.size() != 1) return false;
    out.shape[0] += k.shape[0];
    out.v.insert(out.v.end(), k.v.begin(), k.v.end());
  }
  return true;
}

bool fold_slice(const std::vector<Known>& in, Known& out) {
  if (in.size() < 3 || in[0].shape.size() != 1 || in[1].v.size() != 1 || in[2].v.size() != 1) return false;
  if (in.size() > 4 && in[4].v.size() != 1) return false;
  const int64_t n = in[0].shape[0], step = in.size() > 4 ? std::min(whole(in[4].v[0]), n + 1) : 1;
  const auto held = [&](double x) { return static_cast<int64_t>(std::clamp(x < 0 ? x + static_cast<double>(n) : x, 0.0, static_cast<double>(n))); };
  if (step < 1) return false;
  out = {in[0].type, {0}, {}};
  for (int64_t i = held(in[1].v[0]); i < held(in[2].v[0]); i += step) out.v.push_back(in[0].v[static_cast<size_t>(i)]);
  out.shape[0] = static_cast<int64_t>(out.v.size());
  return true;
}

bool fold_range(const std::vector<Known>& in, Known& out) {
  if (in.size() != 3 || in[0].v.size() != 1 || in[1].v.size() != 1 || in[2].v.size() != 1) return false;
  if (in[2].v[0] == 0 || !whole_type(in[0].type)) return false;
  out = {in[0].type, {0}, {}};
  const double count = std::ceil((in[1].v[0] - in[0].v[0]) / in[2].v[0]);
  if (count > small) return false;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) out.v.push_back(in[0].v[0] + static_cast<double>(i) * in[2].v[0]);
  out.shape[0] = static_cast<int64_t>(out.v.size());
  return true;
}

bool fold_where(const std::vector<Known>& in, Known& out) {
  Shape shape;
  if (in.size() != 3 || !broadcast_shape(in[0].shape, in[1].shape, shape)) return false;
  const Shape first = shape;
  if (!broadcast_shape(first, in[2].shape, shape) || !whole_type(in[1].type) || elements(shape) > small) return false;
  const Known c = seen(in[0], broadcast(view_of(in[0].shape), shape)), x = seen(in[1], broadcast(view_of(in[1].shape), shape)),
              y = seen(in[2], broadcast(view_of(in[2].shape), shape));
  out = x;
  for (size_t i = 0; i < out.v.size(); ++i) out.v[i] = c.v[i] != 0 ? x.v[i] : y.v[i];
  return true;
}

// The same elements in another shape.
bool fold_shape(const Node& node, const std::vector<Known>& in, Known& out) {
  out = in[0];
  const int64_t count = elements(in[0].shape);
  if (node.op == "identity") return true;
  if (node.op == "squeeze") {
    Shape shape;
    for (size_t a = 0; a < in[0].shape.size(); ++a) {
      bool gone = in.size() < 2 && in[0].shape[a] == 1;
      for (size_t i = 0; in.size() > 1 && i < in[1].v.size(); ++i)
        gone = gone || axis_of(whole(in[1].v[i]), in[0].shape.size()) == static_cast<int64_t>(a);
      if (!gone) shape.push_back(in[0].shape[a]);
    }
    out.shape = shape;
    return elements(shape) == count;
  }
  if (in.size() < 2) return false;
  if (node.op == "unsqueeze") {
    const size_t rank = in[0].shape.size() + in[1].v.size();
    std::vector<bool> fresh(rank, false);
    for (double a : in[1].v) {
      const int64_t at = axis_of(whole(a), rank);
      if (at < 0 || at >= static_cast<int64_t>(rank)) return false;
      fresh[static_cast<size_t>(at)] = true;
    }
    out.shape.clear();
    for (size_t a = 0, from = 0; a < rank; ++a) out.shape.push_back(fresh[a] || from >= in[0].shape.size() ? 1 : in[0].shape[from++]);
    return elements(out.shape) == count;
  }
  Shape shape;  // reshape
  int64_t rest = -1, product = 1;
  for (size_t i = 0; i < in[1].v.size(); ++i) {
    int64_t n = whole(in[1].v[i]);
    if (n == 0 && i < in[0].shape.size()) n = in[0].shape[i];
    if (n < 0) rest = static_cast<int64_t>(i);
    else product = capped_mul(product, n);
    shape.push_back(n);
  }
  if (rest >= 0) shape[static_cast<size_t>(rest)] = product == 0 ? 0 : count / product;
  out.shape = shape;
  return can_be_held(shape) && elements(shape) == count;
}

bool compute(const Node& node, const std::vector<Known>& in, Known& out) {
  for (const Binary& b : binaries)
    if (node.op == b.op) return in.size() == 2 && fold_binary(b, in[0], in[1], out);
  const std::string& op = node.op;
  if (op == "cast") return fold_cast(node, in[0], out);
  if (op == "gather") return in.size() == 2 && fold_gather(node, in[0], in[1], out);
  if (op == "concat") return fold_concat(node, in, out);
  if (op == "slice") return fold_slice(in, out);
  if (op == "range") return fold_range(in, out);
  if (op == "where") return fold_where(in, out);
  if (op == "identity" || op == "squeeze" || op == "unsqueeze" || op == "reshape") return fold_shape(node, in, out);
  if (op == "neg" || op == "not_" || op == "reduce_prod") {
    out = in[0];
    if (!whole_type(out.type)) return false;
    if (op == "neg") for (double& v : out.v) v = -v;
    else if (op == "not_") for (double& v : out.v) v = v == 0;
    else {
      if (in.size() > 1 && out.shape.size() != 1) return false;
      double product = 1;
      for (double v : out.v) product *= v;
      out.v = {product};
      out.shape = attr(node, "keepdims", int64_t{1}) != 0 ? Shape(out.shape.size(), 1) : Shape{};
    }
    return true;
  }
  if (op == "expand" && in.size() == 2) {
    Shape wanted, shape;
    for (double n : in[1].v) wanted.push_back(whole(n));
    if (!broadcast_shape(in[0].shape, wanted, shape) || !can_be_held(shape) || elements(shape) > small) return false;
    out = seen(in[0], broadcast(view_of(in[0].shape), shape));
    return true;
  }
  if (op == "constant_of_shape") {
    out = {Type::f32, {}, {}};
    if (!type_named(attr(node, "dtype", "float32"), out.type)) return false;
    for (double n : in[0].v) out.shape.push_back(whole(n));
    if (!can_be_held(out.shape) || elements(out.shape) > small) return false;
    out.v.assign(static_cast<size_t>(elements(out.shape)), attr(node, "value", 0.0));
    return true;
  }
  return false;
}

// What a shape alone says.
bool ask_shape(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  if (x < 0) return false;
  const Shape& shape = lower.value(x).shape;
  Known out{Type::i64, {}, {}};
  if (node.op == "size") {
    out.v = {static_cast<double>(elements(shape))};
  } else {
    const int64_t rank = static_cast<int64_t>(shape.size());
    const auto held = [&](int64_t a) { return std::clamp<int64_t>(a < 0 ? a + rank : a, 0, rank); };
    for (int64_t a = held(attr(node, "start", int64_t{0})); a < held(attr(node, "end", rank)); ++a)
      out.v.push_back(static_cast<double>(shape[static_cast<size_t>(a)]));
    out.shape = {static_cast<int64_t>(out.v.size())};
  }
  Array array;
  write(out, array);
  lower.known(node, 0, std::move(array));
  return true;
}

}  // namespace

bool known_integers(const Lowering& lower, const Node& node, size_t slot, Shape& out) {
  const Array* a = lower.constant(node, slot);
  Known k;
  if (a == nullptr || !read(*a, k)) return false;
  out.clear();
  for (double v : k.v) out.push_back(whole(v));
  return true;
}

bool fold(Lowering& lower, const Node& node) {
  if (node.op == "shape" || node.op == "size") return ask_shape(lower, node);
  if (node.outputs.size() != 1 || node.low || node.high || lower.graph().encoding(node.outputs[0]) != nullptr) return false;
  std::vector<Known> in;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Array* a = lower.constant(node, i);
    if (a == nullptr || elements(a->shape) > small) return false;
    if (a->type == Type::f32 && node.op != "cast") return false;
    in.emplace_back();
    if (!read(*a, in.back())) return false;
  }
  Known out;
  Array array;
  if (in.empty() || !compute(node, in, out) || !write(out, array)) return false;
  lower.known(node, 0, std::move(array));
  return true;
}

}  // namespace bl
