// Parts of a file: codes, bit planes and numbers as bytes and back (docs/coding.md; texts.h for headers). What src/bitladder/codec defines in
// Python is done here at speed, byte for byte. A decoder gives false where bytes are not what their coding makes, and never
// reads or writes past what it was given; an encoder leaves `out` empty where a coding does not apply.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace bl {

enum PartCoding : int { kRaw = 0, kBest = 1, kFast = 2, kTernary = 3, kTrellis = 4 };
enum class PartKind { codes, plane, numbers };
bool is_coding_of(PartKind kind, int64_t coding);  // whether such parts may be coded so
constexpr int64_t kMostPerByte = 2048;  // numbers that one coded byte may stand for

struct PartView {
  int coding = kRaw;
  std::string_view body;
};

// Whether the bytes of a coded part may stand for `count` numbers.
inline bool bounded(const PartView& part, int64_t count) {
  return part.coding == kRaw || count <= kMostPerByte * static_cast<int64_t>(part.body.size());
}

// Codes are a matrix: rows of the first axis, columns of all others.
struct CodeGrid {
  int64_t rows = 0, cols = 0;
  int64_t count() const { return rows * cols; }
};

// Of which codes a tensor is made.
struct CodeKind {
  int bits = 0, low = 0, high = 0;
};

using Bytes = std::vector<uint8_t>;

// `out`: count() codes of `width` (1, 2 or 4) bytes each, in two's complement.
bool decode_codes(const PartView& part, CodeGrid grid, CodeKind kind, int width, uint8_t* out);
void encode_codes(int coding, const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out);

// `codes`: of one byte each, the leading `known` planes; with those of `parts` after the call. `sign`: the first plane is one.
bool decode_planes(const std::vector<PartView>& parts, CodeGrid grid, bool sign, int known, uint8_t* codes);
void encode_plane(int coding, const uint8_t* codes, CodeGrid grid, int bits, int number, bool sign, Bytes& out);

// `before`: as many numbers of the same type that these are near to, or null.
bool decode_numbers(const PartView& part, Type type, int64_t count, const uint8_t* before, uint8_t* out);
void encode_numbers(int coding, Type type, const uint8_t* values, int64_t count, const uint8_t* before, Bytes& out);

}  // namespace bl
