#include "crc32.h"

#include <array>

namespace bl {

namespace {

// Tables for eight bytes at a time: entry [k][b] is the remainder of byte b followed by k zeros.
constexpr std::array<std::array<uint32_t, 256>, 8> crc_tables() {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    t[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t b = 0; b < 256; ++b) t[k][b] = t[k - 1][b] >> 8 ^ t[0][t[k - 1][b] & 255];
  }
  return t;
}

constexpr auto kCrc = crc_tables();

uint64_t eight_bytes(const char* at) {
  uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 8 | static_cast<uint8_t>(at[i]);
  return word;
}

}  // namespace

uint32_t crc32(std::string_view data) {
  uint32_t c = ~0u;
  size_t at = 0;
  for (; data.size() - at >= 8; at += 8) {
    const uint64_t word = eight_bytes(data.data() + at) ^ c;
    c = 0;
    for (size_t k = 0; k < 8; ++k) c ^= kCrc[7 - k][word >> (8 * k) & 255];
  }
  for (; at < data.size(); ++at) c = c >> 8 ^ kCrc[0][(c ^ static_cast<uint8_t>(data[at])) & 255];
  return ~c;
}

}  // namespace bl
