// Weights packed for the kernels, and decoded panel by panel where they cannot read them as they are.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "integers.h"
#include "layer.h"

namespace bl {

namespace {

// The position of a weight in its tensor for an output of a part, a kernel position and an input of the part.
int64_t weight_at(const Layer& l, const Part& p, const Shape& w, int column, int channel, int ky, int kx) {
  if (l.flat) return static_cast<int64_t>(column) * w[1] + channel;
  const int64_t plane = static_cast<int64_t>(l.kernel[0]) * l.kernel[1], place = static_cast<int64_t>(ky) * l.kernel[1] + kx;
  if (l.op == "conv_transpose") return ((p.in_channel + channel) * w[1] + column) * plane + place;
  return ((p.column + column) * w[1] + channel) * plane + place;
}

// Calls put(column, input in quads order, position in the tensor) for every weight of a part, a panel at a time so that what
// is read next is in the cache.
template <class Put>
void each_weight(const Layer& l, const Part& p, const Shape& w, int unit, Put put) {
  for (int first = 0; first < p.columns; first += panel_columns) {
    const int end = std::min(first + panel_columns, p.columns);
    int64_t base = 0;
    for (const Stretch& s : p.stretches) {
      for (int pixel = 0; pixel < s.pixels; ++pixel)
        for (int c = 0; c < p.in_channels; ++c)
          for (int o = first; o < end; ++o)
            put(o, base + static_cast<int64_t>(pixel) * p.in_channels + c, weight_at(l, p, w, o, c, s.ky, s.kx + pixel * s.kx_step));
      const int64_t count = static_cast<int64_t>(s.pixels) * p.in_channels;
      base += (count + unit - 1) / unit * unit;
    }
  }
}

// Where the weight of a column and an input lies in the panels of a part, in elements.
int64_t panel_at(const Part& p, int column, int64_t input, int unit) {
  const int panel = column / 64, last = p.columns - panel * 64;
  const int width = last >= 64 ? 64 : (last + 15) / 16 * 16;
  return static_cast<int64_t>(panel) * 64 * unit * p.quads + ((input / unit) * width + column % 64) * unit + input % unit;
}

// The byte of a code in the panels, as layer.h says.
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
  WeightSteps steps;
  std::vector<int8_t> table;
  explicit Decoder(const Codes& w) : w(w) {
    const Format& f = w.encoding.format;
    if (f.group == 0) steps = steps_of(w.encoding, w.shape);
    if (f.by_table()) table = level_table(w.encoding, f.bits);
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
  const WeightSteps steps = steps_of(w.encoding, w.shape);
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
    l.bytes = block;
  }
  const int narrowest = l.scheme == Layer::plain ? 1 : l.least;
  for (const Part& p : l.parts) {
    uint8_t* out = l.planes || l.kind == Layer::depthwise ? nullptr : l.bytes->data() + p.data;
    each_weight(l, p, w.shape, 4, [&](int o, int64_t input, int64_t at) {
      const uint8_t byte = byte_of(at);
      if (out != nullptr) out[panel_at(p, o, input, 4)] = byte;
      for (int b = narrowest; b <= widths; ++b)
        l.weight_sums[static_cast<size_t>(b - 1)][static_cast<size_t>(p.first + o)] += multiplies(l, byte, b);
    });
  }
  return {};
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

}  // namespace bl
