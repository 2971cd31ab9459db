// What the codes around a code say about it: how large it may be and which sign it may have.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>

namespace bl {

constexpr int kCap = 4095;    // magnitudes count as this at most
constexpr int kClasses = 31;  // of sizes
constexpr int kSigns = 17;    // classes of expected signs
constexpr int kSlowest = 4;   // a column's mean follows a new magnitude by 1/16 or faster

// How deep the tree of lengths is, by class.
constexpr auto kDepths = [] {
  std::array<uint8_t, kClasses> depths{};
  for (unsigned size = 1; size < kClasses; ++size) depths[size] = static_cast<uint8_t>(std::bit_width((size - 1) >> 1));
  return depths;
}();

// A class for each half octave of the expected size, from the magnitudes before and the mean of the column.
inline int size_class(int left, int left2, int mean) {
  const auto expected = static_cast<uint32_t>(2 * std::min(left, kCap) + std::min(left2, kCap) + (3 * mean >> 6));
  const int octave = std::bit_width(expected | 1) - 1;
  return expected == 0 ? 0 : 1 + 2 * octave + static_cast<int>(expected << 1 >> octave & 1);
}

// A class for each octave of the expected code, from the codes before.
inline int sign_class(int64_t left, int64_t left3) {
  const int64_t expected = 2 * left + left3;
  const int length = std::min(static_cast<int>(std::bit_width(static_cast<uint64_t>(std::abs(expected)))), kSigns / 2);
  return kSigns / 2 + (expected < 0 ? -length : length);
}

// By how much a column's mean follows the magnitude in a row.
inline int pace(int64_t row) { return std::min(static_cast<int>(std::bit_width(static_cast<uint64_t>(row))), kSlowest); }
inline int follow(int mean, int magnitude, int pace) { return mean + ((64 * std::min(magnitude, kCap) - mean) >> pace); }

}  // namespace bl
