#include "codes.h"

#include <cstring>

namespace bl {

bool ends_clean(std::string_view stream, int64_t count, int bits) {
  const int used = static_cast<int>(count * bits % 8);
  return used == 0 || static_cast<uint8_t>(stream.back()) >> used == 0;
}

int code_width(const Format& format) {
  const int least = format.low() < 0 ? -format.low() - 1 : 0, most = format.high() > least ? format.high() : least;
  const int spare = format.low() < 0 ? 1 : 0;  // the sign
  return most < 1 << (8 - spare) ? 1 : most < 1 << (16 - spare) ? 2 : 4;
}

std::vector<uint8_t> unpack(std::string_view stream, int64_t count, int bits, int width, bool is_signed) {
  std::vector<uint8_t> out(static_cast<size_t>(count * width));
  if (bits == 8 * width) {
    if (!out.empty()) std::memcpy(out.data(), stream.data(), out.size());
    return out;
  }
  const uint32_t mask = (1u << bits) - 1, top = is_signed ? 1u << (bits - 1) : 0;
  uint64_t pending = 0;  // bits that were read and not used, and how many
  int have = 0;
  const char* next = stream.data();
  for (uint8_t* at = out.data(); at != out.data() + out.size(); at += width) {
    for (; have < bits; have += 8) pending |= uint64_t{static_cast<uint8_t>(*next++)} << have;
    const uint32_t field = static_cast<uint32_t>(pending) & mask;
    const uint32_t code = (field ^ top) - top;  // the sign bit goes on upwards
    std::memcpy(at, &code, static_cast<size_t>(width));
    pending >>= bits;
    have -= bits;
  }
  return out;
}

void push_plane(std::string_view plane, uint8_t* codes) {
  constexpr uint64_t kEach = 0x0101010101010101, kDiagonal = 0x8040201008040201, kCarry = 0x7f7f7f7f7f7f7f7f;
  for (size_t i = 0; i < plane.size(); ++i, codes += 8) {
    const uint64_t picked = uint64_t{static_cast<uint8_t>(plane[i])} * kEach & kDiagonal;  // bit k stays in byte k
    const uint64_t ones = (picked + kCarry) >> 7 & kEach;
    uint64_t word;
    std::memcpy(&word, codes, 8);
    word = word << 1 | ones;
    std::memcpy(codes, &word, 8);
  }
}

}  // namespace bl
