#include <algorithm>
#include <cstring>

#include "bits.h"
#include "dense.h"
#include "fast.h"
#include "rans.h"

namespace bl {

namespace {

constexpr size_t kHead = 6;        // offset, shift, last symbol
constexpr int64_t kChunk = 4096;  // symbols at once, a multiple of the lanes

int64_t offset_of(const uint8_t* head) {
  int64_t offset = 0;
  for (int k = 0; k < 4; ++k) offset |= int64_t{head[k]} << 8 * k;
  return offset;
}

template <class Code>
bool wide(RansReader& reader, const Slots& slots, const uint8_t* low_bits, int shift, int64_t least, CodeKind kind,
          int64_t count, uint8_t* out) {
  uint8_t symbols[kChunk];
  size_t at = 0;  // in `low_bits`
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t here = std::min(kChunk, count - done);
    if (!reader.take(slots, here, symbols)) return false;
    for (int64_t i = 0; i < here; ++i, at += static_cast<size_t>(shift)) {
      const int64_t below = static_cast<int64_t>(bits_at(low_bits, at) & ((uint64_t{1} << shift) - 1));
      const int64_t code = least + (int64_t{symbols[i]} << shift | below);
      if (code > kind.high) return false;
      const Code stored = static_cast<Code>(code);
      std::memcpy(out + static_cast<size_t>(done + i) * sizeof(Code), &stored, sizeof(Code));
    }
  }
  return true;
}

}  // namespace

bool decode_fast_codes(std::string_view body, int64_t count, CodeKind kind, int width, uint8_t* out) {
  if (count < 1 || body.size() < kHead) return false;
  const uint8_t* const head = reinterpret_cast<const uint8_t*>(body.data());
  const int64_t least = kind.low + offset_of(head);
  const int shift = head[4], last = head[5];
  if (shift > kind.bits || least + (int64_t{last} << shift) > kind.high) return false;
  size_t at = kHead;
  Frequencies frequencies;
  if (!read_table(body, at, last + 1, frequencies)) return false;
  const size_t low_bytes = static_cast<size_t>(dense_bytes(count, shift));
  if (body.size() - at < low_bytes || (shift && !ends_clean(body.substr(at, low_bytes), count, shift))) return false;
  RansReader reader;
  if (!reader.open(body, at + low_bytes, count)) return false;
  bool good = false;
  if (shift == 0 && width == 1) {
    good = reader.take(Slots(frequencies, static_cast<uint8_t>(least)), count, out);
  } else {
    Bytes low_bits(body.begin() + static_cast<std::ptrdiff_t>(at), body.begin() + static_cast<std::ptrdiff_t>(at + low_bytes));
    low_bits.resize(low_bytes + 16);
    const auto decode = width == 1 ? wide<uint8_t> : width == 2 ? wide<uint16_t> : wide<uint32_t>;
    good = decode(reader, Slots(frequencies), low_bits.data(), shift, least, kind, count, out);
  }
  return good && reader.close(at) && at == body.size();
}

void encode_fast_codes(const int32_t* codes, int64_t count, CodeKind kind, Bytes& out) {
  out.clear();
  if (count < 1 || kind.low == kind.high) return;
  const auto [low, high] = std::minmax_element(codes, codes + count);
  const int64_t least = std::min<int64_t>(*low, int64_t{kind.high} - 1), offset = least - kind.low;
  int shift = 0;
  while ((*high - least) >> shift > 255) ++shift;
  std::vector<uint64_t> counts(std::max<size_t>(2, static_cast<size_t>((*high - least) >> shift) + 1));
  Bytes symbols(static_cast<size_t>(count)), low_bits;
  BitWriter writer(low_bits);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t value = codes[i] - least;
    ++counts[symbols[static_cast<size_t>(i)] = static_cast<uint8_t>(value >> shift)];
    if (shift) writer.field(static_cast<uint32_t>(value & ((int64_t{1} << shift) - 1)), shift);
  }
  writer.close();
  const Frequencies frequencies = quantized(counts);
  for (int k = 0; k < 4; ++k) out.push_back(static_cast<uint8_t>(offset >> 8 * k));
  out.push_back(static_cast<uint8_t>(shift));
  out.push_back(static_cast<uint8_t>(counts.size() - 1));
  write_table(frequencies, out);
  out.insert(out.end(), low_bits.begin(), low_bits.end());
  encode_runs({{symbols.data(), count, frequencies}}, out);
}

}  // namespace bl
