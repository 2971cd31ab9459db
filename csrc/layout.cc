#include "layout.h"

#include <cstring>
#include <vector>

#include "lower.h"
#include "pool.h"

namespace bl {

namespace {

// Where element (n, c, h, w) of a value lies: strides in elements.
struct Lay {
  int64_t batch = 1, channels = 1, height = 1, width = 1;
  int64_t n = 0, c = 0, h = 0, w = 0, first = 0;
};

Lay lay_of(const Value& v) {
  Lay out;
  if (v.image) {
    const Image i = image_of(v);
    return {i.batch, i.channels, i.height, i.width, i.image, 1, i.line, i.channels, i.first};
  }
  const size_t rank = v.shape.size();
  if (rank == 3 || rank == 4) {
    out.batch = v.shape[0];
    out.channels = v.shape[1];
    out.height = rank == 4 ? v.shape[2] : 1;
    out.width = v.shape[rank - 1];
  } else if (rank >= 2) {
    out.batch = v.shape[0];
    out.channels = v.shape[1];
    out.width = elements(v.shape) / (out.batch * out.channels == 0 ? 1 : out.batch * out.channels);
  } else {
    out.width = elements(v.shape);
  }
  out.w = 1;
  out.h = out.width;
  out.c = out.h * out.height;
  out.n = out.c * out.channels;
  return out;
}

// The element of `from` as one of `to`: decoded, held, encoded.
struct Convert {
  bool from_codes, to_codes;
  Coding from, to;
  float low, high;
  float decode(uint8_t code, int64_t c) const {
    return static_cast<float>(code - from.zero) * from.steps[from.uniform() ? 0 : static_cast<size_t>(c)];
  }
  uint8_t encode(float x, int64_t c) const {
    const float q = std::nearbyint(x / to.steps[to.uniform() ? 0 : static_cast<size_t>(c)]) + static_cast<float>(to.zero);
    return static_cast<uint8_t>(q < 0.0f ? 0.0f : q > static_cast<float>(to.high) ? static_cast<float>(to.high) : q);
  }
  float hold(float x) const { return x < low ? low : x > high ? high : x; }
};

template <class From, class To, class Each>
void copy(const From* from, const Lay& a, To* to, const Lay& b, int64_t n, Each each) {
  from += a.first + n * a.n;
  to += b.first + n * b.n;
  for (int64_t h = 0; h < a.height; ++h)
    for (int64_t w = 0; w < a.width; ++w)
      for (int64_t c = 0; c < a.channels; ++c) to[h * b.h + w * b.w + c * b.c] = each(from[h * a.h + w * a.w + c * a.c], c);
}

template <class T>
void move(const Frame& f, int from, const Lay& a, int to, const Lay& b, int64_t n) {
  copy(f.at<const T>(from), a, f.at<T>(to), b, n, [](T x, int64_t) { return x; });
}

}  // namespace

void emit_conversion(Lowering& lower, int from, int to, float low, float high) {
  const Value& a = lower.value(from);
  const Value& b = lower.value(to);
  const Lay la = lay_of(a), lb = lay_of(b);
  const Convert c{a.codes, b.codes, a.coding, b.coding, low, high};
  const int size = a.codes ? 1 : a.element();
  const bool same = a.codes == b.codes && (!a.codes || a.coding == b.coding) && low == -INFINITY && high == INFINITY;
  Work work = [=](const Frame& f) {
    f.pool->run(static_cast<int>(la.batch), [&](int n) {
      if (same && size == 1) move<uint8_t>(f, from, la, to, lb, n);
      else if (same && size == 2) move<uint16_t>(f, from, la, to, lb, n);
      else if (same && size == 4) move<uint32_t>(f, from, la, to, lb, n);
      else if (same) move<uint64_t>(f, from, la, to, lb, n);
      else if (c.from_codes && c.to_codes)
        copy(f.at<const uint8_t>(from), la, f.at<uint8_t>(to), lb, n, [&](uint8_t x, int64_t ch) { return c.encode(c.hold(c.decode(x, ch)), ch); });
      else if (c.from_codes)
        copy(f.at<const uint8_t>(from), la, f.at<float>(to), lb, n, [&](uint8_t x, int64_t ch) { return c.hold(c.decode(x, ch)); });
      else if (c.to_codes)
        copy(f.at<const float>(from), la, f.at<uint8_t>(to), lb, n, [&](float x, int64_t ch) { return c.encode(c.hold(x), ch); });
      else
        copy(f.at<const float>(from), la, f.at<float>(to), lb, n, [&](float x, int64_t) { return c.hold(x); });
    });
  };
  const char* kernel = same ? "layout" : b.codes ? "encode" : a.codes ? "decode" : "clip";
  lower.emit({b.name.empty() ? a.name : b.name, kernel, {from}, {to}, std::move(work)});
}

void emit_ring(Lowering& lower, int number) {
  const Value& v = lower.value(number);
  const Image i = image_of(v);
  const int64_t size = v.element(), top = v.top, bottom = v.bottom, left = v.left, right = v.right;
  const int fill = v.codes ? v.coding.zero : 0;
  lower.emit({v.name, "ring", {number}, {number}, [=](const Frame& f) {
                uint8_t* base = f.at<uint8_t>(number);
                const auto set = [&](int64_t at, int64_t count) { std::memset(base + at * size, fill, static_cast<size_t>(count * size)); };
                for (int64_t n = 0; n < i.batch; ++n) {
                  const int64_t start = n * i.image;
                  set(start, top * i.line);
                  set(start + (top + i.height) * i.line, bottom * i.line);
                  if (left + right == 0) continue;
                  for (int64_t h = 0; h < i.height; ++h) {
                    const int64_t line = start + (top + h) * i.line;
                    set(line, left * i.channels);
                    set(line + (left + i.width) * i.channels, right * i.channels);
                  }
                }
              }});
}

}  // namespace bl
