// Which coder reads and writes a part: one line a coding.
#include "codec.h"

#include <algorithm>
#include <cstring>

#include "best.h"
#include "dense.h"

namespace bl {

namespace {

// Whether the bytes of a coded part may stand for `count` numbers.
bool bounded(const PartView& part, int64_t count) {
  return part.coding == kRaw || count <= kMostPerByte * static_cast<int64_t>(part.body.size());
}

bool raw_codes(std::string_view body, Grid grid, CodeKind kind, int width, uint8_t* out) {
  if (static_cast<int64_t>(body.size()) != dense_bytes(grid.count(), kind.bits) || !ends_clean(body, grid.count(), kind.bits)) {
    return false;
  }
  const std::vector<uint8_t> codes = unpack(body, grid.count(), kind.bits, width, kind.low < 0);
  std::copy(codes.begin(), codes.end(), out);
  return true;
}

bool raw_plane(std::string_view body, Grid grid, uint8_t* codes) {
  const int64_t count = grid.count();
  if (static_cast<int64_t>(body.size()) != dense_bytes(count, 1) || !ends_clean(body, count, 1)) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int bit = static_cast<uint8_t>(body[static_cast<size_t>(i / 8)]) >> (i % 8) & 1;
    codes[i] = static_cast<uint8_t>(codes[i] << 1 | bit);
  }
  return true;
}

}  // namespace

bool decode_codes(const PartView& part, Grid grid, CodeKind kind, int width, uint8_t* out) {
  if (!bounded(part, grid.count())) return false;
  switch (part.coding) {
    case kRaw: return raw_codes(part.body, grid, kind, width, out);
    case kBest: return decode_best_codes(part.body, grid, kind, width, out);
    case kTrellis: return decode_trellis(part.body, grid, kind, width, out);
    default: return false;
  }
}

void encode_codes(int coding, const int32_t* codes, Grid grid, CodeKind kind, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_codes(codes, grid, kind, out);
    case kTrellis: return encode_trellis(codes, grid, kind, out);
    default: return;
  }
}

bool decode_planes(const std::vector<PartView>& parts, Grid grid, bool sign, int known, uint8_t* codes) {
  for (const PartView& part : parts) {
    if (!bounded(part, grid.count())) return false;
    switch (part.coding) {
      case kRaw:
        if (!raw_plane(part.body, grid, codes)) return false;
        break;
      case kBest:
        if (!decode_best_plane(part.body, grid, known, sign, codes)) return false;
        break;
      default: return false;
    }
    ++known;
  }
  return true;
}

void encode_plane(int coding, const uint8_t* codes, Grid grid, int bits, int number, bool sign, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_plane(codes, grid, bits, number, sign, out);
    default: return;
  }
}

bool decode_numbers(const PartView& part, Type type, int64_t count, const uint8_t* before, uint8_t* out) {
  if (!bounded(part, count)) return false;
  switch (part.coding) {
    case kRaw:
      if (part.body.size() != static_cast<size_t>(count) * size_of(type)) return false;
      std::copy(part.body.begin(), part.body.end(), out);
      return true;
    case kBest: return decode_best_numbers(part.body, type, count, before, out);
    default: return false;
  }
}

void encode_numbers(int coding, Type type, const uint8_t* values, int64_t count, const uint8_t* before, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_numbers(type, values, count, before, out);
    default: return;
  }
}

bool decode_text(const PartView& part, size_t length, std::string_view before, std::string& out) {
  if (!bounded(part, static_cast<int64_t>(length))) return false;
  switch (part.coding) {
    case kRaw: out.assign(part.body); return out.size() == length;
    case kBest: return decode_best_text(part.body, length, before, out);
    default: return false;
  }
}

void encode_text(int coding, std::string_view text, std::string_view before, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_text(text, before, out);
    default: return;
  }
}

}  // namespace bl
