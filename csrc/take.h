// Moves along axes: every element of the output is an element of the input, or a fill.
#pragma once

#include <cstdint>
#include <vector>

namespace bl {

// Output place i of an axis reads input place from[i] (i itself where `from` is empty; -1: the fill). Strides in bytes.
struct TakeAxis {
  int64_t count, x_stride, y_stride;
  std::vector<int32_t> from;
};

struct Take {
  std::vector<TakeAxis> axes;  // outermost first
  int64_t run = 1;             // bytes that lie together below the last axis
  std::vector<uint8_t> fill;   // an element, repeated over runs
};

// Places [first, end) of the outermost axis.
void take(const Take& what, const uint8_t* x, uint8_t* y, int64_t first, int64_t end);

}  // namespace bl
