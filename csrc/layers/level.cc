#include "level.h"

#include <algorithm>
#include <cmath>

namespace bl {

double bias_code(double bias, float unit) {
  return std::clamp(std::nearbyint(bias / static_cast<double>(unit)), -2147483648.0, 2147483647.0);
}

const float* bias_row(const Layer& l, int bits) {
  if (l.bias != nullptr) return l.bias->as<float>();
  if (l.biases == nullptr) return nullptr;
  return l.biases->versions.as<float>() + l.biases->row(bits) * (elements(l.biases->versions.shape) / static_cast<int64_t>(l.biases->bits.size()));
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
      const float step = l.y.step(static_cast<int64_t>(channel));
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
