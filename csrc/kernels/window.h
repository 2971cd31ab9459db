// Windows over images with channels last: depthwise convolution, pools, resizing.
#pragma once

#include <stdint.h>

#include "dense.h"
#include "finish.h"

namespace bl {

// Each channel by itself: input and output have the same channels, next to each other in a pixel.
//
//   sum = (sum of x * (w & mask), shifted as finish.shift says) + bias + (half: sum over the window of (x - zero))
//
// Outputs go through `finish` (without a residual).
constexpr int most_taps = 256;

struct Depthwise {
  Grid from, to;         // the first input of each window's channel 0, and its output
  const int64_t* taps;   // [n_taps] where in x the inputs of a window lie, from its first
  int n_taps;
  int channels;
  int across = 0;        // 3 if the window is 3 taps wide with neighbouring pixels, `taps` going line by line; 0: anything
  uint8_t mask = 0xff;   // bits of a weight that count
  bool half = false;     // an integer is twice the weight plus one: mid-rise
  int zero = 0;          // of x; `bias` has its part in the first sum already, not in the second
  Finish finish;
};

// Lines [line, line_end) of all images, counted through. w: [tap][channels rounded up to 64], int8.
struct DepthwiseCall {
  const uint8_t* x;
  const int8_t* w;
  void* y;               // uint8_t or float
  int64_t line, line_end;
};

// What slides over an image; x and y are pixel (0, 0) of the first image, behind the ring, which is never read.
struct Pooling {
  int64_t x_image, x_line, y_image, y_line;  // strides in elements
  int height, width, channels;               // of the input
  int lines, columns;                        // of the output
  int kernel_y, kernel_x, stride_y, stride_x, dilation_y = 1, dilation_x = 1;
  int top = 0, bottom = 0, left = 0, right = 0;  // padding
  bool count_padding = false;                // means divide by what is padded too
};

// Means of codes: round_half_even(float(sum of (x - zero)) * float32(x_step / float32(y_step * float(n)))), held between
// low and high, plus y_zero. Tables have an entry for each channel.
struct Mean {
  const float *x_step, *y_step, *low, *high;
  int x_zero, y_zero;
};

// A weighted sum of lines or of pixels: y[i] = sum over t of weights[t] * x[from[t] + i], i < count.
struct Blend {
  const int64_t* from;
  const float* weights;
  int taps;
  int64_t count;
};

struct WindowKernels {
  void (*depthwise)(const Depthwise&, const DepthwiseCall&);
  // Lines [line, line_end) of all images.
  void (*max_codes)(const Pooling&, const uint8_t* x, uint8_t* y, int64_t line, int64_t line_end);
  void (*max_reals)(const Pooling&, const float* x, float* y, int64_t line, int64_t line_end);
  void (*mean_codes)(const Pooling&, const Mean&, const uint8_t* x, uint8_t* y, int64_t line, int64_t line_end);
  void (*mean_reals)(const Pooling&, const float* x, float* y, int64_t line, int64_t line_end);
  void (*blend)(const Blend&, const float* x, float* y);
};

}  // namespace bl
