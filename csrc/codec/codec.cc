// Which coder reads and writes a part: one line a coding.
#include "codec.h"

#include <algorithm>
#include <cstring>

#include "best.h"
#include "dense.h"
#include "fast.h"
#include "rows.h"
#include "ternary.h"

namespace bl {

namespace {

bool raw_codes(std::string_view body, CodeGrid grid, CodeKind kind, int width, uint8_t* out) {
  if (static_cast<int64_t>(body.size()) != dense_bytes(grid.count(), kind.bits) || !ends_clean(body, grid.count(), kind.bits)) {
    return false;
  }
  const std::vector<uint8_t> codes = unpack(body, grid.count(), kind.bits, width, kind.low < 0);
  std::copy(codes.begin(), codes.end(), out);
  return true;
}

}  // namespace

bool is_coding_of(PartKind kind, int64_t coding) {
  switch (coding) {
    case kRaw:
    case kBest: return true;
    case kFast: return kind != PartKind::numbers;
    case kTernary:
    case kTrellis: return kind == PartKind::codes;
    default: return false;
  }
}

bool decode_codes(const PartView& part, CodeGrid grid, CodeKind kind, int width, uint8_t* out) {
  if (!bounded(part, grid.count())) return false;
  switch (part.coding) {
    case kRaw: return raw_codes(part.body, grid, kind, width, out);
    case kBest: return decode_best_codes(part.body, grid, kind, width, out);
    case kTrellis: return decode_trellis(part.body, grid, kind, width, out);
    case kFast: return decode_fast_codes(part.body, grid.count(), kind, width, out);
    case kTernary: return decode_ternary(part.body, grid.count(), kind, width, out);
    default: return false;
  }
}

void encode_codes(int coding, const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_codes(codes, grid, kind, out);
    case kTrellis: return encode_trellis(codes, grid, kind, out);
    case kFast: return encode_fast_codes(codes, grid.count(), kind, out);
    case kTernary: return encode_ternary(codes, grid.count(), kind, out);
    default: return;
  }
}

bool decode_planes(const std::vector<PartView>& parts, CodeGrid grid, bool sign, int known, uint8_t* codes) {
  if (known < 0 || known + parts.size() > kMostPlanes) return false;
  Prefix prefix(codes, grid.count());
  for (const PartView& part : parts) {
    if (!bounded(part, grid.count())) return false;
    switch (part.coding) {
      case kRaw:
        if (!append_raw(part.body, prefix.rows(known))) return false;
        break;
      case kFast:
        if (!decode_fast_plane(part.body, prefix.rows(known))) return false;
        break;
      case kBest:
        if (!decode_best_plane(part.body, grid, known, sign, prefix.codes())) return false;
        break;
      default: return false;
    }
    ++known;
  }
  prefix.codes();
  return true;
}

void encode_plane(int coding, const uint8_t* codes, CodeGrid grid, int bits, int number, bool sign, Bytes& out) {
  switch (coding) {
    case kBest: return encode_best_plane(codes, grid, bits, number, sign, out);
    case kFast: return encode_fast_plane(codes, grid.count(), bits, number, out);
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

}  // namespace bl
