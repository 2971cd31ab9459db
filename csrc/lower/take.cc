#include "take.h"

#include <cstring>
#include <memory>

#include "run/pool.h"
#include "target.h"

namespace bl {

namespace {

void copy_run(int64_t run, const uint8_t* x, uint8_t* y) {
  switch (run) {
    case 1: *y = *x; break;
    case 4: std::memcpy(y, x, 4); break;
    default: std::memcpy(y, x, static_cast<size_t>(run));
  }
}

void fill_run(const Take& t, uint8_t* y, int64_t run) {
  const size_t size = t.fill.size();
  if (size == 1) return void(std::memset(y, t.fill[0], static_cast<size_t>(run)));
  for (size_t at = 0; at < static_cast<size_t>(run); at += size) std::memcpy(y + at, t.fill.data(), size);
}

void copy_spans(const Take& t, const uint8_t* x, uint8_t* y) {
  for (const Span& s : t.spans) {
    if (x == nullptr || s.x < 0) fill_run(t, y + s.y, s.bytes);
    else std::memcpy(y + s.y, x + s.x, static_cast<size_t>(s.bytes));
  }
}

// Axis `a` and those inside it; x is null where the fill goes everywhere.
void take_axis(const Take& t, size_t a, const uint8_t* x, uint8_t* y, int64_t first, int64_t end) {
  const TakeAxis& axis = t.axes[a];
  const bool last = a + 1 == t.axes.size();
  if (last && !t.spans.empty()) return copy_spans(t, x, y);
  for (int64_t i = first; i < end; ++i) {
    const int64_t from = axis.from.empty() ? i : axis.from[static_cast<size_t>(i)];
    const uint8_t* in = x == nullptr || from < 0 ? nullptr : x + from * axis.x_stride;
    uint8_t* out = y + i * axis.y_stride;
    if (!last) {
      take_axis(t, a + 1, in, out, 0, t.axes[a + 1].count);
    } else if (in != nullptr) {
      copy_run(t.run, in, out);
    } else {
      fill_run(t, out, t.run);
    }
  }
}

// Inner axes that are read as they lie become part of the run.
void merge(Take& t) {
  while (t.axes.size() > 1) {
    const TakeAxis& last = t.axes.back();
    if (!last.from.empty() || last.x_stride != t.run || last.y_stride != t.run) return;
    t.run *= last.count;
    t.axes.pop_back();
  }
}

// The last axis in spans, where its elements lie together on both sides and tasks do not cut it.
void span(Take& t) {
  const TakeAxis& last = t.axes.back();
  if (t.axes.size() < 2 || last.from.empty() || last.x_stride != t.run || last.y_stride != t.run) return;
  for (int64_t i = 0; i < last.count; ++i) {
    const int64_t from = last.from[static_cast<size_t>(i)], x = from < 0 ? -1 : from * t.run;
    Span* before = t.spans.empty() ? nullptr : &t.spans.back();
    if (before != nullptr && (x < 0 ? before->x < 0 : before->x >= 0 && before->x + before->bytes == x)) before->bytes += t.run;
    else t.spans.push_back({x, i * t.run, t.run});
  }
}

}  // namespace

void take(const Take& what, const uint8_t* x, uint8_t* y, int64_t first, int64_t end) { take_axis(what, 0, x, y, first, end); }

Axes axes_of(const Value& v) {
  const int64_t size = v.element();
  const size_t rank = v.shape.size();
  Axes out;
  if (v.image) {
    const Image i = image_of(v);
    out.first = i.first * size;
    if (rank == 4) return {{0, 2, 3, 1}, {i.image * size, i.line * size, i.channels * size, size}, out.first};
    return {{0, 2, 1}, {i.image * size, i.channels * size, size}, out.first};
  }
  int64_t stride = size;
  for (size_t a = rank; a-- > 0;) {
    out.axes.insert(out.axes.begin(), a);
    out.strides.insert(out.strides.begin(), stride);
    stride *= v.shape[a];
  }
  return out;
}

void emit_take(Lowering& lower, const Node& node, const char* kernel, int x, int y, Take what, int64_t x_first, int64_t y_first) {
  merge(what);
  span(what);
  int64_t work = what.run;
  for (const TakeAxis& a : what.axes) work *= a.count;
  const int64_t count = what.axes[0].count;
  const int tasks = tasks_for(lower, work, count);
  const auto shared = std::make_shared<Take>(std::move(what));
  lower.emit({node.name(), kernel, {x}, {y}, [=](const Frame& f) {
                f.pool->run(tasks, [&](int task) {
                  take(*shared, f.at<uint8_t>(x) + x_first, f.at<uint8_t>(y) + y_first, share_of(count, tasks, task), share_of(count, tasks, task + 1));
                });
              }});
}

}  // namespace bl
