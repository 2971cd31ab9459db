// Operators of one input, element by element, and those with parameters for each channel.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "elementwise.h"
#include "lookup.h"
#include "lower.h"
#include "run/pool.h"
#include "target.h"

namespace bl {

namespace {

// The lines of a value: all of it in rows, cut into stretches, or the lines of an image. In elements.
struct Lines {
  int64_t height = 1, lines = 1, length = 1, total = 1, first = 0, image = 0, line = 0;
  int64_t at(int64_t i) const { return first + i / height * image + i % height * line; }
  int64_t size(int64_t i) const { return std::min(length, total - i * length); }
};

Lines lines_of(const Value& v) {
  if (v.image) {
    const Image i = image_of(v);
    return {i.height, i.batch * i.height, i.width * i.channels, v.count(), i.first, i.image, i.line};
  }
  constexpr int64_t stretch = 1 << 14;
  const int64_t n = v.count(), lines = (n + stretch - 1) / stretch;
  return {std::max<int64_t>(lines, 1), lines, stretch, n, 0, 0, stretch};
}

// A step from x to y, of one shape and layout: each(frame, first element in x, in y, elements) for every line.
template <class Each>
void emit_each(Lowering& lower, const Node& node, const std::string& kernel, int x, int y, Each each) {
  const Lines from = lines_of(lower.value(x)), to = lines_of(lower.value(y));
  const int tasks = tasks_for(lower, from.total, from.lines);
  lower.emit({node.name(), kernel, {x}, {y}, [=](const Frame& f) {
                f.pool->run(tasks, [&](int task) {
                  for (int64_t i = share_of(from.lines, tasks, task); i < share_of(from.lines, tasks, task + 1); ++i)
                    each(f, from.at(i), to.at(i), from.size(i));
                });
              }});
}

void emit_lookup(Lowering& lower, const Node& node, int x, std::shared_ptr<const uint8_t[]> table) {
  const Value v = lower.value(x);
  const int y = lower.output(node, 0, Type::f32, v.shape, v.image, true);
  emit_each(lower, node, "table", x, y, [=](const Frame& f, int64_t from, int64_t to, int64_t n) {
    f.kernels->pointwise.lookup(f.at<uint8_t>(x) + from, f.at<uint8_t>(y) + to, n, table.get());
  });
}

// Emits reals of x through `each`(frame, in, out, n), then the node's clip and its encoding.
template <class Each>
bool emit_reals(Lowering& lower, const Node& node, const std::string& kernel, int x, Each each) {
  x = lower.reals(x);
  const Value v = lower.value(x);
  if (v.type != Type::f32) return lower.refuse(node, "its input is not float32");
  const Target to = target(lower, node, v, v.shape, v.image);
  if (to.number < 0) return false;
  const int y = to.number;
  emit_each(lower, node, kernel, x, y, [=](const Frame& f, int64_t from, int64_t into, int64_t n) {
    each(f, f.at<float>(x) + from, f.at<float>(y) + into, n);
  });
  land(lower, node, to);
  return true;
}

// ------------------------------------------------------------------------------------------------- one real

// Operators with a kernel for reals, and their attributes with what they are by default.
struct Word {
  const char* op;
  Unary kernel;
  const char* a_name = nullptr;
  double a = 0;
  const char* b_name = nullptr;
  double b = 0;
};
const Word words[] = {
    {"abs", Unary::abs},
    {"neg", Unary::neg},
    {"relu", Unary::relu},
    {"sqrt", Unary::sqrt},
    {"reciprocal", Unary::reciprocal},
    {"floor", Unary::floor},
    {"ceil", Unary::ceil},
    {"round", Unary::round},
    {"sign", Unary::sign},
    {"exp", Unary::exp},
    {"log", Unary::log},
    {"sigmoid", Unary::sigmoid},
    {"tanh", Unary::tanh},
    {"erf", Unary::erf},
    {"gelu", Unary::gelu},
    {"swish", Unary::swish, "alpha", 1.0},
    {"mish", Unary::mish},
    {"softplus", Unary::softplus},
    {"softsign", Unary::softsign},
    {"elu", Unary::elu, "alpha", 1.0},
    {"hard_sigmoid", Unary::hard_sigmoid, "alpha", 0.2, "beta", 0.5},
    {"hard_swish", Unary::hard_swish},
    {"leaky_relu", Unary::leaky_relu, "alpha", 0.01},
};

bool emit_unary(Lowering& lower, const Node& node, int x, Unary op, float a, float b) {
  const int kernel = static_cast<int>(op);
  return emit_reals(lower, node, node.op, x, [=](const Frame& f, const float* in, float* out, int64_t n) {
    f.kernels->pointwise.unary[kernel](in, out, n, a, b);
  });
}

bool lower_unary(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  Coding out;
  if (lower.value(x).codes && lower.coding(node, 0, out)) {
    const std::shared_ptr<uint8_t[]> table(new uint8_t[256]);
    if (lookup_table(node, lower.value(x).coding, out, table.get())) return emit_lookup(lower, node, x, table), true;
  }
  for (const Word& word : words) {
    if (node.op != word.op) continue;
    const Unary kernel = node.op == "gelu" && attr(node, "approximate", "none") == "tanh" ? Unary::gelu_tanh : word.kernel;
    const double a = word.a_name ? attr(node, word.a_name, word.a) : 0, b = word.b_name ? attr(node, word.b_name, word.b) : 0;
    return emit_unary(lower, node, x, kernel, static_cast<float>(a), static_cast<float>(b));
  }
  Function f;
  if (!function_of(node, f)) return lower.refuse(node, "it has no kernel");
  return emit_function(lower, node, x, node.op, [f](float v) { return static_cast<float>(f(v)); });
}

bool limit_of(const Lowering& lower, const Node& node, size_t slot, float& out) {
  if (slot >= node.inputs.size() || node.inputs[slot].empty()) return true;
  const Array* limit = lower.constant(node, slot);
  if (limit == nullptr || limit->type != Type::f32 || elements(limit->shape) != 1) return false;
  out = limit->as<float>()[0];
  return true;
}

bool lower_clip(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  float low = -INFINITY, high = INFINITY;
  if (x < 0 || !limit_of(lower, node, 1, low) || !limit_of(lower, node, 2, high)) return lower.refuse(node, "its limits are no constant numbers");
  Coding out;
  const auto held = [=](float v) { return std::fmin(v < low ? low : v, high); };
  if (lower.value(x).codes && lower.coding(node, 0, out) && emit_table(lower, node, x, out, held)) return true;
  return emit_unary(lower, node, x, Unary::clip, low, high);
}

// ---------------------------------------------------------------------------------------- parameters of channels

// A float32 constant of one entry for each channel, or of one for all, spread to `channels`; empty if it is neither.
std::vector<float> per_channel(const Lowering& lower, const Node& node, size_t slot, int64_t channels) {
  const Array* p = lower.constant(node, slot);
  if (p == nullptr || p->type != Type::f32) return {};
  const int64_t n = elements(p->shape);
  if (n == channels) return std::vector<float>(p->as<float>(), p->as<float>() + n);
  return n == 1 ? std::vector<float>(static_cast<size_t>(channels), p->as<float>()[0]) : std::vector<float>();
}

// The input as float32 with channels last: an image, or a matrix in rows. -1 if it is neither.
int channels_last(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  if (x < 0) return -1;
  const size_t rank = lower.value(x).shape.size();
  if (rank != 2 && rank != 3 && rank != 4) return -1;
  const int as = rank == 2 ? lower.rows(x) : lower.image(x);
  return lower.value(as).count() > 0 ? lower.reals(as) : -1;
}

bool lower_batch_norm(Lowering& lower, const Node& node) {
  const int x = channels_last(lower, node);
  if (x < 0 || lower.value(x).type != Type::f32) return lower.refuse(node, "its input has no channels");
  const int64_t channels = lower.value(x).shape[1];
  struct Tables {
    std::vector<float> scale, shift, mean, deviation;
  };
  const auto t = std::make_shared<Tables>(Tables{per_channel(lower, node, 1, channels), per_channel(lower, node, 2, channels),
                                                 per_channel(lower, node, 3, channels), per_channel(lower, node, 4, channels)});
  if (t->scale.empty() || t->shift.empty() || t->mean.empty() || t->deviation.empty()) return lower.refuse(node, "its parameters are no constants");
  const float epsilon = static_cast<float>(attr(node, "epsilon", 1e-5));
  for (float& v : t->deviation) v = std::sqrt(v + epsilon);
  if (!lower.value(x).image) {  // lines of rows do not begin with channel 0
    const Target to = target(lower, node, lower.value(x), lower.value(x).shape, false);
    if (to.number < 0) return false;
    const int64_t n = lower.value(x).count();
    const int y = to.number;
    lower.emit({node.name(), "batch norm", {x}, {y}, [=](const Frame& f) {
                  f.kernels->pointwise.normalize(f.at<float>(x), f.at<float>(y), n, channels, t->mean.data(), t->deviation.data(), t->scale.data(), t->shift.data());
                }});
    land(lower, node, to);
    return true;
  }
  return emit_reals(lower, node, "batch norm", x, [=](const Frame& f, const float* in, float* out, int64_t n) {
    f.kernels->pointwise.normalize(in, out, n, channels, t->mean.data(), t->deviation.data(), t->scale.data(), t->shift.data());
  });
}

bool lower_prelu(Lowering& lower, const Node& node) {
  const int x = channels_last(lower, node);
  if (x < 0 || !lower.value(x).image) return lower.refuse(node, "its input is no image");
  const int64_t channels = lower.value(x).shape[1];
  const Array* p = lower.constant(node, 1);
  const size_t rank = lower.value(x).shape.size();
  const bool fits = p != nullptr && (elements(p->shape) == 1 || (p->shape.size() + 1 >= rank && p->shape[p->shape.size() + 1 - rank] == channels));
  const auto slope = std::make_shared<std::vector<float>>(fits ? per_channel(lower, node, 1, channels) : std::vector<float>());
  if (slope->empty()) return lower.refuse(node, "its slope is no constant for each channel");
  return emit_reals(lower, node, "prelu", x, [=](const Frame& f, const float* in, float* out, int64_t n) {
    f.kernels->pointwise.prelu(in, out, n, slope->data(), channels);
  });
}

// --------------------------------------------------------------------------------------------------------------- cast

template <class From, class To>
void convert(const void* x, void* y, int64_t n) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(y);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, bool>) to[i] = from[i] != From(0);
    else to[i] = static_cast<To>(from[i]);
  }
}

using Convert = void (*)(const void*, void*, int64_t);

template <class From>
Convert convert_from(Type to) {
  switch (to) {
    case Type::boolean: return convert<From, bool>;
    case Type::i32: return convert<From, int32_t>;
    case Type::i64: return convert<From, int64_t>;
    case Type::f32: return convert<From, float>;
    case Type::f64: return convert<From, double>;
    default: return nullptr;
  }
}

Convert convert_of(Type from, Type to) {
  switch (from) {
    case Type::boolean: return convert_from<bool>(to);
    case Type::u8: return convert_from<uint8_t>(to);
    case Type::i8: return convert_from<int8_t>(to);
    case Type::i32: return convert_from<int32_t>(to);
    case Type::i64: return convert_from<int64_t>(to);
    case Type::f32: return convert_from<float>(to);
    case Type::f64: return convert_from<double>(to);
    default: return nullptr;
  }
}

bool lower_cast(Lowering& lower, const Node& node) {
  int x = lower.input(node, 0);
  Type to;
  if (x < 0 || !type_named(attr(node, "to", ""), to)) return lower.refuse(node, "it has no kernel for this type");
  x = lower.reals(x);
  const Type from = lower.value(x).type;
  if (from == to) return lower.settle(node, 0, x), true;
  const Convert f = convert_of(from, to);
  if (f == nullptr) return lower.refuse(node, "it has no kernel for these types");
  x = lower.rows(x);
  const Value v = lower.value(x);
  Value like = v;
  like.type = to;
  const Target made = target(lower, node, like, v.shape, false);
  if (made.number < 0) return false;
  const int y = made.number;
  const int64_t n = v.count();
  lower.emit({node.name(), "cast", {x}, {y}, [=](const Frame& frame) { f(frame.at<void>(x), frame.at<void>(y), n); }});
  land(lower, node, made);
  return true;
}

#define BL_UNARY(op) {op, lower_unary, nullptr}
const Rule rules[] = {
    BL_UNARY("abs"), BL_UNARY("neg"), BL_UNARY("sign"), BL_UNARY("ceil"), BL_UNARY("floor"), BL_UNARY("round"), BL_UNARY("sqrt"),
    BL_UNARY("exp"), BL_UNARY("log"), BL_UNARY("reciprocal"), BL_UNARY("erf"), BL_UNARY("sin"), BL_UNARY("cos"), BL_UNARY("tan"),
    BL_UNARY("asin"), BL_UNARY("acos"), BL_UNARY("atan"), BL_UNARY("sinh"), BL_UNARY("cosh"), BL_UNARY("tanh"), BL_UNARY("asinh"),
    BL_UNARY("acosh"), BL_UNARY("atanh"), BL_UNARY("relu"), BL_UNARY("sigmoid"), BL_UNARY("softplus"), BL_UNARY("softsign"),
    BL_UNARY("gelu"), BL_UNARY("elu"), BL_UNARY("celu"), BL_UNARY("selu"), BL_UNARY("leaky_relu"), BL_UNARY("mish"),
    BL_UNARY("swish"), BL_UNARY("hard_sigmoid"), BL_UNARY("hard_swish"), BL_UNARY("thresholded_relu"), BL_UNARY("shrink"),
    {"clip", lower_clip, nullptr},
    {"batch_norm", lower_batch_norm, nullptr},
    {"prelu", lower_prelu, nullptr},
    {"cast", lower_cast, nullptr},
    {"add", lower_binary, nullptr},
    {"sub", lower_binary, nullptr},
    {"mul", lower_binary, nullptr},
    {"div", lower_binary, nullptr},
    {"max", lower_binary, nullptr},
    {"min", lower_binary, nullptr},
    {"pow", lower_power, nullptr},
    {"where", lower_where, nullptr},
    {"equal", lower_comparison, nullptr},
    {"greater", lower_comparison, nullptr},
    {"less", lower_comparison, nullptr},
    {"greater_or_equal", lower_comparison, nullptr},
    {"less_or_equal", lower_comparison, nullptr},
};
#undef BL_UNARY

}  // namespace

bool emit_table(Lowering& lower, const Node& node, int x, const Coding& out, const std::function<float(float)>& f) {
  const Coding in = lower.value(x).coding;
  if (!in.uniform() || !out.uniform()) return false;
  const std::shared_ptr<uint8_t[]> table(new uint8_t[256]);
  for (int code = 0; code < 256; ++code) {
    float y = f(static_cast<float>(code - in.zero) * in.step());
    if (node.low && y < static_cast<float>(*node.low)) y = static_cast<float>(*node.low);
    if (node.high && y > static_cast<float>(*node.high)) y = static_cast<float>(*node.high);
    table[static_cast<size_t>(code)] = code_of(y, out);
  }
  emit_lookup(lower, node, x, table);
  return true;
}

bool emit_function(Lowering& lower, const Node& node, int x, const std::string& kernel, const std::function<float(float)>& f) {
  return emit_reals(lower, node, kernel, x, [f](const Frame&, const float* in, float* out, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = f(in[i]);
  });
}

const Room pointwise_room{rules, sizeof rules / sizeof *rules};

}  // namespace bl
