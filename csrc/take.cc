#include "take.h"

#include <cstring>

namespace bl {

namespace {

void copy_run(int64_t run, const uint8_t* x, uint8_t* y) {
  switch (run) {
    case 1: *y = *x; break;
    case 4: std::memcpy(y, x, 4); break;
    default: std::memcpy(y, x, static_cast<size_t>(run));
  }
}

void fill_run(const Take& t, uint8_t* y) {
  const size_t size = t.fill.size();
  for (size_t at = 0; at < static_cast<size_t>(t.run); at += size) std::memcpy(y + at, t.fill.data(), size);
}

// Axis `a` and those inside it; x is null where the fill goes everywhere.
void take_axis(const Take& t, size_t a, const uint8_t* x, uint8_t* y, int64_t first, int64_t end) {
  const TakeAxis& axis = t.axes[a];
  const bool last = a + 1 == t.axes.size();
  for (int64_t i = first; i < end; ++i) {
    const int64_t from = axis.from.empty() ? i : axis.from[static_cast<size_t>(i)];
    const uint8_t* in = x == nullptr || from < 0 ? nullptr : x + from * axis.x_stride;
    uint8_t* out = y + i * axis.y_stride;
    if (!last) {
      take_axis(t, a + 1, in, out, 0, t.axes[a + 1].count);
    } else if (in != nullptr) {
      copy_run(t.run, in, out);
    } else {
      fill_run(t, out);
    }
  }
}

}  // namespace

void take(const Take& what, const uint8_t* x, uint8_t* y, int64_t first, int64_t end) { take_axis(what, 0, x, y, first, end); }

}  // namespace bl
