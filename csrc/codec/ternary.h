// Ternary packing (docs/coding.md; src/bitladder/codec/ternary.py is the definition).
#pragma once

#include "codec.h"

namespace bl {

// `out`: count codes of `width` bytes each.
bool decode_ternary(std::string_view body, int64_t count, CodeKind kind, int width, uint8_t* out);
void encode_ternary(const int32_t* codes, int64_t count, CodeKind kind, Bytes& out);

}  // namespace bl
