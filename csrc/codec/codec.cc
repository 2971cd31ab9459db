// Which coder reads and writes a part: one line a coding.
#include "codec.h"

#include <algorithm>
#include <cstring>

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
    default: return false;
  }
}

bool decode_planes(const std::vector<PartView>& parts, Grid grid, bool, int, uint8_t* codes) {
  for (const PartView& part : parts) {
    if (!bounded(part, grid.count())) return false;
    switch (part.coding) {
      case kRaw:
        if (!raw_plane(part.body, grid, codes)) return false;
        break;
      default: return false;
    }
  }
  return true;
}

bool decode_numbers(const PartView& part, Type type, int64_t count, const uint8_t*, uint8_t* out) {
  if (!bounded(part, count)) return false;
  switch (part.coding) {
    case kRaw:
      if (part.body.size() != static_cast<size_t>(count) * size_of(type)) return false;
      std::copy(part.body.begin(), part.body.end(), out);
      return true;
    default: return false;
  }
}

bool decode_text(const PartView& part, size_t length, std::string_view, std::string& out) {
  if (!bounded(part, static_cast<int64_t>(length))) return false;
  switch (part.coding) {
    case kRaw: out.assign(part.body); return out.size() == length;
    default: return false;
  }
}

}  // namespace bl
