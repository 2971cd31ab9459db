// The adaptive coder (`best`): bodies of parts to what they hold and back (docs/coding.md).
#pragma once

#include "codec.h"

namespace bl {

bool decode_best_codes(std::string_view body, CodeGrid grid, CodeKind kind, int width, uint8_t* out);
void encode_best_codes(const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out);
bool decode_trellis(std::string_view body, CodeGrid grid, CodeKind kind, int width, uint8_t* out);
void encode_trellis(const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out);

bool decode_best_plane(std::string_view body, CodeGrid grid, int number, bool sign, uint8_t* codes);
void encode_best_plane(const uint8_t* codes, CodeGrid grid, int bits, int number, bool sign, Bytes& out);

bool decode_best_numbers(std::string_view body, Type type, int64_t count, const uint8_t* before, uint8_t* out);
void encode_best_numbers(Type type, const uint8_t* values, int64_t count, const uint8_t* before, Bytes& out);

}  // namespace bl
