// Sums of windows of whole numbers: what the half steps of mid-rise weights are worth (finish.h: row_sum).
#pragma once

#include <stdint.h>

namespace bl {

struct SumsKernels {
  // out[i] = sum of x[i + offsets[t]] over t < n_offsets, for begin <= i < end.
  void (*windows)(const int32_t* x, const int64_t* offsets, int n_offsets, int64_t begin, int64_t end, int32_t* out);
};

}  // namespace bl
