// What transformers and recurrent networks need besides integer sums: float products, softmax, normalization, gates.
#pragma once

#include <stdint.h>

#include "dense.h"

namespace bl {

// One piece of a float32 product: rows [row, row_end) and the columns of one panel. Its geometry is a Dense whose runs and
// `quads` count single inputs, with panels [input][width] of float32; of its finish only low and high count.
//   y = min(max(sum of x * w + bias[column], low[column]), high[column])
// `bias`, `low` and `high` may be null. Sums are fused or not as the instruction set has it: within 1e-5 of the reference.
struct RealCall {
  const float* x;
  const float* w;
  float* y;
  const float* bias;
  int64_t row, row_end;
  int panel;
};

// How reals leave a kernel: as they are, or as codes min(max(round(real * inverse) + zero, 0), high).
struct Leave {
  bool codes = false;
  float inverse = 1;  // one over the step
  int zero = 0, high = 255;
};

// So many rows are under way at a time, for one alone would wait for its own sums.
constexpr int rows_together = 4;

// Rows of softmax, or of its logarithm: of x * factor + mask.
struct SoftmaxCall {
  const float* x;
  void* y;
  const float* mask = nullptr;
  int64_t rows, width;
  int64_t x_stride, y_stride, mask_stride = 0;
  float factor = 1;
  bool logarithm = false;
  Leave leave;
  float* desk;  // rows_together * (width rounded up to 16) floats to work in; null: x itself, with rows of 16s
};

// Rows with mean 0 (unless by root mean square alone) and variance 1, then scaled and shifted. What is normalized is
// x + other + (codes - zero) * step, of those that are there.
struct NormCall {
  const float* x;
  const float* other = nullptr;
  const uint8_t* codes = nullptr;
  void* y;
  const float* scale = nullptr;  // [width] or null
  const float* shift = nullptr;
  int64_t rows, width;
  int64_t stride;                // of x, other, codes and y alike
  float epsilon = 1e-5f, step = 1;
  int zero = 0;
  bool root_mean_square = false;
  Leave leave;
  float* mean = nullptr;         // [rows] or null
  float* inverse = nullptr;      // [rows] or null
  float* desk;                   // rows_together * (width rounded up to 16) floats to work in
};

// The second operand of a product of two activations as panels: value - 128, and the sums of the columns of the panels.
// b(k, n) = b[k * stride_k + n * stride_n]; one of the strides is 1. Panels and sums have columns rounded up to 16.
struct PackCall {
  const uint8_t* b;
  int64_t inputs, columns, stride_k, stride_n;
  int8_t* panels;   // of Dense
  int32_t* sums;    // [columns rounded up to 16]
};

// Gates of recurrent cells, `hidden` entries each, one sequence. Limits clip what enters an activation.
struct CellCall {
  const float* x;         // from the input, all gates in the operator's order
  const float* h;         // from the state
  const float* peephole;  // lstm: input, output, forget; or null
  float* cell;            // lstm: the cell; gru: null
  const float* past;      // gru: the state so far
  float* out;             // the new state
  int64_t hidden;
  float limit;            // infinity where there is none
};

struct SequenceKernels {
  void (*real_dense)(const Dense&, const RealCall&);
  void (*pack)(const PackCall&);
  void (*softmax)(const SoftmaxCall&);
  void (*norm)(const NormCall&);
  // y = x * a + b for n elements.
  void (*scale_shift)(const float* x, int64_t n, float a, float b, float* y);
  void (*lstm)(const CellCall&);
  // The update and reset gates, from the first two thirds of x and h.
  void (*gru_gates)(const CellCall&, float* update, float* reset);
  // out = (1 - update) * tanh(x + h) + update * past, x and h of `hidden` entries.
  void (*gru_state)(const CellCall&, const float* update);
  // out = tanh or relu of x + h.
  void (*rnn)(const CellCall&, bool relu);
  // reals[i] = (((codes[i] ^ flip) >> down) * gain + offset) * step
  void (*decode)(const uint8_t* codes, int64_t n, int flip, int down, int gain, int offset, float step, float* reals);
};

}  // namespace bl
