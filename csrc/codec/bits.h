// A stream of bits, the lowest bit of a byte first; the unused high bits of its last byte are zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "codec.h"

namespace bl {

inline uint64_t word_at(const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, 8);
  return word;
}

// 64 bits from bit `at` of `data`, of which nine bytes from there on must be readable.
inline uint64_t bits_at(const uint8_t* data, size_t at) {
  const uint8_t* const first = data + at / 8;
  const unsigned skip = at % 8;
  return word_at(first) >> skip | uint64_t{first[8]} << 1 << (63 - skip);
}

class BitWriter {
 public:
  explicit BitWriter(Bytes& out) : out_(out) {}
  void field(uint32_t value, int width) {
    pending_ |= uint64_t{value} << have_;
    for (have_ += width; have_ >= 8; have_ -= 8, pending_ >>= 8) out_.push_back(static_cast<uint8_t>(pending_));
  }
  // So many ones and a zero.
  void unary(int64_t value) {
    for (; value > 0; --value) field(1, 1);
    field(0, 1);
  }
  void close() {
    if (have_ > 0) field(0, 8 - have_);
  }

 private:
  Bytes& out_;
  uint64_t pending_ = 0;
  int have_ = 0;
};

// Reads a stream that begins at byte `at` of `body` and ends where its reader says. Every read says whether it was there.
class BitReader {
 public:
  BitReader(std::string_view body, size_t at) : body_(body), next_(8 * at) {}

  bool field(int width, uint32_t& out) {
    if (next_ + static_cast<size_t>(width) > 8 * body_.size()) return false;
    out = static_cast<uint32_t>(window() & ((uint64_t{1} << width) - 1));
    next_ += static_cast<size_t>(width);
    return true;
  }

  // How many ones come before the next zero; false also if there are more than `most`.
  bool unary(int64_t most, int64_t& out) {
    for (out = 0; out <= most;) {
      const int ones = __builtin_ctzll(~window() | uint64_t{1} << 32);  // no more than there are in the stream
      out += ones;
      next_ += static_cast<size_t>(ones);
      if (ones == 32) continue;
      ++next_;  // the zero; past the end the window reads zeros
      return out <= most && next_ <= 8 * body_.size();
    }
    return false;
  }

  // Whether the rest of the last byte is zero; `at`: the byte after the stream.
  bool close(size_t& at) {
    uint32_t rest = 0;
    if (!field(static_cast<int>((8 - next_ % 8) % 8), rest) || rest) return false;
    at = next_ / 8;
    return true;
  }

 private:
  // 56 bits at least from here on, zeros past the end.
  uint64_t window() const {
    const size_t first = next_ / 8;
    uint64_t word = 0;
    if (first < body_.size()) std::memcpy(&word, body_.data() + first, std::min<size_t>(8, body_.size() - first));
    return word >> next_ % 8;
  }

  std::string_view body_;
  size_t next_;
};

}  // namespace bl
