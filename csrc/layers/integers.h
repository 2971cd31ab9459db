// The integers of a weight, and what they are worth (docs/numerics.md, "WeightSteps that differ along the inputs").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "lower/lower.h"

namespace bl {

struct Integers {
  std::vector<int32_t> values;  // in the order of the codes
  std::vector<float> unit;      // one a column
};

// What one integer of a weight is worth at position `at` of an axis-wise parameter, per element: a table over the axes.
struct WeightSteps {
  std::vector<float> values;
  std::vector<int64_t> strides;  // of the parameter's index for each axis of the weight; 0 where it does not vary
  float at(const Shape& index) const {
    int64_t i = 0;
    for (size_t a = 0; a < index.size(); ++a) i += strides[a] * index[a];
    return values[static_cast<size_t>(i)];
  }
};

WeightSteps steps_of(const Encoding& e, const Shape& shape);

// The next index in C order.
void advance(Shape& index, const Shape& shape);
// Whether the steps of a weight differ along another axis than `axis`.
bool varies_beside(const Encoding& e, size_t axis, const Shape& shape);
size_t out_axis_of(const std::string& op);

// Integers of a plain weight and the unit of its sums. Empty text, or why there are none.
std::string align(const Codes& w, const Coding& x, size_t out_axis, int groups, bool transposed, Integers& out);

// Why codes of an activation, `whose` it is, are none that kernels take.
std::string not_taken(const Encoding& e, const std::string& whose);

// What each prefix of a tree's codes, or each code of a codebook, stands for, whatever the scheme; zeros at other widths.
std::vector<int8_t> level_table(const Encoding& e, int bits);

}  // namespace bl
