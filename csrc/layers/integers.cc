#include "integers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bl {

namespace {

constexpr int64_t int32_top = 2147483647;

bool power_of_two(float x) {
  int exponent;
  return std::frexp(x, &exponent) == 0.5f;
}

const Array* step_param(const Encoding& e) {
  switch (e.format.kind) {
    case Format::fixed: return e.param("fl");
    case Format::midrise: return e.param("range");
    default: return e.param("scale");
  }
}

}  // namespace

WeightSteps steps_of(const Encoding& e, const Shape& shape) {
  const Array& p = *step_param(e);
  WeightSteps out;
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

std::string align(const Codes& w, const Coding& x, size_t out_axis, int groups, bool transposed, Integers& out) {
  const Shape& shape = w.shape;
  const size_t in_axis = 1 - out_axis;
  const WeightSteps steps = steps_of(w.encoding, shape);
  const Array* zero = w.encoding.param("zero_point");
  const int64_t n = elements(shape), columns = shape[out_axis];
  out.values.resize(static_cast<size_t>(n));
  Shape index(shape.size(), 0);
  const int64_t zeros = zero != nullptr ? elements(zero->shape) : 0;
  const bool zeros_vary = std::any_of(zero != nullptr ? zero->as<float>() : nullptr, zero != nullptr ? zero->as<float>() + zeros : nullptr,
                                      [&](float z) { return z != zero->as<float>()[0]; });
  if (!zeros_vary) {
    const int64_t z = zero != nullptr ? static_cast<int64_t>(zero->as<float>()[0]) : 0;
    for (int64_t i = 0; i < n; ++i) out.values[static_cast<size_t>(i)] = static_cast<int32_t>(w.code(i) - z);
  } else {
    for (int64_t i = 0; i < n; ++i, advance(index, shape)) {
      int64_t at = 0;
      for (size_t a = 0; a < index.size(); ++a) at += steps.strides[a] * index[a];
      out.values[static_cast<size_t>(i)] = static_cast<int32_t>(w.code(i) - static_cast<int64_t>(zero->as<float>()[at]));
    }
    std::fill(index.begin(), index.end(), 0);
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
    return static_cast<double>(x.step(channel)) * static_cast<double>(steps.at(at));
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

size_t out_axis_of(const std::string& op) { return op == "conv_transpose" ? 1 : 0; }

std::string not_taken(const Encoding& e, const std::string& whose) {
  if (e.format.kind == Format::log) return "its " + whose + "'s codes count in octaves";
  return "its " + whose + "'s codes have more than 8 bits or steps along other axes than the channels";
}

std::vector<int8_t> level_table(const Encoding& e, int bits) {
  std::vector<int8_t> out(size_t{1} << bits, 0);
  const bool book = e.format.kind == Format::codebook;
  const Array* t = book ? (bits == e.format.bits ? e.param("levels") : nullptr) : e.param("levels" + std::to_string(bits));
  if (t == nullptr) return out;
  if (book || e.format.kind == Format::tree) {
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

}  // namespace bl
