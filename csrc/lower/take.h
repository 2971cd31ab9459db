// Moves along axes: every element of the output is an element of the input, or a fill.
#pragma once

#include <cstdint>
#include <vector>

#include "lower.h"

namespace bl {

// Output place i of an axis reads input place from[i] (i itself where `from` is empty; -1: the fill). Strides in bytes.
struct TakeAxis {
  int64_t count, x_stride, y_stride;
  std::vector<int32_t> from;
};

// Neighbours of the last axis that are read as they lie, or filled (x < 0), in bytes.
struct Span {
  int64_t x, y, bytes;
};

struct Take {
  std::vector<TakeAxis> axes;  // outermost first
  std::vector<Span> spans;     // in place of the last axis, where its elements lie together
  int64_t run = 1;             // bytes that lie together below the last axis
  std::vector<uint8_t> fill;   // an element, repeated over runs
};

// Places [first, end) of the outermost axis.
void take(const Take& what, const uint8_t* x, uint8_t* y, int64_t first, int64_t end);

// The axes of a value in rows, or those of an image in the order (batch, lines, pixels, channels), strides in bytes.
struct Axes {
  std::vector<size_t> axes;  // of the shape
  std::vector<int64_t> strides;
  int64_t first = 0;
};
Axes axes_of(const Value& value);

// A step of `node` that takes from value x to value y; `x_first` and `y_first` are bytes before the first elements.
void emit_take(Lowering& lower, const Node& node, const char* kernel, int x, int y, Take what, int64_t x_first, int64_t y_first);

// Emits a move along axes: output place i of axis a reads from[a][i]. Codes stay codes where `fill` is one.
bool emit_axes(Lowering& lower, const Node& node, const char* kernel, int x, const std::vector<std::vector<int32_t>>& from, float fill);

}  // namespace bl
