// Fake quantization in training: values rounded to a format going forward, gradients straight through going back.
#pragma once

#include <stdint.h>

namespace bl {

// Evenly spaced levels: code c is worth c * step, for low <= c <= high, both below 2^16 in size. Reals from `floor` to
// `ceiling` only round; those outside are held at an end.
struct Levels {
  float step, low, high, floor, ceiling;
};

struct StraightKernels {
  // y[i] = min(max(round_half_even(x[i] / step), low), high) * step; a NaN stays one. y may be x.
  void (*rounded)(const float* x, float* y, int64_t n, const Levels&);
  // to_x[i] = gradient[i] where x[i] only rounds, else 0. Gives the sum of gradient[i] * (y[i] - (x[i] where it only rounds,
  // else 0)), which is the gradient of the step times the step: in floats of 16 lanes over 1024 of them, in doubles beyond.
  double (*back)(const float* x, const float* gradient, float* to_x, int64_t n, const Levels&);
};

}  // namespace bl
