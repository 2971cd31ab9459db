// Which weighted nodes have kernels, and what is to be known of them.

#include <algorithm>
#include <cmath>

#include "geometry.h"
#include "integers.h"
#include "layer.h"
#include "level.h"

namespace bl {

namespace {

constexpr int64_t int32_top = 2147483647;

void read_scheme(const Graph& graph, const Codes& w, Layer& l) {
  const Format& f = w.encoding.format;
  l.bits = f.bits;
  l.lowest = f.low();
  l.least = graph.least_bits(l.weight);
  if (f.kind == Format::midrise) l.scheme = Layer::midrise;
  if (f.by_table()) l.scheme = Layer::table;
}

// The largest magnitude of x's integers.
int64_t largest(const Coding& x) { return std::max(x.zero, x.high - x.zero); }

// Whether a weighted node sums integers in 32 bits; if not, why.
std::string integer_layer(const Graph& graph, const Node& node, const Codes& w, Layer& l) {
  const Encoding* x = graph.encoding(node.inputs[0]);
  if (x == nullptr) return "its input is no integer";
  if (!coding_of(*x, l.x)) return not_taken(*x, "input");
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
    const WeightSteps steps = steps_of(w.encoding, w.shape);
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
  if (codes != nullptr && codes->encoding.format.kind == Format::log) {
    why = "its weights count in octaves, whose integers 8 bits do not hold";
    return false;
  }
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
      why = not_taken(*y, "output");
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

}  // namespace bl
