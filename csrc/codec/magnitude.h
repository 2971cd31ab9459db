// A number from 0 as bins: how long it is in bits, then its bits from the top (src/bitladder/codec/magnitude.py).
#pragma once

#include <array>
#include <bit>

#include "bins.h"

namespace bl {

constexpr int kStep = 16;  // even bits that are coded at once

// A number of so many bits, all as likely: the highest first, kStep at once.
template <class Coin>
uint64_t even(Coin& coin, int bits, uint64_t number = 0) {
  uint64_t top = 0;
  for (; bits > kStep; bits -= kStep) top = top << kStep | coin.even(kStep, number >> (bits - kStep) & ((1 << kStep) - 1));
  return top << bits | coin.even(bits, number & ((uint64_t{1} << bits) - 1));
}

// The bins of numbers of at most `Longest` bits in so many classes, and of `Learned` bits below the leading one; fewer of
// either where `longest` and `learned` say so. Lengths have no trees until there is a word about them.
template <int Longest, int Classes, int Learned = 2>
struct Magnitudes {
  int longest = Longest, learned = Learned;
  std::array<uint8_t, Classes> depths{};
  std::array<std::array<Bin, Longest + 1>, Classes> lengths;
  std::array<std::array<Bin, 1 << Learned>, Longest + 1> below;

  // Numbers have `most` bits at most, and trees these depths if there are as many lengths. Classes in a row share a depth if
  // there are more classes.
  template <size_t Count>
  void plant(int most, const std::array<uint8_t, Count>& by_class) {
    longest = most;
    const auto full = static_cast<uint8_t>(std::bit_width(most + 1u) - 1);
    for (size_t which = 0; which < Classes; ++which) depths[which] = std::min(by_class[which * Count / Classes], full);
  }

  template <class Coin>
  uint64_t code(Coin& coin, int which, uint64_t number = 0) {
    return rest(coin, length(coin, which, static_cast<int>(std::bit_width(number))), number);
  }

  // The next length: down the tree, then a one for each bit that it is longer than the last leaf.
  template <class Coin>
  int length(Coin& coin, int which, int told) {
    auto& bins = lengths[static_cast<size_t>(which)];
    const int depth = depths[static_cast<size_t>(which)], last = (1 << depth) - 1;
    size_t node = 1;
    for (int place = depth - 1; place >= 0; --place) node = 2 * node + coin.bit(bins[node], std::min(told, last) >> place & 1);
    int length = static_cast<int>(node) - last - 1;
    while (length >= last && length < longest && coin.bit(bins[static_cast<size_t>(length) + 1], told > length)) ++length;
    return length;
  }

  // The number of that length.
  template <class Coin>
  uint64_t rest(Coin& coin, int length, uint64_t number = 0) {
    auto& bins = below[static_cast<size_t>(length)];
    uint64_t top = length > 0;
    int bits = std::max(length - 1, 0);
    while (bits > 0 && top >> learned == 0) {
      --bits;
      top = 2 * top + coin.bit(bins[top], number >> bits & 1);
    }
    return bits == 0 ? top : top << bits | even(coin, bits, number & ((uint64_t{1} << bits) - 1));  // a division less
  }
};

}  // namespace bl
