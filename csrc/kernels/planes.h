// Weights as bit planes: matrix times a few rows, in a time that falls with the bits, and decoding into panels.
#pragma once

#include <stdint.h>

#include "finish.h"

namespace bl {

// A weight of `columns` outputs by `inputs` inputs, held once as planes of its codes, most significant first. Codes are
// unsigned: those of a two's complement format are shifted up by 2^(N-1), which turns their top bit over.
//
// A plane is [group of 16 columns][block of 32 inputs][line of 64 bytes], so that running on the first planes reads no
// others, and each plane is one stream. Byte 4 * c + e of a line holds bits of column c and of the inputs 4 * q + e of the
// block, q < 8, that of quad q at place (7 - plane) ^ q. Then a byte of eight planes' bits of one weight takes three
// selections, without a shift, and stands in an order that depends on q alone.
struct Planes {
  const uint8_t* data;  // the first plane; best at a multiple of 64 bytes
  int64_t plane;        // bytes from one plane to the next
  int32_t columns;
  int32_t inputs;       // at most 65536
};

constexpr int plane_columns = 16;
constexpr int plane_inputs = 32;
constexpr int plane_line = 64;

// What the leading bits of a code stand for: table[prefix], or without a table m = (prefix << (8 - bits)) - 128.
// Then a two's complement integer is m >> (8 - bits); that of mid-rise is (m >> (7 - bits)) + 1, or 2 m + 1 of 8 bits.
struct Prefix {
  int bits = 8;                    // 1 to 8: planes that are read
  const int8_t* table = nullptr;   // [2^bits]
};

// Rows of codes times columns [column, column_end); `column` is a multiple of 16. Nothing behind the inputs of a row counts.
struct PlaneCall {
  const uint8_t* x;
  int64_t x_row;               // elements from row to row, of x and so on
  void* y;                     // uint8_t or float; y of column 0
  int64_t y_row;
  const uint8_t* other;        // residual codes or null
  int64_t other_row;
  const int32_t* row_sums;     // [rows] added to each sum of a row, or null
  int32_t rows;                // four at a time share the decoding
  int32_t column, column_end;
};

// Real rows times weights with a scale for each column and group of inputs: y = bias + sum of x * code * scale in float32.
// Off by at most (inputs + 8) * 2^-24 * sum of |x * code * scale| + |bias| * 2^-24 from the exact number.
struct GroupCall {
  const float* x;
  int64_t x_row;
  float* y;
  int64_t y_row;
  const float* scale;          // [group][scale_row], scale_row at least the columns rounded up to 16
  int64_t scale_row;
  int32_t group;               // inputs of a group
  const float* bias;           // [columns] or null
  int32_t rows;
  int32_t column, column_end;
};

struct PlaneKernels {
  // Sums of x times m or table[prefix], finished. Two's complement: finish.shift = bits - 8. Mid-rise: finish.shift =
  // bits - 7, and row_sums the sum of the row's integers.
  void (*matvec)(const Planes&, const Prefix&, const Finish&, const PlaneCall&);
  // Panel number `panel` of 64 columns as kernels/dense.h has it, `quads` quads of inputs: m or table[prefix].
  // keep: [4 * quads] 0xff for inputs that count and 0 for those that are to be zero, or null for the first `inputs`.
  void (*decode)(const Planes&, const Prefix&, int panel, int quads, const uint8_t* keep, int8_t* out);
  // out[i] = table[codes[i]], i < n: panels that are held as bytes. May be done in place.
  void (*decode_bytes)(const uint8_t* codes, const int8_t* table, int64_t n, int8_t* out);
  // The two's complement code (or table[prefix]) times its scale, in one float32 product.
  void (*matvec_groups)(const Planes&, const Prefix&, const GroupCall&);
  // The same weights as a panel of reals, [inputs][width]: columns 64 * panel to the last or the 64th, rounded up to 16.
  void (*decode_groups)(const Planes&, const Prefix&, int panel, const float* scale, int64_t scale_row, int group, float* out);
};

}  // namespace bl
