// Convolution and matrix products of 8-bit codes with 8-bit weights: windows of inputs times panels of columns.
#pragma once

#include <stdint.h>

#include "finish.h"

namespace bl {

// Where rows lie: row r is (image, line, column) with r = (image * lines + line) * columns + column; strides in elements.
struct Grid {
  int32_t lines = 1, columns = 1;
  int64_t image = 0, line = 0, column = 0;
};

// Neighbouring inputs of a window: `quads` times 4 of them from `offset` elements after the window's first.
struct Run {
  int64_t offset;
  int32_t quads;
};

constexpr int panel_columns = 64;

// Weights: panels of 64 columns, the last one of the columns left, rounded up to 16 (`width`); in a panel
// [quad][width][4], int8, quads of all runs in order; missing inputs and columns are zero. Panel p begins
// p * 64 * 4 * quads bytes after the first.
struct Dense {
  Grid from;             // first input of each row's window, in x
  Grid to;               // first output of each row, in y
  Grid beside;           // first residual code of each row, in `other`
  const Run* runs;
  int n_runs;
  int quads;             // of all runs
  int columns;           // outputs of a row, next to each other in y
  uint8_t mask = 0xff;   // bits of a weight that count: 0xff, 0xfe, ... 0x80
  Finish finish;
};

// One piece of the work: rows [row, row_end) and the columns of one panel. `w` is that panel.
// weight_sums: [columns] sum of the masked weights of each column, for instruction sets that make x signed first.
// row_sums: [rows] added to each sum of a row, or null.
struct DenseCall {
  const uint8_t* x;
  const int8_t* w;
  void* y;                    // uint8_t or float
  const uint8_t* other;       // residual codes or null
  const int32_t* weight_sums;
  const int32_t* row_sums;
  int64_t row, row_end;
  int panel;
};

struct DenseKernels {
  void (*run)(const Dense&, const DenseCall&);
  // out[p] = sum of (x[p * stride + c] - zero) over c < channels: what the half steps of mid-rise weights are worth.
  void (*column_sums)(const uint8_t* x, int64_t pixels, int64_t stride, int channels, int32_t zero, int32_t* out);
};

}  // namespace bl
