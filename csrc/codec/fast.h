// The coder `fast` (docs/coding.md, "Static coder"; src/bitladder/codec/fast.py is the definition).
#pragma once

#include "codec.h"
#include "rows.h"

namespace bl {

// `out`: count codes of `width` bytes each.
bool decode_fast_codes(std::string_view body, int64_t count, CodeKind kind, int width, uint8_t* out);
void encode_fast_codes(const int32_t* codes, int64_t count, CodeKind kind, Bytes& out);

// Appends a plane to `rows`, which hold those before it. `portable`: without the instructions that this machine may have.
bool decode_fast_plane(std::string_view body, Rows& rows, bool portable = false);
void encode_fast_plane(const uint8_t* codes, int64_t count, int bits, int number, Bytes& out);

}  // namespace bl
