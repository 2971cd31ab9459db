// Operators that move pixels (resize to the nearest, pad, blocks of pixels and channels) or blend them (resize).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "fold.h"
#include "lower.h"
#include "run/pool.h"
#include "take.h"
#include "target.h"
#include "resize.h"

namespace bl {

namespace {

constexpr int64_t longest = 1 << 20;  // of an axis whose places are listed

// ------------------------------------------------------------------------------------------------------------- moves

// The bytes of an element that stands for the real `x`, which must be a code of the coding where there is one.
bool element_of(const Value& v, float x, std::vector<uint8_t>& out) {
  if (v.codes) {
    if (!v.coding.uniform()) return x == 0 ? (out = {static_cast<uint8_t>(v.coding.zero)}, true) : false;
    const float code = std::nearbyint(x / v.coding.step()) + static_cast<float>(v.coding.zero);
    if (!(code >= 0 && code <= static_cast<float>(v.coding.high))) return false;
    out = {static_cast<uint8_t>(code)};
    return static_cast<float>(static_cast<int>(code) - v.coding.zero) * v.coding.step() == x;
  }
  out.resize(4);
  std::memcpy(out.data(), &x, 4);
  return true;
}

}  // namespace

bool emit_axes(Lowering& lower, const Node& node, const char* kernel, int x, const std::vector<std::vector<int32_t>>& from, float fill) {
  Take what;
  const Value given = lower.value(x);
  const bool own_steps = given.codes && !given.coding.uniform() && from.size() > 1 && !from[1].empty();  // channels move
  if (own_steps || !element_of(given, fill, what.fill)) {
    x = lower.reals(x);
    element_of(lower.value(x), fill, what.fill);
  }
  const Value v = lower.value(x);
  Shape shape = v.shape;
  for (size_t a = 0; a < shape.size(); ++a)
    if (!from[a].empty()) shape[a] = static_cast<int64_t>(from[a].size());
  const Target to = target(lower, node, v, shape, v.image);
  if (to.number < 0) return false;
  const Axes in = axes_of(v), out = axes_of(lower.value(to.number));
  for (size_t i = 0; i < in.axes.size(); ++i)
    what.axes.push_back({shape[in.axes[i]], in.strides[i], out.strides[i], from[in.axes[i]]});
  what.run = v.element();
  emit_take(lower, node, kernel, x, to.number, std::move(what), in.first, out.first);
  land(lower, node, to);
  return true;
}

namespace {

// The input in slot 0 with elements of codes or float32, in the layout it has; -1 if it has no kernel.
int moved_input(Lowering& lower, const Node& node) {
  const int x = lower.input(node, 0);
  if (x < 0) return lower.refuse(node, "its input is made by nothing that has a kernel"), -1;
  const Value& v = lower.value(x);
  if ((!v.codes && v.type != Type::f32) || v.count() == 0 || v.shape.empty()) return lower.refuse(node, "its input is not float32"), -1;
  return x;
}

bool whole_numbers(const Array* a, std::vector<int64_t>& out) {
  if (a == nullptr || (a->type != Type::i64 && a->type != Type::i32)) return false;
  for (int64_t i = 0; i < elements(a->shape); ++i) out.push_back(a->type == Type::i64 ? a->as<int64_t>()[i] : a->as<int32_t>()[i]);
  return true;
}

// The input place that place i of a padded axis shows, or -1 for the constant.
int64_t padded_place(const std::string& mode, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (mode == "constant") return -1;
  if (mode == "edge") return std::clamp<int64_t>(i, 0, size - 1);
  const auto mod = [](int64_t a, int64_t n) { return ((a % n) + n) % n; };
  if (mode == "wrap") return mod(i, size);
  if (size == 1) return 0;
  const int64_t at = mod(i, 2 * (size - 1));
  return std::min(at, 2 * (size - 1) - at);  // reflect
}

// ------------------------------------------------------------------------------------------------------------ resize

// As ops_resize.py has it, for one axis.
struct Resize {
  std::string mode, coordinates, nearest;
  double cubic = -0.75;
  bool exclude_outside = false, antialias = false;
};

double source_place(const Resize& r, double i, int64_t size, double scale, int64_t count) {
  const double length = scale * static_cast<double>(size), half = (i + 0.5) / scale - 0.5;
  if (r.coordinates == "align_corners") return length == 1 ? 0 : i * static_cast<double>(size - 1) / (length - 1);
  if (r.coordinates == "asymmetric") return i / scale;
  if (r.coordinates == "pytorch_half_pixel") return length == 1 ? -0.5 : half;
  if (r.coordinates == "half_pixel_symmetric") return half + static_cast<double>(size) / 2 * (1 - static_cast<double>(count) / length);
  return half;
}

int64_t nearest_place(const Resize& r, double at, int64_t size) {
  const double place = r.nearest == "floor"               ? std::floor(at)
                       : r.nearest == "ceil"              ? std::ceil(at)
                       : r.nearest == "round_prefer_ceil" ? std::floor(at + 0.5)
                                                          : std::ceil(at - 0.5);
  return std::clamp<int64_t>(static_cast<int64_t>(place), 0, size - 1);
}

double weight_at(const Resize& r, double distance) {
  const double d = std::fabs(distance), a = r.cubic;
  if (r.mode == "linear") return std::clamp(1 - d, 0.0, 1.0);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// Pixels and their weights for each place of an axis, `taps` of each.
struct AxisTaps {
  int taps = 1;
  std::vector<int64_t> pixels;
  std::vector<float> weights;
};

AxisTaps taps_of(const Resize& r, int64_t size, double scale, int64_t count) {
  const double squeeze = r.antialias ? std::min(scale, 1.0) : 1.0;
  const int64_t reach = static_cast<int64_t>(std::ceil((r.mode == "cubic" ? 2 : 1) / squeeze));
  AxisTaps out;
  out.taps = static_cast<int>(2 * reach);
  for (int64_t i = 0; i < count; ++i) {
    const double at = source_place(r, static_cast<double>(i), size, scale, count);
    const int64_t left = static_cast<int64_t>(std::ceil(at)) - 1;
    std::vector<double> weights;
    double sum = 0;
    for (int64_t pixel = left + 1 - reach; pixel <= left + reach; ++pixel) {
      const bool outside = r.exclude_outside && (pixel < 0 || pixel >= size);
      weights.push_back(outside ? 0 : weight_at(r, (static_cast<double>(pixel) - at) * squeeze));
      sum += weights.back();
      out.pixels.push_back(std::clamp<int64_t>(pixel, 0, size - 1));
    }
    for (double w : weights) out.weights.push_back(static_cast<float>(r.antialias || r.exclude_outside ? w / sum : w));
  }
  return out;
}

// Sizes and scales of all axes of a value after resizing.
bool sizes_of(Lowering& lower, const Node& node, const Shape& shape, std::vector<double>& scales, Shape& out) {
  std::vector<int64_t> axes;
  for (int64_t a : attr(node, "axes", Shape{})) axes.push_back(a < 0 ? a + static_cast<int64_t>(shape.size()) : a);
  if (axes.empty())
    for (size_t a = 0; a < shape.size(); ++a) axes.push_back(static_cast<int64_t>(a));
  scales.assign(shape.size(), 1);
  out = shape;
  std::vector<int64_t> sizes;
  whole_numbers(lower.constant(node, 3), sizes);
  const Array* given = lower.constant(node, 2);
  const bool by_size = !sizes.empty();
  const bool by_scale = given != nullptr && given->type == Type::f32 && elements(given->shape) == static_cast<int64_t>(axes.size());
  if (by_size ? sizes.size() != axes.size() : !by_scale) return lower.refuse(node, "its sizes are not known beforehand");
  const std::string policy = attr(node, "keep_aspect_ratio_policy", "stretch");
  double one = policy == "not_larger" ? INFINITY : 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t a = static_cast<size_t>(axes[i]);
    if (a >= shape.size()) return lower.refuse(node, "it has no such axis");
    scales[a] = by_size ? static_cast<double>(sizes[i]) / static_cast<double>(shape[a]) : static_cast<double>(given->as<float>()[i]);
    one = policy == "not_larger" ? std::min(one, scales[a]) : std::max(one, scales[a]);
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t a = static_cast<size_t>(axes[i]);
    if (by_size && policy != "stretch") scales[a] = one;
    const double length = scales[a] * static_cast<double>(shape[a]);
    const double size = !by_size ? std::floor(length) : policy == "stretch" ? static_cast<double>(sizes[i]) : std::floor(length + 0.5);
    out[a] = whole(size);
    if (out[a] < 1 || out[a] > longest || !(scales[a] > 0)) return lower.refuse(node, "an axis of its output has an odd size");
  }
  return true;
}

// One axis of an image blended: lines (axis 2 of four) or pixels. `x` and the value returned are images of float32.
int blend_axis(Lowering& lower, const Node& node, int x, bool lines, const AxisTaps& taps, int64_t count, int to) {
  const Image from = image_of(lower.value(x));
  Shape shape = lower.value(x).shape;
  shape[lines ? 2 : shape.size() - 1] = count;
  const int y = to >= 0 ? to : lower.temporary(Type::f32, shape, true);
  const Image into = image_of(lower.value(y));
  const auto shared = std::make_shared<AxisTaps>(taps);
  const int64_t step = lines ? from.line : from.channels, all = into.batch * into.height;
  for (int64_t& pixel : shared->pixels) pixel *= step;
  const int tasks = tasks_for(lower, into.elements * taps.taps, all);
  lower.emit({node.name(), "blend", {x}, {y}, [=](const Frame& f) {
                f.pool->run(tasks, [&](int task) {
                  const int n = shared->taps;
                  for (int64_t l = share_of(all, tasks, task); l < share_of(all, tasks, task + 1); ++l) {
                    const int64_t image = l / into.height, line = l % into.height;
                    const float* in = f.at<float>(x) + from.first + image * from.image + (lines ? 0 : line * from.line);
                    float* out = f.at<float>(y) + into.first + image * into.image + line * into.line;
                    const int64_t places = lines ? 1 : into.width;
                    for (int64_t j = 0; j < places; ++j) {
                      const int64_t at = (lines ? line : j) * n;
                      f.kernels->window.blend({shared->pixels.data() + at, shared->weights.data() + at, n, lines ? into.width * into.channels : into.channels},
                                              in, out + j * into.channels);
                    }
                  }
                });
              }});
  return y;
}

bool resize_blended(Lowering& lower, const Node& node, const Resize& r, int x, const std::vector<double>& scales, const Shape& shape) {
  const Shape before = lower.value(x).shape;
  const size_t rank = before.size();
  if ((rank != 3 && rank != 4) || shape[0] != before[0] || shape[1] != before[1] || scales[0] != 1 || scales[1] != 1)
    return lower.refuse(node, "it blends other axes than those of an image");
  x = lower.image(lower.reals(x));
  std::vector<bool> axes;  // of those that are blended, whether each is that of lines
  for (size_t a = 2; a < rank; ++a)
    if (scales[a] != 1 || shape[a] != before[a]) axes.push_back(rank == 4 && a == 2);
  if (axes.empty()) return lower.settle(node, 0, x), true;
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t a = axes[i] ? 2 : rank - 1;
    Target to;
    if (i + 1 == axes.size()) {
      to = target(lower, node, lower.value(x), shape, true);
      if (to.number < 0) return false;
    }
    x = blend_axis(lower, node, x, axes[i], taps_of(r, before[a], scales[a], shape[a]), shape[a], to.number);
    if (to.number >= 0) land(lower, node, to);
  }
  return true;
}

// ------------------------------------------------------------------------------------------------- pixels and channels

bool move_blocks(Lowering& lower, const Node& node, bool to_space) {
  int x = moved_input(lower, node);
  if (x < 0) return false;
  const int64_t b = attr(node, "blocksize", int64_t{1});
  const bool outer = attr(node, "mode", "DCR") != "CRD";  // the block is the outer part of the channel number
  const Shape shape = lower.value(x).shape;
  if (shape.size() != 4 || b < 1 || b > 65536 || (to_space ? shape[1] % (b * b) != 0 : shape[2] % b != 0 || shape[3] % b != 0))
    return lower.refuse(node, "its input does not divide into blocks");
  if (lower.value(x).codes && !lower.value(x).coding.uniform()) x = lower.reals(x);
  x = lower.image(x);
  const Shape made = to_space ? Shape{shape[0], shape[1] / (b * b), shape[2] * b, shape[3] * b}
                              : Shape{shape[0], shape[1] * b * b, shape[2] / b, shape[3] / b};
  const Target to = target(lower, node, lower.value(x), made, true);
  if (to.number < 0) return false;
  // The side with large pixels, of h x w blocks, and the side with deep channels, of as many pixels.
  const Image in = image_of(lower.value(x)), out = image_of(lower.value(to.number));
  const Image &flat = to_space ? out : in, &deep = to_space ? in : out;
  const int64_t size = lower.value(x).element(), inner = flat.channels;
  const int64_t block_y = outer ? b * inner : b, block_x = outer ? inner : 1, channel = outer ? 1 : b * b;
  const int64_t counts[6] = {flat.batch, deep.height, b, deep.width, b, inner};
  const int64_t in_flat[6] = {flat.image, b * flat.line, flat.line, b * flat.channels, flat.channels, 1};
  const int64_t in_deep[6] = {deep.image, deep.line, block_y, deep.channels, block_x, channel};
  Take what;
  for (int i = 0; i < 6; ++i)
    what.axes.push_back({counts[i], size * (to_space ? in_deep : in_flat)[i], size * (to_space ? in_flat : in_deep)[i], {}});
  what.run = size;
  emit_take(lower, node, "blocks", x, to.number, std::move(what), in.first * size, out.first * size);
  land(lower, node, to);
  return true;
}

}  // namespace

bool lower_pad(Lowering& lower, const Node& node) {
  int x = moved_input(lower, node);
  if (x < 0) return false;
  const Shape shape = lower.value(x).shape;
  std::vector<int64_t> pads, axes;
  if (!whole_numbers(lower.constant(node, 1), pads)) return lower.refuse(node, "its pads are not known beforehand");
  const bool some = node.inputs.size() > 3 && !node.inputs[3].empty();
  if (some && !whole_numbers(lower.constant(node, 3), axes)) return lower.refuse(node, "its axes are not known beforehand");
  for (size_t a = 0; !some && a < shape.size(); ++a) axes.push_back(static_cast<int64_t>(a));
  if (pads.size() != 2 * axes.size()) return lower.refuse(node, "it needs two pads for each axis");
  float fill = 0;
  if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
    const Array* value = lower.constant(node, 2);
    if (value == nullptr || value->type != Type::f32 || elements(value->shape) != 1) return lower.refuse(node, "its value is not known beforehand");
    fill = value->as<float>()[0];
  }
  const std::string mode = attr(node, "mode", "constant");
  std::vector<std::vector<int32_t>> from(shape.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t a = axes[i] < 0 ? axes[i] + static_cast<int64_t>(shape.size()) : axes[i];
    const int64_t low = pads[i], high = pads[i + axes.size()];
    if (low < -longest || low > longest || high < -longest || high > longest) return lower.refuse(node, "its pads are too large");
    if (a < 0 || a >= static_cast<int64_t>(shape.size())) return lower.refuse(node, "it has no such axis");
    const int64_t cut = std::max<int64_t>(-low, 0), size = shape[static_cast<size_t>(a)] - cut + std::min<int64_t>(high, 0);
    const int64_t count = size + std::max<int64_t>(low, 0) + std::max<int64_t>(high, 0);
    if (size < 1 || count > longest) return lower.refuse(node, "an axis of its output has an odd size");
    if (low == 0 && high == 0) continue;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t place = padded_place(mode, j - std::max<int64_t>(low, 0), size);
      from[static_cast<size_t>(a)].push_back(static_cast<int32_t>(place < 0 ? -1 : place + cut));
    }
  }
  return emit_axes(lower, node, "pad", x, from, fill);
}

bool lower_resize(Lowering& lower, const Node& node) {
  const int x = moved_input(lower, node);
  if (x < 0) return false;
  const Resize r{attr(node, "mode", "nearest"), attr(node, "coordinate_transformation_mode", "half_pixel"),
                 attr(node, "nearest_mode", "round_prefer_floor"), attr(node, "cubic_coeff_a", -0.75),
                 attr(node, "exclude_outside", int64_t{0}) != 0, attr(node, "antialias", int64_t{0}) != 0};
  if (r.coordinates == "tf_crop_and_resize") return lower.refuse(node, "resizing a crop has no kernel");
  if (r.mode != "nearest" && r.mode != "linear" && r.mode != "cubic") return lower.refuse(node, "its mode has no kernel");
  std::vector<double> scales;
  Shape shape;
  const Shape before = lower.value(x).shape;
  if (!sizes_of(lower, node, before, scales, shape)) return false;
  if (r.mode != "nearest") return resize_blended(lower, node, r, x, scales, shape);
  std::vector<std::vector<int32_t>> from(shape.size());
  for (size_t a = 0; a < shape.size(); ++a)
    for (int64_t i = 0; (scales[a] != 1 || shape[a] != before[a]) && i < shape[a]; ++i)
      from[a].push_back(static_cast<int32_t>(nearest_place(r, source_place(r, static_cast<double>(i), before[a], scales[a], shape[a]), before[a])));
  return emit_axes(lower, node, "resize", x, from, 0);
}

bool lower_depth_to_space(Lowering& lower, const Node& node) { return move_blocks(lower, node, true); }
bool lower_space_to_depth(Lowering& lower, const Node& node) { return move_blocks(lower, node, false); }

}  // namespace bl
