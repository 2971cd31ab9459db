// The bias of a layer at a width.
#pragma once

#include "layer.h"

namespace bl {

// The bias in units of the sum, half to even, held in 32 bits.
double bias_code(double bias, float unit);
// The version of a bias for a width, or null.
const float* bias_row(const Layer& l, int bits);

}  // namespace bl
