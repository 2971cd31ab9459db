// Packing codes into planes, and the slow clear twins of kernels/planes.h.
#pragma once

#include <cstdint>

#include "kernels/planes.h"

namespace bl {

// Bytes of one plane, and from plane to plane as it suits caches: at most 1 % more.
int64_t plane_bytes(int64_t columns, int64_t inputs);
int64_t plane_stride(int64_t columns, int64_t inputs);

// Fills `bits` planes at out, `stride` bytes apart, with codes[column * row + input] + offset, which must be 0 .. 2^bits - 1.
// What is missing to whole lines becomes 2^(bits-1), for which m is zero.
void pack_planes(const uint8_t* codes, int64_t row, int64_t columns, int64_t inputs, int bits, int offset, uint8_t* out,
                 int64_t stride);

// The leading `bits` bits of a code, and what they stand for.
int plane_prefix(const Planes& w, int bits, int64_t column, int64_t input);
int32_t plane_weight(const Planes& w, const Prefix& prefix, int64_t column, int64_t input);

// The twin of `matvec` before it is finished: the sum of a row times a column, wrapped around to 32 bits.
int32_t plane_sum(const Planes& w, const Prefix& prefix, const uint8_t* x, int64_t column);

}  // namespace bl
