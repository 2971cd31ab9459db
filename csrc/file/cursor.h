// Numbers and bytes taken from the front of what is left of a file; false where it does not begin so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bl {

class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : rest_(bytes) {}

  size_t left() const { return rest_.size(); }

  bool take(uint64_t count, std::string_view& out) {
    if (count > rest_.size()) return false;
    out = rest_.substr(0, static_cast<size_t>(count));
    rest_.remove_prefix(out.size());
    return true;
  }

  // A little-endian number.
  template <class T>
  bool little(T& out) {
    std::string_view bytes;
    if (!take(sizeof(T), bytes)) return false;
    out = 0;
    for (size_t i = sizeof(T); i-- > 0;) out = static_cast<T>(uint64_t{out} << 8 | static_cast<uint8_t>(bytes[i]));
    return true;
  }

  // A varint in its shortest form, below 2^64.
  bool varint(uint64_t& out) {
    out = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      uint8_t byte = 0;
      if (!little(byte)) return false;
      const uint64_t seven = byte & 127u;
      if (shift == 63 && seven > 1) return false;
      out |= seven << shift;
      if (byte < 128) return byte != 0 || shift == 0;
    }
    return false;
  }

  // A varint that counts something of which `least` bytes each are still to come.
  bool count(size_t least, size_t& out) {
    uint64_t n = 0;
    if (!varint(n) || n > rest_.size() / least) return false;
    out = static_cast<size_t>(n);
    return true;
  }

 private:
  std::string_view rest_;
};

}  // namespace bl
