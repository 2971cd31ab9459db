#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bl {

namespace {

constexpr int64_t int32_top = 2147483647;

// ------------------------------------------------------------------------------------------- integers and their unit

struct Integers {
  std::vector<int32_t> values;  // in the order of the codes
  std::vector<float> unit;      // one a column
};

bool power_of_two(float x) {
  int exponent;
  return std::frexp(x, &exponent) == 0.5f;
}

// What one integer of a weight is worth at position `at` of an axis-wise parameter, per element: a table over the axes.
struct Steps {
  std::vector<float> values;
  std::vector<int64_t> strides;  // of the parameter's index for each axis of the weight; 0 where it does not vary
  float at(const Shape& index) const {
    int64_t i = 0;
    for (size_t a = 0; a < index.size(); ++a) i += strides[a] * index[a];
    return values[static_cast<size_t>(i)];
  }
};

const Array* step_param(const Encoding& e) {
  switch (e.format.kind) {
    case Format::fixed: return e.param("fl");
    case Format::midrise: return e.param("range");
    default: return e.param("scale");
  }
}

Steps steps_of(const Encoding& e, const Shape& shape) {
  const Array& p = *step_param(e);
  Steps out;
  const int64_t n = elements(p.shape);
  for (int64_t i = 0; i < n; ++i) {
    const float v = p.as<float>()[i];
    out.values.push_back(e.format.kind == Format::fixed ? std::ldexp(1.0f, static_cast<int>(-v)) : v);
  }
  out.strides.assign(shape.size(), 0);
  int64_t stride = 1;
  for (size_t i = e.axes.size(); i-- > 0;) {
    out.strides[static_cast<size_t>(e.axes[i])] = stride;
    stride *= shape[static_cast<size_t>(e.axes[i])];
  }
  return out;
}

// The next index in C order.
void advance(Shape& index, const Shape& shape) {
  for (size_t a = shape.size(); a-- > 0;) {
    if (++index[a] < shape[a]) return;
    index[a] = 0;
  }
}

bool varies_beside(const Encoding& e, size_t axis, const Shape& shape) {
  for (int a : e.axes)
    if (static_cast<size_t>(a) != axis && shape[static_cast<size_t>(a)] > 1) return true;
  return false;
}

// Integers of a plain weight and the unit of its sums (docs/numerics.md, "Steps that differ along the inputs").
// Empty text, or why there are none.
std::string align(const Codes& w, const Coding& x, size_t out_axis, int groups, bool transposed, Integers& out) {
  const Shape& shape = w.shape;
  const size_t in_axis = 1 - out_axis;
  const Steps steps = steps_of(w.encoding, shape);
  const Array* zero = w.encoding.param("zero_point");
  const int64_t n = elements(shape), columns = shape[out_axis];
  out.values.resize(static_cast<size_t>(n));
  Shape index(shape.size(), 0);
  const bool zeros_vary = zero != nullptr && elements(zero->shape) > 1;
  for (int64_t i = 0; i < n; ++i, advance(index, shape)) {
    int64_t z = 0;
    if (zero != nullptr) {
      int64_t at = 0;
      if (zeros_vary)
        for (size_t a = 0; a < index.size(); ++a) at += steps.strides[a] * index[a];
      z = static_cast<int64_t>(zero->as<float>()[at]);
    }
    out.values[static_cast<size_t>(i)] = static_cast<int32_t>(w.code(i) - z);
  }
  const int64_t repeats = transposed ? groups : 1;
  out.unit.assign(static_cast<size_t>(columns * repeats), 0.0f);
  if (x.uniform() && !varies_beside(w.encoding, out_axis, shape)) {
    Shape at(shape.size(), 0);
    for (int64_t o = 0; o < columns * repeats; ++o) {
      at[out_axis] = o % columns;
      out.unit[static_cast<size_t>(o)] = x.step() * steps.at(at);
    }
    return "";
  }
  if (transposed && groups > 1) return "steps differ along the inputs of a grouped transposed convolution";
  for (float s : steps.values)
    if (!power_of_two(s)) return "steps differ along the inputs and are no powers of two";
  for (float s : x.steps)
    if (!power_of_two(s)) return "steps of the input differ and are no powers of two";
  const int64_t in_group = shape[in_axis], out_group = columns / groups;
  const auto product = [&](const Shape& at) {
    const int64_t channel = at[in_axis] + (transposed ? 0 : at[out_axis] / out_group * in_group);
    return static_cast<double>(x.steps[x.uniform() ? 0 : static_cast<size_t>(channel)]) * static_cast<double>(steps.at(at));
  };
  std::vector<double> unit(static_cast<size_t>(columns), INFINITY);
  std::fill(index.begin(), index.end(), 0);
  for (int64_t i = 0; i < n; ++i, advance(index, shape)) {
    double& u = unit[static_cast<size_t>(index[out_axis])];
    u = std::min(u, product(index));
  }
  std::fill(index.begin(), index.end(), 0);
  for (int64_t i = 0; i < n; ++i, advance(index, shape)) {
    const double e = out.values[static_cast<size_t>(i)] * (product(index) / unit[static_cast<size_t>(index[out_axis])]);
    if (std::fabs(e) > static_cast<double>(int32_top)) return "aligned weights do not fit in 32 bits";
    out.values[static_cast<size_t>(i)] = static_cast<int32_t>(e);
  }
  for (int64_t o = 0; o < columns; ++o) out.unit[static_cast<size_t>(o)] = static_cast<float>(unit[static_cast<size_t>(o)]);
  return "";
}

// ---------------------------------------------------------------------------------------------------------- geometry

int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

void convolution_parts(Layer& l, int out_channels, int in_group) {
  const int out_group = out_channels / l.groups;
  for (int g = 0; g < l.groups; ++g) {
    Part p;
    p.in_channel = g * in_group;
    p.in_channels = in_group;
    p.column = g * out_group;
    p.columns = out_group;
    p.stride_y = l.strides[0];
    p.stride_x = l.strides[1];
    for (int ky = 0; ky < l.kernel[0]; ++ky) {
      if (l.groups == 1 && l.dilations[1] == 1) {
        p.stretches.push_back({ky * l.dilations[0], 0, l.kernel[1], ky, 0, 1});
        continue;
      }
      for (int kx = 0; kx < l.kernel[1]; ++kx) p.stretches.push_back({ky * l.dilations[0], kx * l.dilations[1], 1, ky, kx, 1});
    }
    l.parts.push_back(std::move(p));
  }
}

struct Phase {
  int first;  // the first output of the phase
  int start;  // the input that its window starts from
  std::vector<std::pair<int, int>> taps;  // (input from there, kernel position), rising inputs
};

// Sub-filters along one axis (S10): output t takes w[r + s m] from x[q - m], with r = (t + p) mod s, q = (t + p - r) / s;
// a dilated kernel has weights only where r + s m is a multiple of the dilation.
std::vector<Phase> phases(int kernel, int stride, int dilation, int pad) {
  std::vector<Phase> out;
  const int reach = dilation * (kernel - 1) + 1;
  for (int t = 0; t < stride; ++t) {
    const int r = ((t + pad) % stride + stride) % stride;
    Phase phase{t, floor_div(t + pad - r, stride), {}};
    for (int m = (reach - 1 - r) / stride; m >= 0; --m) {
      const int at = r + stride * m;
      if (at < reach && at % dilation == 0) phase.taps.push_back({-m, at / dilation});
    }
    out.push_back(std::move(phase));
  }
  return out;
}

void transposed_parts(Layer& l, int in_channels, int out_group) {
  const int in_group = in_channels / l.groups;
  const auto rows = phases(l.kernel[0], l.strides[0], l.dilations[0], l.pads[0]);
  const auto columns = phases(l.kernel[1], l.strides[1], l.dilations[1], l.pads[2]);
  for (int g = 0; g < l.groups; ++g) {
    for (const Phase& y : rows) {
      for (const Phase& x : columns) {
        Part p;
        p.in_channel = g * in_group;
        p.in_channels = in_group;
        p.column = g * out_group;
        p.columns = out_group;
        p.base_y = y.start;
        p.base_x = x.start;
        p.out_y = y.first;
        p.out_x = x.first;
        p.step_y = l.strides[0];
        p.step_x = l.strides[1];
        for (auto [dy, ky] : y.taps) {
          for (size_t i = 0; i < x.taps.size(); ++i) {
            const auto [dx, kx] = x.taps[i];
            Stretch* last = p.stretches.empty() || i == 0 ? nullptr : &p.stretches.back();
            if (l.groups == 1 && last != nullptr && last->dx + last->pixels == dx &&
                (last->pixels == 1 || last->kx + last->pixels * last->kx_step == kx)) {
              last->kx_step = last->pixels == 1 ? kx - last->kx : last->kx_step;
              ++last->pixels;
            } else {
              p.stretches.push_back({dy, dx, 1, ky, kx, 1});
            }
          }
        }
        l.parts.push_back(std::move(p));
      }
    }
  }
}

// Where tables and panels of each part begin.
void place_parts(Layer& l) {
  const int unit = l.kind == Layer::real ? 1 : 4;
  int64_t data = 0;
  for (Part& p : l.parts) {
    for (const Stretch& s : p.stretches) p.quads += (s.pixels * p.in_channels + unit - 1) / unit;
    p.first = l.tables;
    p.data = data;
    const int padded = (p.columns + 15) / 16 * 16;
    l.tables += (p.columns + 63) / 64 * 64;
    data += static_cast<int64_t>(padded) * p.quads * 4;
  }
}

// ------------------------------------------------------------------------------------------------- finding the layers

bool read_geometry(const Node& node, const Shape& w, Layer& l, std::string& why) {
  const size_t space = w.size() - 2;
  if (space < 1 || space > 2) {
    why = "kernels of more than two axes have no kernel here";
    return false;
  }
  l.line = space == 1;
  const auto pair = [&](const char* key, int otherwise, int* out) {
    const Shape given = attr(node, key, Shape(space, otherwise));
    out[0] = space == 2 ? static_cast<int>(given[0]) : otherwise;
    out[1] = static_cast<int>(given[space - 1]);
  };
  pair("strides", 1, l.strides);
  pair("dilations", 1, l.dilations);
  pair("output_padding", 0, l.output_padding);
  l.groups = static_cast<int>(attr(node, "groups", int64_t{1}));
  l.kernel[0] = space == 2 ? static_cast<int>(w[2]) : 1;
  l.kernel[1] = static_cast<int>(w[space + 1]);
  const std::string same = attr(node, "auto_pad", "NOTSET");
  if (same == "SAME_UPPER") l.same = Layer::upper;
  if (same == "SAME_LOWER") l.same = Layer::lower;
  if (const Tree* pads = node.attrs.find("pads"); same == "NOTSET" && pads != nullptr && pads->list() != nullptr) {
    const Tree::List& axes = *pads->list();
    for (size_t a = 0; a < space; ++a)
      for (size_t end = 0; end < 2; ++end) {
        const int64_t* n = axes[a].list() != nullptr && axes[a].list()->size() == 2 ? (*axes[a].list())[end].whole() : nullptr;
        if (n == nullptr || *n < 0 || *n > 4096) {
          why = "pads must be (begin, end) pairs from 0 to 4096";
          return false;
        }
        l.pads[(a + 2 - space) * 2 + end] = static_cast<int>(*n);
      }
  }
  const auto sane = [](int n, int low) { return n >= low && n <= 4096; };
  for (int a = 0; a < 2; ++a)
    if (!sane(l.strides[a], 1) || !sane(l.dilations[a], 1) || !sane(l.kernel[a], 1) || !sane(l.output_padding[a], 0)) {
      why = "strides, dilations and kernels must be from 1 to 4096";
      return false;
    }
  return true;
}

void read_scheme(const Graph& graph, const Codes& w, Layer& l) {
  const Format& f = w.encoding.format;
  l.bits = f.bits;
  l.lowest = f.low();
  l.least = graph.least_bits(l.weight);
  if (f.kind == Format::midrise) l.scheme = Layer::midrise;
  if (f.kind == Format::tree || f.kind == Format::sign) l.scheme = Layer::table;
}

// Every prefix's entry of the table of a split-up tree, whatever the scheme, as int8 by code.
std::vector<int8_t> level_table(const Encoding& e, int bits) {
  std::vector<int8_t> out(size_t{1} << bits, 0);
  const Array* t = e.param("levels" + std::to_string(bits));
  if (t == nullptr) return out;
  if (e.format.kind == Format::tree) {
    std::memcpy(out.data(), t->bytes.data(), std::min(out.size(), t->bytes.size()));
    return out;
  }
  const size_t half = out.size() / 2;
  for (size_t i = 0; i < half && i < t->bytes.size(); ++i) {
    out[i] = static_cast<int8_t>(t->bytes[i]);
    out[half + i] = static_cast<int8_t>(-out[i]);
  }
  return out;
}

// The largest magnitude of x's integers.
int64_t largest(const Coding& x) { return std::max(x.zero, x.high - x.zero); }

double bias_code(double bias, float unit) {
  return std::clamp(std::nearbyint(bias / static_cast<double>(unit)), -2147483648.0, 2147483647.0);
}

// The version of a bias for a width, or null.
const float* bias_row(const Layer& l, int bits) {
  if (l.bias != nullptr) return l.bias->as<float>();
  if (l.biases == nullptr) return nullptr;
  return l.biases->versions.as<float>() + l.biases->row(bits) * (elements(l.biases->versions.shape) / static_cast<int64_t>(l.biases->bits.size()));
}

size_t out_axis_of(const std::string& op) { return op == "conv_transpose" ? 1 : 0; }

// Whether a weighted node sums integers in 32 bits; if not, why.
std::string integer_layer(const Graph& graph, const Node& node, const Codes& w, Layer& l) {
  const Encoding* x = graph.encoding(node.inputs[0]);
  if (x == nullptr) return "its input is no integer";
  if (!coding_of(*x, l.x)) return "its input's codes have more than 8 bits or steps along other axes than the channels";
  if (w.encoding.format.bits > 8) return "its weights have more than 8 bits";
  if (w.encoding.format.group > 0) return "its weights have scales in groups";
  const size_t out_axis = out_axis_of(node.op);
  const bool transposed = node.op == "conv_transpose";
  const int64_t columns = w.shape[out_axis], per_column = elements(w.shape) / columns;
  int64_t widest = 0, bound = 0;
  if (l.scheme == Layer::plain) {
    Integers integers;
    if (std::string why = align(w, l.x, out_axis, l.groups, transposed, integers); !why.empty()) return why;
    std::vector<int64_t> sums(static_cast<size_t>(columns), 0);
    Shape index(w.shape.size(), 0);
    for (size_t i = 0; i < integers.values.size(); ++i, advance(index, w.shape)) {
      if (integers.values[i] < -128 || integers.values[i] > 127) return "its aligned weights do not fit in 8 bits";
      sums[static_cast<size_t>(index[out_axis])] += std::abs(integers.values[i]);
    }
    widest = *std::max_element(sums.begin(), sums.end());
    l.unit = std::move(integers.unit);
  } else {
    if (!l.x.uniform()) return "its input has a step for each channel and its weights are nested";
    if (varies_beside(w.encoding, out_axis, w.shape)) return "its weights have steps along their inputs";
    widest = per_column * (l.scheme == Layer::midrise ? 255 : 127);
    if (per_column * 255 * 128 > int32_top) return "its sums may not fit in 32 bits";
    l.unit = {l.x.step()};
    const Steps steps = steps_of(w.encoding, w.shape);
    Shape at(w.shape.size(), 0);
    for (int64_t o = 0; o < columns * (transposed ? l.groups : 1); ++o) {
      at[out_axis] = o % columns;
      l.range.push_back(steps.at(at));
    }
  }
  bound = widest * largest(l.x);
  double bias = 0;
  if (const float* b = bias_row(l, l.bits)) {
    const int64_t count = l.columns * (l.biases != nullptr ? static_cast<int64_t>(l.biases->bits.size()) : 1);
    const float* all = l.bias != nullptr ? b : l.biases->versions.as<float>();
    for (int64_t i = 0; i < count; ++i) {
      const size_t o = static_cast<size_t>(i % l.columns);
      const float unit = l.scheme == Layer::plain ? l.unit[o] : l.unit[0] * (l.scheme == Layer::midrise ? l.range[o] * std::ldexp(1.0f, -l.bits) : l.range[o]);
      bias = std::max(bias, std::fabs(bias_code(all[i], unit)));
    }
  }
  if (static_cast<double>(bound) + bias > static_cast<double>(int32_top)) return "its sums may not fit in 32 bits";
  return "";
}

bool layer_of(const Graph& graph, const Node& node, Layer& l, std::string& why) {
  const Codes* codes = graph.constant<Codes>(node.inputs[1]);
  const Array* array = graph.constant<Array>(node.inputs[1]);
  if (codes == nullptr && array == nullptr) {
    why = "its weight is no constant";
    return false;
  }
  const Shape& w = codes != nullptr ? codes->shape : array->shape;
  l.node = node.name();
  l.op = node.op;
  l.weight = node.inputs[1];
  if (array != nullptr && array->type != Type::f32) {
    why = std::string("its weight is ") + name_of(array->type);
    return false;
  }
  if (elements(w) == 0 || w.size() < 2 || (node.op == "linear" && w.size() != 2)) {
    why = "its weight has a shape that has no kernel here";
    return false;
  }
  if (node.op == "linear") {
    l.flat = true;
  } else if (!read_geometry(node, w, l, why)) {
    return false;
  }
  const bool transposed = node.op == "conv_transpose";
  if (l.groups < 1 || (transposed ? w[0] : w[0]) % l.groups != 0) {
    why = "groups must divide its channels";
    return false;
  }
  const int64_t columns = transposed ? w[1] * l.groups : w[0];
  if (columns > (1 << 24) || elements(w) / w[0] > (1 << 26)) {
    why = "it is larger than kernels take";
    return false;
  }
  l.columns = static_cast<int>(columns);
  if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
    l.bias = graph.constant<Array>(node.inputs[2]);
    l.biases = graph.constant<PerWidth>(node.inputs[2]);
    const Array* values = l.bias != nullptr ? l.bias : (l.biases != nullptr ? &l.biases->versions : nullptr);
    const int64_t versions = l.biases != nullptr ? static_cast<int64_t>(l.biases->bits.size()) : 1;
    if (values == nullptr || values->type != Type::f32 || elements(values->shape) != columns * versions) {
      why = "its bias is no float32 constant of one entry for each output channel";
      return false;
    }
  }
  if (node.low) l.low = *node.low;
  if (node.high) l.high = *node.high;
  l.codes = false;
  if (const Encoding* y = graph.encoding(node.name())) {
    if (!coding_of(*y, l.y)) {
      why = "its output's codes have more than 8 bits or steps along other axes than the channels";
      return false;
    }
    l.codes = true;
  }
  l.kind = Layer::real;
  if (codes != nullptr) {
    read_scheme(graph, *codes, l);
    if (graph.encoding(node.inputs[0]) != nullptr) {
      why = integer_layer(graph, node, *codes, l);
      const bool floats = why == "its weights have scales in groups" || why.find("no powers of two") != std::string::npos ||
                          why.find("grouped transposed") != std::string::npos;  // docs/numerics.md: these nodes are float nodes
      if (!why.empty() && !floats) return false;
      if (why.empty()) l.kind = Layer::sums;
      why.clear();
    }
  }
  const int in_group = static_cast<int>(transposed ? w[0] / l.groups : w[1]);
  l.inputs = l.flat ? w[1] : static_cast<int64_t>(in_group) * l.kernel[0] * l.kernel[1];
  if (l.kind == Layer::sums && !transposed && l.groups > 1 && in_group == 1 && w[0] == l.groups &&
      l.kernel[0] * l.kernel[1] <= most_taps)
    l.kind = Layer::depthwise;
  if (l.flat) {
    Part p;
    p.in_channels = static_cast<int>(w[1]);
    p.columns = l.columns;
    p.stretches.push_back({0, 0, 1, 0, 0, 1});
    l.parts.push_back(std::move(p));
  } else if (transposed) {
    transposed_parts(l, static_cast<int>(w[0]), static_cast<int>(w[1]));
  } else if (l.kind == Layer::depthwise) {
    Part p;
    p.columns = l.columns;
    p.in_channels = l.columns;
    p.stride_y = l.strides[0];
    p.stride_x = l.strides[1];
    l.parts.push_back(std::move(p));
  } else {
    convolution_parts(l, static_cast<int>(w[0]), in_group);
  }
  place_parts(l);
  return true;
}

}  // namespace

bool is_weighted(const Node& node) {
  return (node.op == "conv" || node.op == "conv_transpose" || node.op == "linear") && node.inputs.size() >= 2;
}

std::vector<size_t> read_slots(const Node& node) {
  if (node.op == "embedding") return {0};
  return node.op == "lstm" || node.op == "gru" || node.op == "rnn" ? std::vector<size_t>{1, 2} : std::vector<size_t>{};
}

void find_layers(const Graph& graph, std::vector<Layer>& out, std::vector<std::pair<std::string, std::string>>& without) {
  for (const Node& node : graph.nodes) {
    for (size_t slot : read_slots(node)) {
      const Codes* codes = slot < node.inputs.size() ? graph.constant<Codes>(node.inputs[slot]) : nullptr;
      if (codes == nullptr) continue;
      Layer l;
      l.kind = Layer::read;
      l.node = node.name();
      l.op = node.op;
      l.weight = node.inputs[slot];
      l.bits = codes->encoding.format.bits;
      l.least = graph.least_bits(l.weight);
      l.scheme = codes->encoding.format.nested() ? Layer::midrise : Layer::plain;
      l.flat = true;
      l.columns = 1;
      out.push_back(std::move(l));
    }
    if (!is_weighted(node)) continue;
    Layer l;
    std::string why;
    if (layer_of(graph, node, l, why)) {
      out.push_back(std::move(l));
    } else {
      without.push_back({node.name(), why});
    }
  }
}

std::array<int, 4> ring_of(const Layer& l) {
  if (l.flat) return {0, 0, 0, 0};
  std::array<int, 4> out{};
  for (int a = 0; a < 2; ++a) {
    const int reach = l.dilations[a] * (l.kernel[a] - 1) + 1;
    if (l.op == "conv_transpose") {
      int before = 0;
      for (const Part& p : l.parts)
        for (const Stretch& s : p.stretches) before = std::max(before, -(a == 0 ? p.base_y + s.dy : p.base_x + s.dx));
      out[2 * a] = before;
      out[2 * a + 1] = std::max(0, floor_div(reach - 1 + l.output_padding[a] - l.pads[2 * a + 1], l.strides[a]));
    } else if (l.same != Layer::given) {
      out[2 * a] = out[2 * a + 1] = reach - 1;
    } else {
      out[2 * a] = l.pads[2 * a];
      out[2 * a + 1] = l.pads[2 * a + 1];
    }
  }
  return out;
}

Window window_of(const Layer& l, int64_t height, int64_t width) {
  const int64_t size[2] = {height, width};
  int64_t before[2], out[2];
  for (int a = 0; a < 2; ++a) {
    const int64_t reach = static_cast<int64_t>(l.dilations[a]) * (l.kernel[a] - 1) + 1, stride = l.strides[a];
    if (l.op == "conv_transpose") {
      before[a] = 0;  // taken off in the phases already
      out[a] = (size[a] - 1) * stride + reach + l.output_padding[a] - l.pads[2 * a] - l.pads[2 * a + 1];
    } else if (l.same != Layer::given) {
      const int64_t total = std::max<int64_t>(((size[a] + stride - 1) / stride - 1) * stride + reach - size[a], 0);
      before[a] = l.same == Layer::upper ? total / 2 : total - total / 2;
      out[a] = (size[a] + total - reach) / stride + 1;
    } else {
      before[a] = l.pads[2 * a];
      const int64_t room = size[a] + l.pads[2 * a] + l.pads[2 * a + 1] - reach;
      out[a] = room < 0 ? 0 : room / stride + 1;
    }
  }
  return {before[0], before[1], out[0], out[1]};
}

// ------------------------------------------------------------------------------------------------------------ packing

namespace {

// The position of a weight in its tensor for an output of a part, a kernel position and an input of the part.
int64_t weight_at(const Layer& l, const Part& p, const Shape& w, int column, int channel, int ky, int kx) {
  if (l.flat) return static_cast<int64_t>(column) * w[1] + channel;
  const int64_t plane = static_cast<int64_t>(l.kernel[0]) * l.kernel[1], place = static_cast<int64_t>(ky) * l.kernel[1] + kx;
  if (l.op == "conv_transpose") return ((p.in_channel + channel) * w[1] + column) * plane + place;
  return ((p.column + column) * w[1] + channel) * plane + place;
}

// Calls put(column, input in quads order, position in the tensor) for every weight of a part.
template <class Put>
void each_weight(const Layer& l, const Part& p, const Shape& w, int unit, Put put) {
  int64_t base = 0;
  for (const Stretch& s : p.stretches) {
    for (int pixel = 0; pixel < s.pixels; ++pixel)
      for (int c = 0; c < p.in_channels; ++c)
        for (int o = 0; o < p.columns; ++o)
          put(o, base + static_cast<int64_t>(pixel) * p.in_channels + c,
              weight_at(l, p, w, o, c, s.ky, s.kx + pixel * s.kx_step));
    const int64_t count = static_cast<int64_t>(s.pixels) * p.in_channels;
    base += (count + unit - 1) / unit * unit;
  }
}

// Where the weight of a column and an input lies in the panels of a part, in elements.
int64_t panel_at(const Part& p, int column, int64_t input, int unit) {
  const int panel = column / 64, last = p.columns - panel * 64;
  const int width = last >= 64 ? 64 : (last + 15) / 16 * 16;
  return static_cast<int64_t>(panel) * 64 * unit * p.quads + ((input / unit) * width + column % 64) * unit + input % unit;
}

// The byte of a code in the panels, as weights.h says.
uint8_t stored(const Layer& l, const Format& f, int64_t code, int32_t integer) {
  if (l.scheme == Layer::plain) return static_cast<uint8_t>(static_cast<int8_t>(integer));
  if (l.scheme == Layer::midrise) return static_cast<uint8_t>((static_cast<uint32_t>(code) << (8 - f.bits)) ^ 0x80u);
  return static_cast<uint8_t>(code);
}

// What multiplies x at a width for a stored byte.
int32_t multiplies(const Layer& l, uint8_t byte, int bits) {
  if (l.scheme == Layer::plain) return static_cast<int8_t>(byte) * (1 << -l.shift);
  if (l.scheme == Layer::midrise) return static_cast<int8_t>(byte & static_cast<uint8_t>(0xff00u >> bits));
  return l.levels[static_cast<size_t>(bits - 1)][byte >> (l.bits - bits)];
}

// The real of element i of a coded weight.
struct Decoder {
  const Codes& w;
  Steps steps;
  std::vector<int8_t> table;
  explicit Decoder(const Codes& w) : w(w) {
    const Format& f = w.encoding.format;
    if (f.group == 0) steps = steps_of(w.encoding, w.shape);
    if (f.kind == Format::tree || f.kind == Format::sign) table = level_table(w.encoding, f.bits);
  }
  float real(int64_t i, const Shape& index) const {
    const Format& f = w.encoding.format;
    const int64_t code = w.code(i);
    if (f.group > 0) {
      const Array& scale = *w.encoding.param("scale");
      const int64_t row = elements(w.shape) / w.shape[0], at = i / row * scale.shape[1] + i % row / f.group;
      const Array* zero = w.encoding.param("zero_point");
      return (static_cast<float>(code) - (zero != nullptr ? zero->as<float>()[at] : 0.0f)) * scale.as<float>()[at];
    }
    if (f.kind == Format::midrise) return static_cast<float>(2 * code + 1 - (1 << f.bits)) * (steps.at(index) * std::ldexp(1.0f, -f.bits));
    if (!table.empty()) return static_cast<float>(table[static_cast<size_t>(code)]) * steps.at(index);
    float zero = 0;
    if (const Array* z = w.encoding.param("zero_point")) {
      int64_t at = 0;
      if (elements(z->shape) > 1)
        for (size_t a = 0; a < index.size(); ++a) at += steps.strides[a] * index[a];
      zero = z->as<float>()[at];
    }
    return (static_cast<float>(code) - zero) * steps.at(index);
  }
};

Problem no_memory(const Layer& l) {
  return {Status::no_memory, "load: no memory for the weights of " + l.node, 0};
}

int64_t all_panels(const Layer& l) {
  const Part& last = l.parts.back();
  return last.data + static_cast<int64_t>((last.columns + 15) / 16 * 16) * last.quads * 4;
}

// Planes of unsigned codes `code(column, input)`.
template <class Code>
std::shared_ptr<PlaneStore> store_planes(const Layer& l, int bits, Code code) {
  auto out = std::make_shared<PlaneStore>();
  const int64_t stride = plane_stride(l.columns, l.inputs);
  out->data = Block(stride * bits);
  if (!out->data.there()) return nullptr;
  std::vector<uint8_t> codes(static_cast<size_t>(l.columns * l.inputs));
  for (int64_t o = 0; o < l.columns; ++o)
    for (int64_t i = 0; i < l.inputs; ++i) codes[static_cast<size_t>(o * l.inputs + i)] = static_cast<uint8_t>(code(o * l.inputs + i));
  pack_planes(codes.data(), l.inputs, l.columns, l.inputs, bits, 0, out->data.data(), stride);
  out->view = {out->data.data(), stride, l.columns, static_cast<int32_t>(l.inputs)};
  return out;
}

// A linear layer whose weights have scales in groups.
Problem pack_groups(const Codes& w, Layer& l) {
  const Format& f = w.encoding.format;
  auto store = store_planes(l, f.bits, [&](int64_t i) { return w.code(i) - f.low(); });
  if (store == nullptr) return no_memory(l);
  const Array& scale = *w.encoding.param("scale");
  store->group = f.group;
  store->scale_row = (l.columns + 15) / 16 * 16;
  const int64_t groups = scale.shape[1];
  store->scale.assign(static_cast<size_t>(groups * store->scale_row), 0.0f);
  for (int64_t o = 0; o < l.columns; ++o)
    for (int64_t g = 0; g < groups; ++g) store->scale[static_cast<size_t>(g * store->scale_row + o)] = scale.as<float>()[o * groups + g];
  l.planes = std::move(store);
  return {};
}

bool has_zero_points(const Codes& w) {
  const Array* zero = w.encoding.param("zero_point");
  for (int64_t i = 0; zero != nullptr && i < elements(zero->shape); ++i)
    if (zero->as<float>()[i] != 0.0f) return true;
  return false;
}

// A real layer whose codes stay codes: one step a column.
Problem pack_decoded(const Codes& w, Layer& l) {
  const size_t axis = out_axis_of(l.op);
  const Steps steps = steps_of(w.encoding, w.shape);
  Shape at(w.shape.size(), 0);
  for (int64_t o = 0; o < l.columns; ++o) {
    at[axis] = o % w.shape[axis];
    l.range.push_back(steps.at(at));
  }
  if (l.scheme == Layer::table)
    for (int b = 1; b <= l.bits; ++b) l.levels.push_back(level_table(w.encoding, b));
  auto block = std::make_shared<Block>((all_panels(l) + 3) / 4);
  if (!block->there()) return no_memory(l);
  const int low = w.encoding.format.low();
  for (const Part& p : l.parts) {
    uint8_t* out = block->data() + p.data / 4;
    each_weight(l, p, w.shape, 1, [&](int o, int64_t input, int64_t i) { out[panel_at(p, o, input, 1)] = static_cast<uint8_t>(w.code(i) - low); });
  }
  l.bytes = std::move(block);
  l.decoded = true;
  return {};
}

Problem pack_real(const Graph& graph, Layer& l) {
  if (const Codes* codes = graph.constant<Codes>(l.weight); codes != nullptr && codes->encoding.format.bits <= 8 && !has_zero_points(*codes)) {
    const Format& f = codes->encoding.format;
    if (f.group > 0 && l.flat && l.inputs <= 65536) return pack_groups(*codes, l);
    if (f.group == 0 && !varies_beside(codes->encoding, out_axis_of(l.op), codes->shape)) return pack_decoded(*codes, l);
  }
  std::vector<float> decoded;
  const float* values = nullptr;
  Shape shape;
  if (const Codes* codes = graph.constant<Codes>(l.weight)) {
    const Decoder decoder(*codes);
    shape = codes->shape;
    decoded.resize(static_cast<size_t>(elements(shape)));
    Shape index(shape.size(), 0);
    for (size_t i = 0; i < decoded.size(); ++i, advance(index, shape)) decoded[i] = decoder.real(static_cast<int64_t>(i), index);
    values = decoded.data();
  } else {
    const Array& array = *graph.constant<Array>(l.weight);
    shape = array.shape;
    values = array.as<float>();
  }
  auto block = std::make_shared<Block>(all_panels(l));
  if (!block->there()) return no_memory(l);
  for (const Part& p : l.parts) {
    float* out = reinterpret_cast<float*>(block->data() + p.data);
    each_weight(l, p, shape, 1, [&](int o, int64_t input, int64_t at) { out[panel_at(p, o, input, 1)] = values[at]; });
  }
  l.bytes = block;
  return {};
}

}  // namespace

Problem pack_layer(const Graph& graph, Layer& l, bool as_planes) {
  if (l.kind == Layer::read) return {};
  if (l.kind == Layer::real) return pack_real(graph, l);
  const Codes& w = *graph.constant<Codes>(l.weight);
  const Format& f = w.encoding.format;
  Integers integers;
  if (l.scheme == Layer::plain) align(w, l.x, out_axis_of(l.op), l.groups, l.op == "conv_transpose", integers);
  if (l.scheme == Layer::table)
    for (int b = 1; b <= l.bits; ++b) l.levels.push_back(level_table(w.encoding, b));
  const int widths = l.scheme == Layer::plain ? 1 : l.bits;
  l.weight_sums.assign(static_cast<size_t>(widths), std::vector<int32_t>(static_cast<size_t>(l.tables), 0));
  const auto byte_of = [&](int64_t at) {
    return stored(l, f, w.code(at), l.scheme == Layer::plain ? integers.values[static_cast<size_t>(at)] : 0);
  };
  if (l.kind == Layer::depthwise) {  // as window.h says: [kernel position][output]
    const int64_t places = static_cast<int64_t>(l.kernel[0]) * l.kernel[1];
    auto block = std::make_shared<Block>(places * l.tables);
    if (!block->there()) return no_memory(l);
    for (int64_t at = 0; at < l.columns * places; ++at) {
      const int64_t o = at / places;
      block->data()[at % places * l.tables + o] = byte_of(at);
      for (int b = l.scheme == Layer::plain ? 1 : l.least; b <= widths; ++b)
        l.weight_sums[static_cast<size_t>(b - 1)][static_cast<size_t>(o)] += multiplies(l, byte_of(at), b);
    }
    l.bytes = std::move(block);
  } else if (as_planes && l.inputs <= 65536) {
    int bits = l.bits;
    if (l.scheme == Layer::plain) {
      const int32_t half = 1 << (bits - 1);
      for (const int32_t v : integers.values)
        if (v < -half || v >= half) bits = 8;
      l.shift = bits - 8;
    }
    auto store = store_planes(l, bits, [&](int64_t at) {
      return l.scheme == Layer::plain ? integers.values[static_cast<size_t>(at)] + (1 << (bits - 1)) : w.code(at);
    });
    if (store == nullptr) return no_memory(l);
    l.planes = std::move(store);
  } else {
    auto block = std::make_shared<Block>(all_panels(l));
    if (!block->there()) return no_memory(l);
    for (const Part& p : l.parts) {
      uint8_t* out = block->data() + p.data;
      each_weight(l, p, w.shape, 4, [&](int o, int64_t input, int64_t at) { out[panel_at(p, o, input, 4)] = byte_of(at); });
    }
    l.bytes = std::move(block);
  }
  for (const Part& p : l.parts)
    each_weight(l, p, w.shape, 4, [&](int o, int64_t, int64_t at) {
      for (int b = l.scheme == Layer::plain ? 1 : l.least; b <= widths; ++b)
        l.weight_sums[static_cast<size_t>(b - 1)][static_cast<size_t>(p.first + o)] += multiplies(l, byte_of(at), b);
    });
  return {};
}

int64_t panel_start(const Part& p, int panel) { return p.data + int64_t{panel_columns} * 4 * p.quads * panel; }

int64_t panel_bytes(const Part& p, int panel) {
  const int width = std::min(panel_columns, p.columns - panel * panel_columns);
  return int64_t{4} * p.quads * ((width + 15) / 16 * 16);
}

Prefix prefix_of(const Layer& l, const Level& level) {
  if (l.scheme == Layer::table) return {level.bits, l.levels[static_cast<size_t>(level.bits - 1)].data()};
  return {l.scheme == Layer::plain ? 8 + l.shift : level.bits, nullptr};
}

void decode_panel(const Layer& l, const Part& p, int panel, const Level& level, const Kernels& kernels, int8_t* out) {
  if (p.quads == 0) return;
  if (l.planes) return kernels.planes.decode(l.planes->view, prefix_of(l, level), panel, p.quads, nullptr, out);
  const int64_t bytes = panel_bytes(p, panel);
  kernels.planes.decode_bytes(l.bytes->data() + panel_start(p, panel), level.table, bytes, out);
  const int64_t line = bytes / p.quads;  // code 0 stands for a level too, so what fills up quads is cleared
  int64_t quad = 0;
  for (const Stretch& s : p.stretches) {
    const int64_t count = static_cast<int64_t>(s.pixels) * p.in_channels;
    quad += (count + 3) / 4;
    for (int64_t at = 0; count % 4 != 0 && at < line; at += 4)
      for (int64_t j = count % 4; j < 4; ++j) out[(quad - 1) * line + at + j] = 0;
  }
}

void decode_reals(const Layer& l, const Part& p, int panel, const Level& level, const Kernels& kernels, float* out) {
  if (l.planes) {
    const PlaneStore& s = *l.planes;
    return kernels.planes.decode_groups(s.view, {l.bits, nullptr}, panel, s.scale.data(), s.scale_row, s.group, out);
  }
  const int width = static_cast<int>(panel_bytes(p, panel) / 4 / std::max(p.quads, 1));
  const uint8_t* codes = l.bytes->data() + panel_start(p, panel) / 4;
  const float* steps = level.scale.data() + p.first + panel * panel_columns;
  for (int64_t i = 0; i < p.quads; ++i)
    for (int o = 0; o < width; ++o) out[i * width + o] = level.integers[codes[i * width + o]] * steps[o];
}

int64_t packed_bytes(const Layer& l) {
  int64_t out = l.bytes ? l.bytes->size() : 0;
  if (l.planes) out += l.planes->data.size() + static_cast<int64_t>(l.planes->scale.size()) * 4;
  for (const auto& sums : l.weight_sums) out += static_cast<int64_t>(sums.size()) * 4;
  for (const auto& levels : l.levels) out += static_cast<int64_t>(levels.size());
  return out + static_cast<int64_t>(l.unit.size() + l.range.size()) * 4;
}

namespace {

// What a real layer's codes stand for at a width, and its bias.
Level real_level(const Layer& l, Level out, const float* bias) {
  out.real_bias.assign(static_cast<size_t>(l.tables), 0.0f);
  for (const Part& p : l.parts)
    for (int o = 0; o < p.columns; ++o) {
      const size_t at = static_cast<size_t>(p.first + o), channel = static_cast<size_t>(p.column + o);
      if (bias != nullptr) out.real_bias[at] = bias[channel];
      if (l.decoded) out.scale[at] = l.scheme == Layer::midrise ? l.range[channel] * std::ldexp(1.0f, -out.bits) : l.range[channel];
    }
  if (!l.decoded) return out;
  out.integers.assign(256, 0.0f);
  for (int code = 0; code < 1 << l.bits; ++code) {
    const int prefix = code >> (l.bits - out.bits);
    float& integer = out.integers[static_cast<size_t>(code)];
    if (l.scheme == Layer::midrise) integer = static_cast<float>(2 * prefix + 1 - (1 << out.bits));
    else if (l.scheme == Layer::table) integer = l.levels[static_cast<size_t>(out.bits - 1)][static_cast<size_t>(prefix)];
    else integer = static_cast<float>(code + l.lowest);
  }
  return out;
}

}  // namespace

Level level_of(const Layer& l, int bits) {
  Level out;
  out.bits = std::clamp(bits == 0 ? l.bits : bits, std::min(l.least, l.bits), l.bits);
  if (l.scheme == Layer::plain) out.bits = l.bits;
  if (l.kind == Layer::read) return out;
  const size_t tables = static_cast<size_t>(l.tables);
  out.bias.assign(tables, 0);
  out.scale.assign(tables, 0.0f);
  out.low.assign(tables, static_cast<float>(l.low));
  out.high.assign(tables, static_cast<float>(l.high));
  const float* bias = bias_row(l, out.bits);
  if (l.kind == Layer::real) return real_level(l, std::move(out), bias);
  out.half = l.scheme == Layer::midrise;
  out.shift = out.half ? out.bits - 7 : l.shift;
  out.mask = out.half ? static_cast<uint8_t>(0xff00u >> out.bits) : 0xff;
  const auto& sums = l.weight_sums[l.scheme == Layer::plain ? 0 : static_cast<size_t>(out.bits - 1)];
  out.weight_sums = sums.data();
  if (l.scheme == Layer::table)
    for (int code = 0; code < 1 << l.bits; ++code)
      out.table[code] = l.levels[static_cast<size_t>(out.bits - 1)][static_cast<size_t>(code >> (l.bits - out.bits))];
  for (const Part& p : l.parts) {
    for (int o = 0; o < p.columns; ++o) {
      const size_t at = static_cast<size_t>(p.first + o), channel = static_cast<size_t>(p.column + o);
      float unit = 0;
      switch (l.scheme) {
        case Layer::plain: unit = l.unit[channel]; break;
        case Layer::midrise: unit = l.unit[0] * (l.range[channel] * std::ldexp(1.0f, -out.bits)); break;
        case Layer::table: unit = l.unit[0] * l.range[channel]; break;
      }
      const int64_t own = bias != nullptr ? static_cast<int64_t>(bias_code(bias[channel], unit)) : 0;
      int64_t taken = static_cast<int64_t>(l.x.zero) * sums[at];
      taken = out.shift >= 0 ? taken << out.shift : taken >> -out.shift;
      out.bias[at] = static_cast<int32_t>(static_cast<uint32_t>(own - taken));
      if (!l.codes) {
        out.scale[at] = unit;
        continue;
      }
      const float step = l.y.steps[l.y.uniform() ? 0 : channel];
      out.scale[at] = unit / step;
      const auto code = [&](double limit) {
        return std::clamp(std::nearbyint(static_cast<float>(limit) / step) + static_cast<float>(l.y.zero), 0.0f, static_cast<float>(l.y.high));
      };
      const float zero = static_cast<float>(l.y.zero);
      out.low[at] = (std::isfinite(l.low) ? code(l.low) : 0.0f) - zero;
      out.high[at] = (std::isfinite(l.high) ? code(l.high) : static_cast<float>(l.y.high)) - zero;
    }
  }
  return out;
}

}  // namespace bl
