// Arithmetic on numbers that a file gives: false where 64 bits do not hold the result. The only place for it.
#pragma once

#include <cstdint>

namespace bl {

[[nodiscard]] constexpr bool checked_add(int64_t a, int64_t b, int64_t& out) { return !__builtin_add_overflow(a, b, &out); }

[[nodiscard]] constexpr bool checked_mul(int64_t a, int64_t b, int64_t& out) { return !__builtin_mul_overflow(a, b, &out); }

// The product, or the largest number there is: for counts that are refused when they are too large.
[[nodiscard]] constexpr int64_t capped_mul(int64_t a, int64_t b) {
  int64_t out = 0;
  return checked_mul(a, b, out) ? out : INT64_MAX;
}

// How many bytes `count` numbers of `bits` bits take as one stream.
[[nodiscard]] constexpr bool checked_bytes(int64_t count, int bits, int64_t& out) {
  int64_t all = 0;
  if (!checked_mul(count, bits, all) || !checked_add(all, 7, all)) return false;
  out = all / 8;
  return true;
}

// How many times `size`, above 0, goes into `count`, the last time perhaps in part.
[[nodiscard]] constexpr int64_t parts_of(int64_t count, int64_t size) { return count / size + (count % size != 0); }

}  // namespace bl
