#include "layout.h"

#include <cstring>
#include <functional>
#include <vector>

#include "lower.h"
#include "run/pool.h"

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
    return static_cast<float>(code - from.zero) * from.step(c);
  }
  uint8_t encode(float x, int64_t c) const {
    const float q = std::nearbyint(x / to.step(c)) + static_cast<float>(to.zero);
    return static_cast<uint8_t>(q > 0.0f ? (q < static_cast<float>(to.high) ? q : static_cast<float>(to.high)) : 0.0f);  // NaN: 0
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

// Pixels of one line of an image against the same line of planes (rows).
struct Line {
  int64_t planes, pixels;  // the first element of each
};

Line line_of(const Lay& planes, const Lay& pixels, int64_t n, int64_t h) {
  return {planes.first + n * planes.n + h * planes.h, pixels.first + n * pixels.n + h * pixels.h};
}

// The code of a limit with step number `i`. Quantizing keeps the order, so holding codes is holding reals.
int limit_code(const Coding& c, float limit, size_t i) {
  const float q = std::nearbyint(limit / c.steps[i]) + static_cast<float>(c.zero);
  return static_cast<int>(q > 0.0f ? (q < static_cast<float>(c.high) ? q : static_cast<float>(c.high)) : 0.0f);
}

// Whether a limit has one code whatever the channel.
bool one_limit(const Coding& c, float limit) {
  for (size_t i = 1; std::isfinite(limit) && i < c.steps.size(); ++i)
    if (limit_code(c, limit, i) != limit_code(c, limit, 0)) return false;
  return true;
}

Steps steps_of(const Coding& c, float low, float high) {
  Steps s{c.steps.data(), static_cast<int64_t>(c.steps.size()), c.zero, 0, c.high};
  if (low != -INFINITY) s.low = limit_code(c, low, 0);
  if (high != INFINITY) s.high = limit_code(c, high, 0);
  return s;
}

// The work of a conversion on lines `h` of image `n`, by a kernel; nothing where there is none for it.
using Part = std::function<void(const Frame&, int64_t n, int64_t h)>;

Part across(const Value& a, const Value& b, const Lay& la, const Lay& lb, int from, int to, bool same) {
  const bool to_pixels = b.image;
  const int size = a.codes ? 1 : a.element();
  if (!same && b.codes && !a.codes && to_pixels) {
    return [=, coding = b.coding](const Frame& f, int64_t n, int64_t h) {
      const Line l = line_of(la, lb, n, h);
      f.kernels->pointwise.encode_pixels(f.at<const float>(from) + l.planes, la.c, f.at<uint8_t>(to) + l.pixels, la.width, la.channels,
                                         steps_of(coding, -INFINITY, INFINITY));
    };
  }
  if (!same || (size != 1 && size != 4)) return nullptr;
  return [=](const Frame& f, int64_t n, int64_t h) {
    const Line l = to_pixels ? line_of(la, lb, n, h) : line_of(lb, la, n, h);
    const PointwiseKernels& k = f.kernels->pointwise;
    if (size == 1 && to_pixels) k.pixels8(f.at<const uint8_t>(from) + l.planes, la.c, f.at<uint8_t>(to) + l.pixels, la.width, la.channels);
    else if (size == 1) k.planes8(f.at<const uint8_t>(from) + l.pixels, f.at<uint8_t>(to) + l.planes, lb.c, la.width, la.channels);
    else if (to_pixels) k.pixels32(f.at<const uint32_t>(from) + l.planes, la.c, f.at<uint32_t>(to) + l.pixels, la.width, la.channels);
    else k.planes32(f.at<const uint32_t>(from) + l.pixels, f.at<uint32_t>(to) + l.planes, lb.c, la.width, la.channels);
  };
}

// The same on `count` neighbouring elements: a line of an image, or everything in rows.
Part along(const Value& a, const Value& b, const Lay& la, const Lay& lb, int from, int to, bool same, float low, float high) {
  const int64_t count = a.image ? la.width * la.channels : elements(a.shape);
  const int size = a.codes ? 1 : a.element();
  const auto start = [=](const Lay& l, int64_t n, int64_t h) { return a.image ? l.first + n * l.n + h * l.h : 0; };
  if (same) {
    return [=](const Frame& f, int64_t n, int64_t h) {
      std::memcpy(f.at<uint8_t>(to) + start(lb, n, h) * size, f.at<const uint8_t>(from) + start(la, n, h) * size,
                  static_cast<size_t>(count * size));
    };
  }
  const bool held = low != -INFINITY || high != INFINITY;
  const auto by_channel = [&](const Coding& c) { return !c.uniform() && (!a.image || !one_limit(c, low) || !one_limit(c, high)); };
  if (a.codes == b.codes || by_channel(a.codes ? a.coding : b.coding) || (a.codes && held)) return nullptr;
  if (b.codes) {
    return [=, coding = b.coding](const Frame& f, int64_t n, int64_t h) {
      f.kernels->pointwise.encode(f.at<const float>(from) + start(la, n, h), f.at<uint8_t>(to) + start(lb, n, h), count,
                                  steps_of(coding, low, high));
    };
  }
  return [=, coding = a.coding](const Frame& f, int64_t n, int64_t h) {
    f.kernels->pointwise.decode(f.at<const uint8_t>(from) + start(la, n, h), f.at<float>(to) + start(lb, n, h), count,
                                steps_of(coding, -INFINITY, INFINITY));
  };
}

// Whatever else there is, element by element.
Part slowly(const Value& a, const Value& b, const Lay& la, const Lay& lb, int from, int to, bool same, float low, float high) {
  const Convert c{a.codes, b.codes, a.coding, b.coding, low, high};
  const int size = a.codes ? 1 : a.element();
  return [=](const Frame& f, int64_t n, int64_t) {
    const auto move = [&]<class T>(T) { copy(f.at<const T>(from), la, f.at<T>(to), lb, n, [](T x, int64_t) { return x; }); };
    if (same && size == 1) return move(uint8_t{});
    if (same && size == 2) return move(uint16_t{});
    if (same && size == 4) return move(uint32_t{});
    if (same) return move(uint64_t{});
    if (c.from_codes && c.to_codes)
      copy(f.at<const uint8_t>(from), la, f.at<uint8_t>(to), lb, n, [&](uint8_t x, int64_t ch) { return c.encode(c.hold(c.decode(x, ch)), ch); });
    else if (c.from_codes)
      copy(f.at<const uint8_t>(from), la, f.at<float>(to), lb, n, [&](uint8_t x, int64_t ch) { return c.hold(c.decode(x, ch)); });
    else if (c.to_codes)
      copy(f.at<const float>(from), la, f.at<uint8_t>(to), lb, n, [&](float x, int64_t ch) { return c.encode(c.hold(x), ch); });
    else
      copy(f.at<const float>(from), la, f.at<float>(to), lb, n, [&](float x, int64_t) { return c.hold(x); });
  };
}

}  // namespace

void emit_conversion(Lowering& lower, int from, int to, float low, float high) {
  const Value a = lower.value(from), b = lower.value(to);
  const Lay la = lay_of(a), lb = lay_of(b);
  const bool same = a.codes == b.codes && (!a.codes || a.coding == b.coding) && low == -INFINITY && high == INFINITY;
  if (!same && a.type != Type::f32) return lower.refuse(b, "is encoded or clipped, which only float32 can be");
  int64_t images = la.batch, lines = la.height;
  Part part = nullptr;
  if (a.image != b.image && low == -INFINITY && high == INFINITY) part = across(a, b, la, lb, from, to, same);
  if (a.image == b.image) {
    part = along(a, b, la, lb, from, to, same, low, high);
    if (part && !a.image) images = lines = 1;
  }
  if (!part) {
    part = slowly(a, b, la, lb, from, to, same, low, high);
    lines = 1;
  }
  const bool small = elements(a.shape) < (1 << 15);
  const char* kernel = same ? "layout" : b.codes ? "encode" : a.codes ? "decode" : "clip";
  lower.emit({b.name.empty() ? a.name : b.name, kernel, {from}, {to}, [=](const Frame& f) {
                const auto one = [&](int task) { part(f, task / lines, task % lines); };
                const int tasks = static_cast<int>(images * lines);
                if (!small && f.pool->threads() > 1) return f.pool->run(tasks, one);
                for (int task = 0; task < tasks; ++task) one(task);
              }});
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
