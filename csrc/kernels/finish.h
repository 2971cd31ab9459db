// What becomes of an exact sum: docs/numerics.md, "Convolution, transposed convolution, linear", steps 3 to 6.
#pragma once

#include <stdint.h>

namespace bl {

// Codes are stored as code minus the smallest code of their format, so always 0..255; zero points likewise.
//
//   sum    = (acc << shift, or acc >> -shift, which is exact) + row_sum + bias[column]      (32 bits)
//   real   : y = min(max(float(sum) * scale[column], low[column]), high[column])
//   code   : c = round_half_even(min(max(float(sum) * scale[column], low[column]), high[column])) + zero
//            low and high are limits of codes minus zero, whole numbers, so that c is in 0..255
//   then, if `other` is there (a residual of codes, added as reals and encoded again):
//            r = float(c - zero) * step + float(other - other_zero) * other_step, clamped to sum_low..sum_high
//            c = min(max(round_half_even(r / out_step) + out_zero, out_low), out_high)
//   then, if `table` is there: c = table[c]
// All float operations are single float32 operations in this order, the division correctly rounded.
struct Finish {
  const int32_t* bias;   // [columns rounded up to 64]
  const float* scale;    // the same
  const float* low;      // the same; -inf and inf where a real has no limit
  const float* high;
  int shift = 0;
  bool codes = true;     // else reals
  int zero = 0;
  // residual
  float step = 0, other_step = 0, sum_low = 0, sum_high = 0, out_step = 0;
  int other_zero = 0, out_zero = 0, out_low = 0, out_high = 255;
  const uint8_t* table = nullptr;  // [256]
};

}  // namespace bl
