// Reals as whole numbers that count a power of two, exact both ways (src/bitladder/codec/reals.py).
#pragma once

#include <cstdint>
#include <vector>

namespace bl {

using Numbers = std::vector<int64_t>;

// Whole numbers and the exponent of the power of two that they count.
struct Whole {
  int power = 0;
  Numbers numbers;
};

// `bits`: the values, size bytes each, in the low bits of a word.
Whole to_patterns(const std::vector<uint64_t>& bits, int size);
Numbers patterns_at(const std::vector<uint64_t>& bits, int size, int power);
bool to_worths(const std::vector<uint64_t>& bits, int size, Whole& out);  // false if they are not small multiples of one power

// False if there is no such value.
bool from_pattern(int64_t number, int power, int size, uint64_t& bits);
bool from_worth(int64_t number, int power, int size, uint64_t& bits);

}  // namespace bl
