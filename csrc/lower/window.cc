// Depthwise convolution and pools.

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "file/checked.h"
#include "lookup.h"
#include "lower.h"
#include "run/pool.h"
#include "target.h"
#include "layers/layer.h"
#include "resize.h"
#include "sequence.h"

namespace bl {

bool lower_depthwise(Lowering& lower, const Node& node, const Layer& layer, int number);

namespace {

// ---------------------------------------------------------------------------------------------- depthwise convolution

struct DepthwisePlan {
  const Layer* layer;
  int number, x, y, scratch;
  Depthwise work;
  std::vector<int64_t> taps;
  std::shared_ptr<uint8_t[]> table;
  int64_t x_first, y_first, lines, chunk;
};

constexpr int64_t chunk_bytes = 192 << 10;  // of inputs that stay in the cache while the blocks of channels go by

const int8_t* decoded(const DepthwisePlan& p, const Level& level, const Frame& f) {
  const uint8_t* packed = p.layer->bytes->data();
  if (p.scratch < 0) return reinterpret_cast<const int8_t*>(packed);
  uint8_t* out = f.at<uint8_t>(p.scratch);
  f.kernels->pointwise.lookup(packed, out, p.layer->bytes->size(), reinterpret_cast<const uint8_t*>(level.table));
  return reinterpret_cast<const int8_t*>(out);
}

void run_depthwise(const DepthwisePlan& p, const Frame& f) {
  const Level& level = f.levels[p.number];
  Depthwise d = p.work;
  d.taps = p.taps.data();
  d.mask = level.mask;
  d.half = level.half;
  d.finish.shift = level.shift;
  d.finish.bias = level.bias.data();
  d.finish.scale = level.scale.data();
  d.finish.low = level.low.data();
  d.finish.high = level.high.data();
  DepthwiseCall call{f.at<const uint8_t>(p.x) + p.x_first, decoded(p, level, f),
                     f.at<uint8_t>(p.y) + p.y_first * (p.layer->codes ? 1 : 4), 0, 0};
  f.pool->run(static_cast<int>((p.lines + p.chunk - 1) / p.chunk), [&](int task) {
    DepthwiseCall c = call;
    c.line = task * p.chunk;
    c.line_end = std::min(c.line + p.chunk, p.lines);
    f.kernels->window.depthwise(d, c);
  });
}

// Lines of a task: their inputs fit the cache, and there are tasks for all threads. A multiple of 4, as tiles like it.
int64_t chunk_of(const Lowering& lower, int64_t lines, int64_t line_bytes, int64_t macs) {
  int64_t chunk = std::max<int64_t>(chunk_bytes / line_bytes, 4);
  if (lower.options().threads > 1 && macs > 200000) chunk = std::min(chunk, lines / lower.options().threads + 1);
  return (std::max<int64_t>(chunk, 1) + 3) / 4 * 4;
}

// ------------------------------------------------------------------------------------------------------------- pools

struct Attributes {
  int kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1};
  int before[2] = {0, 0}, after[2] = {0, 0};
};

bool read_attributes(Lowering& lower, const Node& node, size_t space, Attributes& out) {
  const Shape kernel = attr(node, "kernel_shape", Shape{}), ones(space, 1);
  const Shape strides = attr(node, "strides", ones), dilations = attr(node, "dilations", ones);
  if (kernel.size() != space || strides.size() != space || dilations.size() != space)
    return lower.refuse(node, "its window has another number of axes than its input");
  const Tree* pads = node.attrs.find("pads");
  constexpr int64_t most = 1 << 20;
  for (size_t i = 0; i < space; ++i) {
    const size_t a = i + 2 - space;
    const auto sane = [](int64_t n) { return n >= 1 && n <= most; };
    if (!sane(kernel[i]) || !sane(strides[i]) || !sane(dilations[i])) return lower.refuse(node, "its window has odd sizes");
    out.kernel[a] = static_cast<int>(kernel[i]);
    out.stride[a] = static_cast<int>(strides[i]);
    out.dilation[a] = static_cast<int>(dilations[i]);
    if (pads == nullptr || pads->list() == nullptr) continue;
    const Tree::List* pair = i < pads->list()->size() ? (*pads->list())[i].list() : nullptr;
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].whole() || !(*pair)[1].whole())
      return lower.refuse(node, "pads must be (begin, end) pairs");
    const int64_t before = *(*pair)[0].whole(), after = *(*pair)[1].whole();
    if (before < 0 || after < 0 || before > most || after > most) return lower.refuse(node, "pads must be between 0 and 2^20");
    out.before[a] = static_cast<int>(before);
    out.after[a] = static_cast<int>(after);
  }
  return true;
}

// How many windows an axis has; -1 if one of them would lie outside the input.
int64_t windows_on(const Node& node, Attributes& at, int axis, int64_t size) {
  const int64_t span = static_cast<int64_t>(at.kernel[axis] - 1) * at.dilation[axis] + 1, stride = at.stride[axis];
  const std::string same = attr(node, "auto_pad", "NOTSET");
  if (same == "SAME_UPPER" || same == "SAME_LOWER") {
    const int64_t total = std::max<int64_t>(((size + stride - 1) / stride - 1) * stride + span - size, 0);
    at.before[axis] = static_cast<int>(same == "SAME_UPPER" ? total / 2 : total - total / 2);
    at.after[axis] = static_cast<int>(total) - at.before[axis];
  } else if (same != "NOTSET") {
    at.before[axis] = at.after[axis] = 0;
  }
  int64_t after = at.after[axis];
  const int64_t before = at.before[axis];
  if (attr(node, "ceil_mode", int64_t{0}) != 0 && same == "NOTSET") {
    const int64_t room = size + before + after - span;
    int64_t count = (room >= 0 ? (room + stride - 1) / stride : -(-room / stride)) + 1;
    if ((count - 1) * stride >= size + before) --count;
    after = std::max(after, (count - 1) * stride + span - size - before);
  }
  if (size + before + after < span) return -1;
  const int64_t count = (size + before + after - span) / stride + 1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * stride - before, skipped = first < 0 ? parts_of(-first, at.dilation[axis]) : 0;
    if (skipped >= at.kernel[axis] || first + skipped * at.dilation[axis] >= size) return -1;
  }
  return count;
}

// A pool of `node` over an image, or over all of it.
bool pooling_of(Lowering& lower, const Node& node, const Value& x, bool whole, Pooling& p) {
  const Image image = image_of(x);
  Attributes at;
  at.kernel[0] = static_cast<int>(image.height);
  at.kernel[1] = static_cast<int>(image.width);
  if (!whole && (at = {}, !read_attributes(lower, node, x.shape.size() - 2, at))) return false;
  const int64_t lines = whole ? 1 : windows_on(node, at, 0, image.height), columns = whole ? 1 : windows_on(node, at, 1, image.width);
  if (lines < 1 || columns < 1) return lower.refuse(node, "its windows reach beyond its input");
  p = {};
  p.x_image = image.image;
  p.x_line = image.line;
  p.height = static_cast<int>(image.height);
  p.width = static_cast<int>(image.width);
  p.channels = static_cast<int>(image.channels);
  p.lines = static_cast<int>(lines);
  p.columns = static_cast<int>(columns);
  p.kernel_y = at.kernel[0];
  p.kernel_x = at.kernel[1];
  p.stride_y = at.stride[0];
  p.stride_x = at.stride[1];
  p.dilation_y = at.dilation[0];
  p.dilation_x = at.dilation[1];
  p.top = at.before[0];
  p.bottom = at.after[0];
  p.left = at.before[1];
  p.right = at.after[1];
  p.count_padding = attr(node, "count_include_pad", int64_t{0}) != 0;
  return true;
}

Shape pooled_shape(const Value& x, const Pooling& p) {
  Shape out{x.shape[0], x.shape[1]};
  if (x.shape.size() == 4) out.push_back(p.lines);
  out.push_back(p.columns);
  return out;
}

// The input of a pool as an image of codes or of float32, or -1.
int pool_input(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel"), -1;
  const Value& v = lower.value(x);
  if (v.shape.size() != 3 && v.shape.size() != 4) return lower.refuse(node, "its input is no image of one or two axes"), -1;
  if ((!v.codes && v.type != Type::f32) || v.count() == 0) return lower.refuse(node, "its input is not float32"), -1;
  return lower.image(x);
}

// What runs over lines of images, many at a time.
template <class Lines>
Work over_lines(const Lowering& lower, int64_t lines, int64_t work, Lines run) {
  const int tasks = tasks_for(lower, work, lines);
  return [=](const Frame& f) {
    f.pool->run(tasks, [&](int task) { run(f, share_of(lines, tasks, task), share_of(lines, tasks, task + 1)); });
  };
}

bool lower_max(Lowering& lower, const Node& node, bool whole) {
  const int x = pool_input(lower, node);
  Pooling p;
  if (x < 0 || !pooling_of(lower, node, lower.value(x), whole, p)) return false;
  const Target to = target(lower, node, lower.value(x), pooled_shape(lower.value(x), p), true);
  if (to.number < 0) return false;
  const Image from = image_of(lower.value(x)), into = image_of(lower.value(to.number));
  p.y_image = into.image;
  p.y_line = into.line;
  const bool codes = lower.value(x).codes;
  const int y = to.number;
  const int64_t work = into.batch * p.lines * p.columns * p.channels * p.kernel_y * p.kernel_x;
  lower.emit({node.name(), "max pool", {x}, {y}, over_lines(lower, into.batch * p.lines, work, [=](const Frame& f, int64_t a, int64_t b) {
                if (codes) f.kernels->window.max_codes(p, f.at<uint8_t>(x) + from.first, f.at<uint8_t>(y) + into.first, a, b);
                else f.kernels->window.max_reals(p, f.at<float>(x) + from.first, f.at<float>(y) + into.first, a, b);
              })});
  land(lower, node, to);
  return true;
}

bool lower_max_pool(Lowering& lower, const Node& node) { return lower_max(lower, node, false); }
bool lower_global_max(Lowering& lower, const Node& node) { return lower_max(lower, node, true); }

// The tables of integer means (docs/numerics.md, "Averages"): steps and limits of each channel.
struct MeanTables {
  std::vector<float> x_step, y_step, low, high;
  Mean mean;
  MeanTables(const Node& node, const Coding& x, const Coding& y, int64_t channels) {
    const auto code = [](double limit, float step, const Coding& c) {
      return std::clamp(std::nearbyint(static_cast<float>(limit) / step) + static_cast<float>(c.zero), 0.0f, static_cast<float>(c.high));
    };
    for (int64_t c = 0; c < channels; ++c) {
      const float step = y.step(c), zero = static_cast<float>(y.zero);
      x_step.push_back(x.step(c));
      y_step.push_back(step);
      low.push_back((node.low ? code(*node.low, step, y) : 0.0f) - zero);
      high.push_back((node.high ? code(*node.high, step, y) : static_cast<float>(y.high)) - zero);
    }
    mean = {x_step.data(), y_step.data(), low.data(), high.data(), x.zero, y.zero};
  }
};

// Means of `p` over x, which lies at `first` elements, into y.
void emit_means(Lowering& lower, const Node& node, int x, int64_t x_first, int y, int64_t y_first, int64_t batch, const Pooling& p) {
  const Value &from = lower.value(x), &to = lower.value(y);
  const int64_t lines = batch * p.lines, work = lines * p.columns * p.channels * p.kernel_y * p.kernel_x;
  if (from.codes) {
    const auto tables = std::make_shared<MeanTables>(node, from.coding, to.coding, p.channels);
    lower.emit({node.name(), "mean of codes", {x}, {y}, over_lines(lower, lines, work, [=](const Frame& f, int64_t a, int64_t b) {
                  f.kernels->window.mean_codes(p, tables->mean, f.at<uint8_t>(x) + x_first, f.at<uint8_t>(y) + y_first, a, b);
                })});
  } else {
    lower.emit({node.name(), "mean", {x}, {y}, over_lines(lower, lines, work, [=](const Frame& f, int64_t a, int64_t b) {
                  f.kernels->window.mean_reals(p, f.at<float>(x) + x_first, f.at<float>(y) + y_first, a, b);
                })});
  }
}

constexpr int64_t most_summed = 1 << 23;  // codes whose sum fits in 32 bits

// Whether `node` sums codes of `x`, and not reals: its output is coded, too. False with a refusal where that has no kernel.
bool sums_codes(Lowering& lower, const Node& node, const Value& x, bool& codes) {
  codes = x.codes && lower.graph().encoding(node.name()) != nullptr;
  Coding coding;
  if (codes && !lower.coding(node, 0, coding)) return lower.refuse(node, "its output's codes have more than 8 bits");
  return true;
}

bool lower_average(Lowering& lower, const Node& node, bool whole) {
  int x = pool_input(lower, node);
  Pooling p;
  bool codes = false;
  if (x < 0 || !pooling_of(lower, node, lower.value(x), whole, p) || !sums_codes(lower, node, lower.value(x), codes)) return false;
  if (codes && static_cast<int64_t>(p.kernel_y) * p.kernel_x > most_summed) return lower.refuse(node, "its windows are too large");
  if (!codes) x = lower.reals(x);
  const Shape shape = pooled_shape(lower.value(x), p);
  const Target to = codes ? Target{lower.output(node, 0, Type::f32, shape, true, true), true}
                          : target(lower, node, lower.value(x), shape, true);
  if (to.number < 0) return false;
  const Image from = image_of(lower.value(x)), into = image_of(lower.value(to.number));
  p.x_image = from.image;
  p.x_line = from.line;
  p.y_image = into.image;
  p.y_line = into.line;
  emit_means(lower, node, x, from.first, to.number, into.first, from.batch, p);
  land(lower, node, to);
  return true;
}

bool lower_avg_pool(Lowering& lower, const Node& node) { return lower_average(lower, node, false); }
bool lower_global_avg(Lowering& lower, const Node& node) { return lower_average(lower, node, true); }

// The axes of a reduction from slot 1, in order, each once; false where they are no constant, or no axes.
bool axes_of(const Lowering& lower, const Node& node, size_t rank, std::vector<int64_t>& out) {
  const bool given = node.inputs.size() > 1 && !node.inputs[1].empty();
  const Array* axes = lower.constant(node, 1);
  if (given && (axes == nullptr || axes->type != Type::i64)) return false;
  out.clear();
  for (int64_t i = 0; given && i < elements(axes->shape); ++i) {
    const int64_t a = axes->as<int64_t>()[i];
    if (a < -static_cast<int64_t>(rank) || a >= static_cast<int64_t>(rank)) return false;
    out.push_back(a < 0 ? a + static_cast<int64_t>(rank) : a);
  }
  if (out.empty() && attr(node, "noop_with_empty_axes", int64_t{0}) == 0)
    for (size_t a = 0; a < rank; ++a) out.push_back(static_cast<int64_t>(a));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return true;
}

// Over neighbouring axes: a pool over one axis of (outer, that, inner). Over the spatial axes of an image it stays one. Others
// go the general way.
bool lower_reduce_mean(Lowering& lower, const Node& node) {
  int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  const size_t rank = lower.value(x).shape.size();
  std::vector<int64_t> axes;
  if (!axes_of(lower, node, rank, axes) || axes.empty() || axes.back() - axes.front() + 1 != static_cast<int64_t>(axes.size()) ||
      (!lower.value(x).codes && lower.value(x).type != Type::f32) || lower.value(x).count() == 0)
    return lower_reduce(lower, node);
  bool codes = false;
  if (!sums_codes(lower, node, lower.value(x), codes)) return false;
  codes = codes && lower.value(x).coding.uniform();
  const size_t first = static_cast<size_t>(axes.front()), last = static_cast<size_t>(axes.back());
  const bool keep = attr(node, "keepdims", int64_t{1}) != 0;
  const bool image = lower.value(x).image && first == 2 && last + 1 == rank;
  if (!codes) x = lower.reals(x);
  if (!image) x = lower.rows(x);
  const Value v = lower.value(x);
  Shape shape;
  int64_t outer = 1, count = 1, inner = 1;
  for (size_t a = 0; a < rank; ++a) {
    (a < first ? outer : a > last ? inner : count) *= v.shape[a];
    if (a < first || a > last) shape.push_back(v.shape[a]);
    else if (keep) shape.push_back(1);
  }
  Coding coding;
  if (codes && (count > most_summed || (lower.coding(node, 0, coding) && !coding.uniform() && !image)))
    return lower.refuse(node, "its sums have no kernel");
  if (outer > INT32_MAX || count > INT32_MAX || inner > INT32_MAX) return lower.refuse(node, "its input is too large");
  const bool image_out = image && keep;
  const Target to = codes ? Target{lower.output(node, 0, Type::f32, shape, image_out, true), true}
                          : target(lower, node, v, shape, image_out);
  if (to.number < 0) return false;
  Pooling p{};
  int64_t x_first = 0, y_first = 0;
  if (image) {
    if (!pooling_of(lower, node, v, true, p)) return false;
    const Image from = image_of(v);
    x_first = from.first;
    outer = from.batch;
    p.y_image = p.y_line = from.channels;
    if (image_out) {
      const Image into = image_of(lower.value(to.number));
      p.y_image = into.image;
      p.y_line = into.line;
      y_first = into.first;
    }
  } else {
    p = {count * inner, count * inner, inner, inner, 1, static_cast<int>(count), static_cast<int>(inner), 1, 1, 1, static_cast<int>(count), 1, 1};
  }
  emit_means(lower, node, x, x_first, to.number, y_first, outer, p);
  land(lower, node, to);
  return true;
}

const Rule rules[] = {
    {"max_pool", lower_max_pool, nullptr},
    {"global_max_pool", lower_global_max, nullptr},
    {"avg_pool", lower_avg_pool, nullptr},
    {"global_avg_pool", lower_global_avg, nullptr},
    {"reduce_mean", lower_reduce_mean, nullptr},
    {"resize", lower_resize, nullptr},
    {"pad", lower_pad, nullptr},
    {"depth_to_space", lower_depth_to_space, nullptr},
    {"space_to_depth", lower_space_to_depth, nullptr},
};

}  // namespace

bool lower_depthwise(Lowering& lower, const Node& node, const Layer& layer, int number) {
  int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  if (lower.value(x).shape.size() != (layer.line ? 3u : 4u)) return lower.refuse(node, "its input has another number of axes than its kernel");
  if (lower.value(x).shape[1] != layer.columns) return lower.refuse(node, "its input does not have the channels of its weight");
  x = lower.image(lower.encoded(x, layer.x));
  const Image from = image_of(lower.value(x));
  const Window window = window_of(layer, from.height, from.width);
  if (window.height < 1 || window.width < 1) return lower.refuse(node, "its input is smaller than its kernel");
  Shape shape{from.batch, from.channels};
  if (!layer.line) shape.push_back(window.height);
  shape.push_back(window.width);

  auto plan = std::make_shared<DepthwisePlan>();
  const Node* after = layer.codes ? fused_table(lower, node, layer.y, plan->table) : nullptr;
  if (after != nullptr) lower.fuse(*after);
  plan->layer = &layer;
  plan->number = number;
  plan->x = x;
  plan->y = lower.output(after != nullptr ? *after : node, 0, Type::f32, shape, true, layer.codes);
  const int64_t packed = int64_t{1} * layer.kernel[0] * layer.kernel[1] * layer.tables;  // weights may come later
  plan->scratch = layer.scheme == Layer::table ? lower.scratch(packed + slack) : -1;
  const Image into = image_of(lower.value(plan->y));
  plan->x_first = from.first - window.top * from.line - window.left * from.channels;
  plan->y_first = into.first;
  plan->lines = from.batch * window.height;
  for (int y = 0; y < layer.kernel[0]; ++y)
    for (int k = 0; k < layer.kernel[1]; ++k)
      plan->taps.push_back(int64_t{1} * y * layer.dilations[0] * from.line + int64_t{1} * k * layer.dilations[1] * from.channels);
  Depthwise& d = plan->work;
  const int32_t lines = static_cast<int32_t>(window.height), columns = static_cast<int32_t>(window.width);
  d.from = {lines, columns, from.image, layer.strides[0] * from.line, layer.strides[1] * from.channels};
  d.to = {lines, columns, into.image, into.line, into.channels};
  d.n_taps = static_cast<int>(plan->taps.size());
  d.channels = layer.columns;
  d.across = layer.kernel[1] == 3 && layer.dilations[1] == 1 ? 3 : 0;
  d.zero = layer.x.zero;
  d.finish.codes = layer.codes;
  d.finish.zero = layer.codes ? layer.y.zero : 0;
  d.finish.table = plan->table.get();
  Step step{node.name(), "depthwise", {x}, {plan->y}, nullptr};
  if (plan->scratch >= 0) step.writes.push_back(plan->scratch);
  step.macs = elements(shape) * d.n_taps;
  step.bytes = packed;
  plan->chunk = chunk_of(lower, plan->lines, layer.strides[0] * from.line, step.macs);
  step.work = [plan](const Frame& f) { run_depthwise(*plan, f); };
  lower.emit(std::move(step));
  return true;
}

const Room window_room{rules, sizeof rules / sizeof *rules};

}  // namespace bl
