// Elements of a value in another order: what transposing, slicing and broadcasting make of the place where they lie.
#pragma once

#include <algorithm>
#include <cstdint>

#include "graph/graph.h"
#include "lower.h"

namespace bl {

// Element (i, j, ...) lies at first + i * strides[0] + j * strides[1] + ..., in elements.
struct View {
  Shape shape, strides;
  int64_t first = 0;
};

// Whether a value of this shape can be held at all: up to 64 axes, none of a negative size, all others than those of size 0
// with at most 2^40 elements. Sums and products of a few counts of such a value fit in 64 bits.
bool can_be_held(const Shape& shape);

Shape dense_strides(const Shape& shape);
View view_of(const Shape& shape);                                   // a value in rows
View permuted(const View& view, const Shape& order);
View broadcast(const View& view, const Shape& shape);               // axes of length 1 and missing ones repeat
bool broadcast_shape(const Shape& a, const Shape& b, Shape& out);   // false where they do not fit
bool is_dense(const View& view);

// Axis number of `axis`, which may count from the end; never beyond it, whatever a file says.
inline int64_t axis_of(int64_t axis, size_t rank) {
  const auto end = static_cast<int64_t>(rank);
  return std::clamp(axis < 0 ? axis + end : axis, int64_t{0}, end);
}

// A copy of the elements of `from` of x into those of `to` of y, which has the same shape; elements of 1, 2, 4 or 8 bytes.
struct Copy {
  View from, to;
  int element = 1;
};
Copy copy_of(const View& from, const View& to, int element);  // with as few axes as do
void run_copy(const Copy& copy, const uint8_t* x, uint8_t* y, Pool& pool);

}  // namespace bl
