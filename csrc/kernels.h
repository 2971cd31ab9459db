// The table that every instruction set fills. Plain pointers, sizes in elements unless they say bytes; no allocation, no
// failure, no reading or writing past what the arguments describe, except that the arena leaves 64 readable bytes (`slack`)
// behind every buffer and packed weight.
//
// A room of kernels is a header with its arguments and its table (kernels/NAME.h), written once in kernels/NAME.inc with
// the words of simd/ISA.h or as plain loops, and compiled once for each instruction set (isa/ISA.cc).
#pragma once

#include "kernels/dense.h"
#include "kernels/planes.h"
#include "kernels/pointwise.h"
#include "kernels/sequence.h"
#include "kernels/straight.h"
#include "kernels/sums.h"
#include "kernels/window.h"

namespace bl {

constexpr int slack = 64;

struct Kernels {
  const char* name;
  DenseKernels dense;          // convolutions and products with constant weights, 8 bits
  PlaneKernels planes;         // weights as bit planes: matrix times vector, and decoding
  WindowKernels window;        // depthwise convolution, pools, resize
  PointwiseKernels pointwise;  // quantize, decode, add, tables, float arithmetic
  SequenceKernels sequence;    // float products, softmax, normalization, recurrence
  StraightKernels straight;    // fake quantization in training
  SumsKernels sums;            // windows of whole numbers
};

extern const Kernels scalar_kernels, avx2_kernels, avx512_kernels, neon_kernels;

// dispatch.cc: the sets that this machine runs, best first, ended by null; BITLADDER_ISA is the caller's business.
const Kernels* const* available_kernels();
const Kernels* kernels_named(const char* name);  // null if there is none of that name here

}  // namespace bl
