#include "dense.h"

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

namespace {

template <class Word>
void unpack_words(std::string_view stream, int bits, bool is_signed, Word* out, const Word* end) {
  const uint32_t mask = (1u << bits) - 1, top = is_signed ? 1u << (bits - 1) : 0;
  uint64_t pending = 0;  // bits that were read and not used, and how many
  int have = 0;
  for (const char* next = stream.data(); out != end; ++out) {
    for (; have < bits; have += 8) pending |= uint64_t{static_cast<uint8_t>(*next++)} << have;
    const uint32_t field = static_cast<uint32_t>(pending) & mask;
    *out = static_cast<Word>((field ^ top) - top);  // the sign bit goes on upwards
    pending >>= bits;
    have -= bits;
  }
}

}  // namespace

std::vector<uint8_t> unpack(std::string_view stream, int64_t count, int bits, int width, bool is_signed) {
  std::vector<uint8_t> out(static_cast<size_t>(count * width));
  uint8_t *begin = out.data(), *end = begin + out.size();
  if (bits == 8 * width) {
    if (!out.empty()) std::memcpy(begin, stream.data(), out.size());
  } else if (width == 1) {
    unpack_words(stream, bits, is_signed, begin, end);
  } else if (width == 2) {
    unpack_words(stream, bits, is_signed, reinterpret_cast<uint16_t*>(begin), reinterpret_cast<uint16_t*>(end));
  } else {
    unpack_words(stream, bits, is_signed, reinterpret_cast<uint32_t*>(begin), reinterpret_cast<uint32_t*>(end));
  }
  return out;
}

std::vector<uint8_t> from_planes(const std::vector<std::string_view>& planes, int64_t count) {
  const size_t bytes = static_cast<size_t>(dense_bytes(count, 1));
  std::vector<uint8_t> out(8 * bytes);
  for (size_t i = 0; i < bytes; ++i) {
    uint64_t rows = 0;  // the last plane is the lowest byte
    for (const std::string_view plane : planes) rows = rows << 8 | static_cast<uint8_t>(plane[i]);
    const uint64_t codes = transposed(rows);
    std::memcpy(out.data() + 8 * i, &codes, 8);
  }
  out.resize(static_cast<size_t>(count));
  return out;
}

}  // namespace bl
