// Codes as files store them, made into one number each (docs/file-format.md, "Codes").
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace bl {

// How many bytes `count` codes of `bits` bits take as one stream; one plane of them is a stream of 1-bit codes.
constexpr int64_t dense_bytes(int64_t count, int bits) { return (count * bits + 7) / 8; }

// Whether no bit of `stream` is set after `count` codes of `bits` bits.
bool ends_clean(std::string_view stream, int64_t count, int bits);

// Bytes of one code of `format` in memory: 1, 2 or 4.
int code_width(const Format& format);

// The `count` codes of a stream of ceil(count * bits / 8) bytes, `width` bytes each, negative ones in two's complement.
std::vector<uint8_t> unpack(std::string_view stream, int64_t count, int bits, int width, bool is_signed);

// Eight rows of eight bits, row 0 the lowest byte, with rows and columns exchanged.
inline uint64_t transposed(uint64_t x) {
  const auto exchange = [&x](uint64_t mask, int by) {
    const uint64_t differ = (x ^ x >> by) & mask;
    x ^= differ ^ differ << by;
  };
  exchange(0x00aa00aa00aa00aa, 7);
  exchange(0x0000cccc0000cccc, 14);
  exchange(0x00000000f0f0f0f0, 28);
  return x;
}

// The `count` codes whose leading bits are `planes`, at most 8 of ceil(count / 8) bytes, most significant first.
std::vector<uint8_t> from_planes(const std::vector<std::string_view>& planes, int64_t count);

}  // namespace bl
