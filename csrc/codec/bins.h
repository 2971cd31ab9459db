// Bins: yes-or-no answers coded by how likely they are (src/bitladder/codec/bins.py). A model is a template over a coin: an
// Encoder is told each answer and gives it back, a Decoder is told anything and gives what the bytes say.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace bl {

constexpr int kMemory = 255;  // answers after which a bin forgets as fast as it learns
constexpr int kLeast = 256, kMost = 65280;  // chances, of 65536: so each bin costs 0.0056 bits or more
constexpr auto kRates = [] {
  std::array<int32_t, kMemory + 1> rates{};
  for (int seen = 0; seen <= kMemory; ++seen) rates[static_cast<size_t>(seen)] = 131072 / (2 * seen + 3);
  return rates;
}();

// The chance that the next answer is one, of 65536.
struct Bin {
  uint16_t chance = 32768, seen = 0;

  void learn(bool one, int memory = kMemory) {
    chance = static_cast<uint16_t>(chance + (((one ? kMost : kLeast) - chance) * kRates[seen] >> 16));
    seen = static_cast<uint16_t>(seen + (seen < memory));
  }
};

// How many bytes more are sure to name a number in a range of this size: 1 to 4.
inline int tail(uint64_t range) {
  int count = 1;
  while (!(range >> (64 - 8 * count))) ++count;
  return count;
}

class Encoder {
 public:
  explicit Encoder(std::vector<uint8_t>& out) : out_(out), begin_(out.size()) {}

  bool odds(uint32_t chance, bool one) {
    const uint64_t split = (range_ >> 16) * chance;
    keep(one ? 0 : split, one ? split : range_ - split);
    return one;
  }
  bool bit(Bin& bin, bool one) {
    odds(bin.chance, one);
    bin.learn(one);
    return one;
  }
  uint64_t even(int bits, uint64_t number) {
    const uint64_t size = range_ >> bits;
    keep(number * size, size);
    return number;
  }

  // Puts the last bytes out, and true. Whatever stood in the output before the first bin stays as it was.
  bool end() {
    const int count = tail(range_);
    const uint64_t unit = uint64_t{1} << (64 - 8 * count);
    add((~low_ + 1) & (unit - 1));
    push(count);
    return true;
  }

 private:
  void keep(uint64_t start, uint64_t size) {
    add(start);
    range_ = size;
    if (range_ >> 32 == 0) {
      push(4);
      low_ <<= 32;
      range_ <<= 32;
    }
  }
  void add(uint64_t more) {
    low_ += more;
    if (low_ >= more) return;
    size_t last = out_.size() - 1;  // the sum of all never passes the first byte
    for (; last > begin_ && out_[last] == 255; --last) out_[last] = 0;
    ++out_[last];
  }
  void push(int count) {
    for (int i = 0; i < count; ++i) out_.push_back(static_cast<uint8_t>(low_ >> (56 - 8 * i)));
  }

  std::vector<uint8_t>& out_;
  size_t begin_;
  uint64_t low_ = 0, range_ = ~uint64_t{0};
};

class Decoder {
 public:
  explicit Decoder(std::string_view body) : body_(body) {
    value_ = word() << 32;
    value_ |= word();
    sound_ = value_ < range_;
  }

  bool odds(uint32_t chance, bool = false) {
    const uint64_t split = (range_ >> 16) * chance;
    const bool one = value_ < split;
    const uint64_t zero = uint64_t{one} - 1;  // all bits if it is; a branch would be a guess
    keep(split & zero, split + ((range_ - 2 * split) & zero));
    return one;
  }
  bool bit(Bin& bin, bool = false) {
    const bool one = odds(bin.chance);
    bin.learn(one);
    return one;
  }
  uint64_t even(int bits, uint64_t = 0) {
    const uint64_t size = range_ >> bits, number = value_ / size;
    sound_ &= number >> bits == 0;
    keep(number * size, size);
    return number & ((uint64_t{1} << bits) - 1);
  }

  // Whether the bytes end where and as an encoder's do.
  bool end() const {
    const int count = tail(range_);
    return sound_ && body_.size() == place_ - 8 + static_cast<size_t>(count) && value_ >> (64 - 8 * count) == 0;
  }

 private:
  void keep(uint64_t start, uint64_t size) {
    value_ -= start;
    range_ = size;
    if (range_ >> 32 == 0) {
      value_ = value_ << 32 | word();
      range_ <<= 32;
    }
  }
  uint64_t word() {
    uint64_t bytes = 0;
    for (int i = 0; i < 4; ++i, ++place_) bytes = bytes << 8 | (place_ < body_.size() ? static_cast<uint8_t>(body_[place_]) : 0);
    return bytes;
  }

  std::string_view body_;
  size_t place_ = 0;
  uint64_t value_ = 0, range_ = ~uint64_t{0};
  bool sound_ = false;
};

}  // namespace bl
