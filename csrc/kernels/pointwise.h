// One element at a time: codes from reals and back, layouts, tables, float32 arithmetic.
#pragma once

#include <stdint.h>

#include "finish.h"

namespace bl {

// Codes lie in bytes from 0 on (finish.h). A code is worth float(code - zero) * step; the code of x is
//   min(max(round_half_even(x / step) + zero, low), high), the division correctly rounded; that of a NaN is low.
// `steps` has one entry for all, or `count` of them that repeat (channels of pixels).
struct Steps {
  const float* steps;
  int64_t count = 1;
  int zero = 0;
  int low = 0, high = 255;
};

// The sum of two codes as a code: float(a - a_zero) * a_step + float(b - b_zero) * b_step, held between floor and ceiling,
// then encoded with step and zero as above.
struct AddCodes {
  float a_step, b_step, step;
  int a_zero, b_zero, zero;
  float floor, ceiling;  // of reals: the node's clip, -inf and inf where there is none
  int low = 0, high = 255;
};

enum class Binary : int { add, sub, mul, div, max, min, count };

// Functions of one real. `a` and `b` are what the operator calls alpha, beta, bias and the like; clip: its limits.
enum class Unary : int {
  abs, neg, relu, clip, sqrt, reciprocal, floor, ceil, round, sign,
  exp, log, sigmoid, tanh, erf, gelu, gelu_tanh, swish, mish, softplus, softsign, elu,
  hard_sigmoid, hard_swish, leaky_relu, count
};

struct PointwiseKernels {
  void (*encode)(const float* x, uint8_t* y, int64_t n, const Steps&);
  void (*decode)(const uint8_t* x, float* y, int64_t n, const Steps&);
  // Planes to pixels and back, elements of 1 or 4 bytes: plane c of x lies `plane` elements after plane c - 1.
  void (*pixels8)(const uint8_t* x, int64_t plane, uint8_t* y, int64_t pixels, int64_t channels);
  void (*pixels32)(const uint32_t* x, int64_t plane, uint32_t* y, int64_t pixels, int64_t channels);
  void (*planes8)(const uint8_t* x, uint8_t* y, int64_t plane, int64_t pixels, int64_t channels);
  void (*planes32)(const uint32_t* x, uint32_t* y, int64_t plane, int64_t pixels, int64_t channels);
  // Planes of reals to pixels of codes; steps.count is 1 or `channels`.
  void (*encode_pixels)(const float* x, int64_t plane, uint8_t* y, int64_t pixels, int64_t channels, const Steps&);
  // y[i] = table[x[i]]; y may be x.
  void (*lookup)(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t* table);
  void (*add_codes)(const uint8_t* a, const uint8_t* b, uint8_t* y, int64_t n, const AddCodes&);
  // y[i] = a[i % a_count] op b[i % b_count]; counts divide n. y may be a or b where that has n entries.
  void (*binary[static_cast<int>(Binary::count)])(const float* a, int64_t a_count, const float* b, int64_t b_count, float* y,
                                                  int64_t n);
  // y[i] = f(x[i]); y may be x. Within 1e-6 relative and absolute of the function.
  void (*unary[static_cast<int>(Unary::count)])(const float* x, float* y, int64_t n, float a, float b);
  // y[i] = (x[i] - mean[c]) / deviation[c] * scale[c] + shift[c], c = i % channels.
  void (*normalize)(const float* x, float* y, int64_t n, int64_t channels, const float* mean, const float* deviation,
                    const float* scale, const float* shift);
  // y[i] = x[i] < 0 ? slope[i % channels] * x[i] : x[i].
  void (*prelu)(const float* x, float* y, int64_t n, const float* slope, int64_t channels);
};

}  // namespace bl
