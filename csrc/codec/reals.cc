#include "reals.h"

#include <algorithm>
#include <bit>

namespace bl {

namespace {

constexpr int kLongest = 31;  // bits of a worth's whole number

// Bits of the fraction, and the power of two in the exponent of one.
struct Layout {
  int fraction, one;
  explicit Layout(int size) : fraction(size == 2 ? 10 : size == 4 ? 23 : 52), one(size == 2 ? 15 : size == 4 ? 127 : 1023) {}
};

uint64_t sign_of(int size) { return uint64_t{1} << (8 * size - 1); }
int length_of(uint64_t number) { return static_cast<int>(std::bit_width(number)); }

// An odd number and its power of two: what one real is worth.
struct Worth {
  int64_t number = 0;
  int power = 0;
};

bool worth_of(uint64_t bits, int size, Worth& out) {
  const Layout layout(size);
  const bool minus = bits & sign_of(size);
  bits &= sign_of(size) - 1;
  const auto field = static_cast<int>(bits >> layout.fraction);
  uint64_t number = (bits & ((uint64_t{1} << layout.fraction) - 1)) | uint64_t{field > 0} << layout.fraction;
  if (field > 2 * layout.one || (minus && !number)) return false;  // not finite, or minus zero
  const int down = number ? std::countr_zero(number) : 0;
  number >>= down;
  out = {minus ? -static_cast<int64_t>(number) : static_cast<int64_t>(number), std::max(field, 1) - layout.one - layout.fraction + down};
  return true;
}

}  // namespace

Numbers patterns_at(const std::vector<uint64_t>& bits, int size, int power) {
  Numbers numbers;
  for (const uint64_t x : bits) {
    const auto kept = static_cast<int64_t>((x & (sign_of(size) - 1)) >> power);
    numbers.push_back(x & sign_of(size) ? -1 - kept : kept);
  }
  return numbers;
}

Whole to_patterns(const std::vector<uint64_t>& bits, int size) {
  uint64_t all = 0;
  for (const uint64_t x : bits) all |= x & (sign_of(size) - 1);
  const int power = all ? std::countr_zero(all) : 0;
  return {power, patterns_at(bits, size, power)};
}

bool to_worths(const std::vector<uint64_t>& bits, int size, Whole& out) {
  std::vector<Worth> worths(bits.size());
  bool any = false;
  out.power = 0;
  for (size_t i = 0; i < bits.size(); ++i) {
    if (!worth_of(bits[i], size, worths[i])) return false;
    if (!worths[i].number) continue;
    out.power = any ? std::min(out.power, worths[i].power) : worths[i].power;
    any = true;
  }
  out.numbers.clear();
  for (const auto& [number, power] : worths) {
    const auto magnitude = static_cast<uint64_t>(number < 0 ? -number : number);
    if (number && length_of(magnitude) + power - out.power > kLongest) return false;
    out.numbers.push_back(number ? number * (int64_t{1} << (power - out.power)) : 0);
  }
  return true;
}

bool from_pattern(int64_t number, int power, int size, uint64_t& bits) {
  const auto kept = static_cast<uint64_t>(number < 0 ? -1 - number : number);
  if (power < 0 || power > 63 || (kept && length_of(kept) + power > 8 * size - 1)) return false;
  bits = kept << power | (number < 0 ? sign_of(size) : 0);
  return true;
}

bool from_worth(int64_t number, int power, int size, uint64_t& bits) {
  const Layout layout(size);
  const uint64_t magnitude = number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  bits = 0;
  if (!magnitude) return true;
  const int top = power + length_of(magnitude) - 1;  // the power of its leading bit
  const int up = power - std::max(top, 1 - layout.one) + layout.fraction;
  if (length_of(magnitude) > kLongest || top > layout.one || up < -std::countr_zero(magnitude)) return false;
  bits = (up >= 0 ? magnitude << up : magnitude >> -up) + (static_cast<uint64_t>(std::max(top + layout.one - 1, 0)) << layout.fraction);
  if (number < 0) bits |= sign_of(size);
  return true;
}

}  // namespace bl
