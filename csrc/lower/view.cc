#include "view.h"

#include <algorithm>
#include <cstring>

#include "file/checked.h"
#include "run/pool.h"

namespace bl {

bool can_be_held(const Shape& shape) {
  constexpr int64_t most = int64_t{1} << 40;
  int64_t count = 1;
  for (const int64_t size : shape) {
    count = capped_mul(count, std::max<int64_t>(size, 1));
    if (size < 0 || count > most) return false;
  }
  return shape.size() <= 64;
}

Shape dense_strides(const Shape& shape) {
  Shape out(shape.size());
  int64_t stride = 1;
  for (size_t a = shape.size(); a-- > 0; stride = capped_mul(stride, shape[a])) out[a] = stride;
  return out;
}

View view_of(const Shape& shape) { return {shape, dense_strides(shape), 0}; }

View permuted(const View& view, const Shape& order) {
  View out = view;
  for (size_t a = 0; a < order.size(); ++a) {
    out.shape[a] = view.shape[static_cast<size_t>(order[a])];
    out.strides[a] = view.strides[static_cast<size_t>(order[a])];
  }
  return out;
}

View broadcast(const View& view, const Shape& shape) {
  View out{shape, Shape(shape.size(), 0), view.first};
  const size_t missing = shape.size() - view.shape.size();
  for (size_t a = missing; a < shape.size(); ++a)
    if (view.shape[a - missing] != 1) out.strides[a] = view.strides[a - missing];
  return out;
}

bool broadcast_shape(const Shape& a, const Shape& b, Shape& out) {
  const size_t rank = std::max(a.size(), b.size());
  out.assign(rank, 1);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t m = i < a.size() ? a[a.size() - 1 - i] : 1, n = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (m != n && m != 1 && n != 1) return false;
    out[rank - 1 - i] = m == 1 ? n : m;
  }
  return true;
}

bool is_dense(const View& view) {
  const Shape dense = dense_strides(view.shape);
  for (size_t a = 0; a < dense.size(); ++a)
    if (view.shape[a] != 1 && view.strides[a] != dense[a]) return false;
  return true;
}

Copy copy_of(const View& from, const View& to, int element) {
  Copy out{{{}, {}, from.first}, {{}, {}, to.first}, element};
  for (size_t a = 0; a < from.shape.size(); ++a) {
    if (from.shape[a] == 1) continue;
    const int64_t n = from.shape[a], s = from.strides[a], t = to.strides[a];
    if (!out.from.shape.empty() && out.from.strides.back() == capped_mul(s, n) && out.to.strides.back() == capped_mul(t, n)) {
      out.from.shape.back() = capped_mul(out.from.shape.back(), n);
      out.from.strides.back() = s;
      out.to.strides.back() = t;
      continue;
    }
    out.from.shape.push_back(n);
    out.from.strides.push_back(s);
    out.to.strides.push_back(t);
  }
  if (out.from.shape.empty()) out.from.shape = {1}, out.from.strides = {1}, out.to.strides = {1};
  out.to.shape = out.from.shape;
  return out;
}

namespace {

template <class T>
void copy_line(const T* x, T* y, int64_t n, int64_t from, int64_t to) {
  if (from == 1 && to == 1) std::memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  else if (from == 0 && to == 1) std::fill_n(y, n, *x);
  else if (to == 1) for (int64_t i = 0; i < n; ++i) y[i] = x[i * from];
  else for (int64_t i = 0; i < n; ++i) y[i * to] = x[i * from];
}

template <class T>
void copy_axes(const Copy& c, const T* x, T* y, size_t axis, int64_t begin, int64_t end) {
  const int64_t from = c.from.strides[axis], to = c.to.strides[axis];
  if (axis + 1 == c.from.shape.size()) return copy_line(x + begin * from, y + begin * to, end - begin, from, to);
  for (int64_t i = begin; i < end; ++i) copy_axes(c, x + i * from, y + i * to, axis + 1, 0, c.from.shape[axis + 1]);
}

constexpr int64_t worth_sharing = 50000;  // elements; below this one thread is quicker

template <class T>
void copy_all(const Copy& c, const uint8_t* bytes, uint8_t* out, Pool& pool) {
  const T* x = reinterpret_cast<const T*>(bytes) + c.from.first;
  T* y = reinterpret_cast<T*>(out) + c.to.first;
  const int64_t n = c.from.shape[0], count = elements(c.from.shape);
  if (count == 0) return;
  const int64_t tasks = count < worth_sharing ? 1 : std::min<int64_t>(n, pool.threads());
  pool.run(static_cast<int>(tasks), [&](int task) { copy_axes(c, x, y, 0, n * task / tasks, n * (task + 1) / tasks); });
}

}  // namespace

void run_copy(const Copy& copy, const uint8_t* x, uint8_t* y, Pool& pool) {
  switch (copy.element) {
    case 1: return copy_all<uint8_t>(copy, x, y, pool);
    case 2: return copy_all<uint16_t>(copy, x, y, pool);
    case 4: return copy_all<uint32_t>(copy, x, y, pool);
    default: return copy_all<uint64_t>(copy, x, y, pool);
  }
}

}  // namespace bl
