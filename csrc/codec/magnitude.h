// A number from 0 as bins: how long it is in bits, one bin a bit, then its bits from the top.
#pragma once

#include <array>
#include <bit>

#include "bins.h"

namespace bl {

// The bins of numbers of at most `Longest` bits in so many classes, and of `Learned` bits below the leading one; fewer of
// either where `longest` and `learned` say so.
template <int Longest, int Classes, int Learned = 3>
struct Magnitudes {
  int longest = Longest, learned = Learned;
  std::array<std::array<Bin, Longest>, Classes> lengths;
  std::array<std::array<Bin, 1 << Learned>, Longest + 1> below;

  template <class Coin>
  uint64_t code(Coin& coin, int which, uint64_t number = 0) {
    auto& bins = lengths[static_cast<size_t>(which)];
    int length = 0;
    while (length < longest && coin.bit(bins[static_cast<size_t>(length)], number >> length > 0)) ++length;
    return rest(coin, length, number);
  }

  // The number of that length.
  template <class Coin>
  uint64_t rest(Coin& coin, int length, uint64_t number = 0) {
    auto& bins = below[static_cast<size_t>(length)];
    uint64_t top = length > 0;
    for (int place = length - 2; place >= 0; --place) {
      const bool one = number >> place & 1;
      top = top << 1 | (top >> learned == 0 ? coin.bit(bins[top], one) : coin.half(one));
    }
    return top;
  }
};

// A number of so many bits, each as likely one as zero.
template <class Coin>
uint64_t even(Coin& coin, int bits, uint64_t number = 0) {
  uint64_t top = 0;
  for (int place = bits - 1; place >= 0; --place) top = top << 1 | coin.half(number >> place & 1);
  return top;
}

}  // namespace bl
