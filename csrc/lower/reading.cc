#include "reading.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "layers/integers.h"
#include "layers/layer.h"

namespace bl {

namespace {

const Array* steps_param(const Encoding& e) {
  return e.param(e.format.kind == Format::fixed ? "fl" : e.format.kind == Format::midrise ? "range" : "scale");
}

float step_at(const Encoding& e, int64_t i, int bits) {
  const float p = steps_param(e)->as<float>()[i];
  if (e.format.kind == Format::fixed) return std::ldexp(1.0f, -static_cast<int>(p));
  return e.format.kind == Format::midrise ? p * std::ldexp(1.0f, -bits) : p;
}

// Which parameter belongs to a row, where all of the row share one.
int64_t param_of_row(const Reading& r, int64_t row) {
  const Encoding& e = r.codes->encoding;
  const int64_t n = elements(steps_param(e)->shape);
  if (n == 1) return 0;
  return e.axes.size() == 1 && e.axes[0] == 1 ? row % n : row / (r.rows / n);
}

void decode_some(const Reading& r, const Frame& f, int bits, int64_t first, int64_t n, float step, float* out) {
  const Codes& c = *r.codes;
  const Format& format = c.encoding.format;
  const uint8_t* codes = c.bytes.data() + first * c.width;
  const Array* zero = c.encoding.param("zero_point");
  const int z = zero == nullptr ? 0 : static_cast<int>(zero->as<float>()[0]), down = format.bits - bits;
  if (c.width > 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(c.code(first + i) - z) * step;
  } else if (format.kind == Format::midrise) {
    f.kernels->sequence.decode(codes, n, 0, down, 2, 1 - (1 << bits), step, out);
  } else if (format.by_table()) {
    const std::vector<int8_t> table = level_table(c.encoding, bits);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(table[codes[i] >> down]) * step;
  } else {
    const bool is_signed = format.low() < 0;
    f.kernels->sequence.decode(codes, n, is_signed ? 0x80 : 0, 0, 1, (is_signed ? -128 : 0) - z, step, out);
  }
}

std::string check_codes(const Codes& c) {
  const Encoding& e = c.encoding;
  const Array* steps = steps_param(e);
  if (e.format.kind == Format::log) return "its weight counts in octaves, whose integers 8 bits do not hold";
  if (steps == nullptr || c.shape.size() < 2) return "its weight has no kernel";
  const int64_t n = elements(steps->shape), rows = elements(c.shape) / std::max<int64_t>(c.shape.back(), 1);
  const Array* zero = e.param("zero_point");
  for (int64_t i = 0; zero != nullptr && i < elements(zero->shape); ++i)
    if (zero->as<float>()[i] != zero->as<float>()[0]) return "its weight has more than one zero point";
  if (e.format.group > 0 && c.shape.size() != 2) return "its weight has groups and more than two axes";
  if (e.format.group == 0 && n != 1 && (rows == 0 || rows % n != 0)) return "its weight has parameters along its inputs";
  if (e.format.group == 0 && e.axes.size() > 1 && n != rows) return "its weight has parameters along its inputs";
  return "";
}

}  // namespace

void Reading::row(const Frame& f, int64_t row, float* out) const {
  if (array != nullptr) {
    std::memcpy(out, array->as<float>() + row * width, static_cast<size_t>(width) * 4);
    return;
  }
  const Encoding& e = codes->encoding;
  const int bits = layer >= 0 ? f.levels[layer].bits : e.format.bits;
  if (e.format.group == 0) return decode_some(*this, f, bits, row * width, width, step_at(e, param_of_row(*this, row), bits), out);
  const int64_t group = e.format.group, groups = (width + group - 1) / group;
  for (int64_t g = 0; g < groups; ++g)
    decode_some(*this, f, bits, row * width + g * group, std::min(group, width - g * group), step_at(e, row * groups + g, bits), out + g * group);
}

std::string check_weight(const Graph& graph, const Node& node, size_t slot) {
  const std::string& name = node.inputs[slot];
  if (const Codes* codes = graph.constant<Codes>(name)) return check_codes(*codes);
  const Array* array = graph.constant<Array>(name);
  return array != nullptr && array->type == Type::f32 && array->shape.size() >= 2 ? "" : "its weight must be a float32 constant or codes";
}

std::string read_weight(const Lowering& lower, const Node& node, size_t slot, Reading& out) {
  if (const std::string why = check_weight(lower.graph(), node, slot); !why.empty()) return why;
  out.array = lower.graph().constant<Array>(node.inputs[slot]);
  out.codes = lower.graph().constant<Codes>(node.inputs[slot]);
  out.layer = lower.width_of(node, slot);
  out.shape = out.array != nullptr ? out.array->shape : out.codes->shape;
  out.width = out.shape.back();
  out.rows = out.width == 0 ? 0 : elements(out.shape) / out.width;
  return "";
}

}  // namespace bl
