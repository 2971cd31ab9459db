#include "ternary.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "bits.h"
#include "dense.h"
#include "rans.h"

namespace bl {

namespace {

enum Way : int { kStored, kRuns, kPairs, kCoded };
constexpr int kMostRice = 7;      // so that a bit stands for 256 weights at most
constexpr size_t kSpare = 16;     // zero bytes after a string of bits, so that words can be read anywhere in it
constexpr int64_t kChunk = 4096;  // symbols at once, a multiple of the lanes

// The items that are not zero, by their three bits; and those three bits plus one by item, zero where there are none.
constexpr std::array<uint8_t, 8> kItems{0b0001, 0b0011, 0b0100, 0b0101, 0b0111, 0b1100, 0b1101, 0b1111};
constexpr std::array<uint8_t, 16> kValues = [] {
  std::array<uint8_t, 16> out{};
  for (size_t v = 0; v < 8; ++v) out[kItems[v]] = static_cast<uint8_t>(v + 1);
  return out;
}();

// The two weights of an item, the first the low byte; item 0 is that of a flag that is not set.
constexpr std::array<uint16_t, 9> kWeights = [] {
  constexpr uint8_t weight[4] = {0, 1, 0, 0xff};
  std::array<uint16_t, 9> out{};
  for (size_t v = 0; v < 8; ++v) out[v + 1] = static_cast<uint16_t>(weight[kItems[v] >> 2] | weight[kItems[v] & 3] << 8);
  return out;
}();

size_t bytes_for(int64_t bits) { return static_cast<size_t>((bits + 7) / 8); }

bool bit(const Bytes& bits, int64_t i) { return bits[static_cast<size_t>(i / 8)] >> i % 8 & 1; }
void set(Bytes& bits, int64_t i) { bits[static_cast<size_t>(i / 8)] |= static_cast<uint8_t>(1 << i % 8); }

int64_t ones(const Bytes& bits) {
  int64_t count = 0;
  for (size_t i = 0; i + 8 <= bits.size(); i += 8) count += __builtin_popcountll(word_at(bits.data() + i));
  return count;
}

// ------------------------------------------------------------------------------------------------ strings of bits, read

// A string of `count` bits that is stored as it is, with room after it.
bool read_stored(std::string_view body, size_t& at, int64_t count, Bytes& out) {
  const size_t bytes = bytes_for(count);
  if (body.size() - at < bytes || !ends_clean(body.substr(at, bytes), count, 1)) return false;
  out.assign((bytes + kSpare + 7) / 8 * 8, 0);
  if (bytes) std::memcpy(out.data(), body.data() + at, bytes);
  at += bytes;
  return true;
}

bool read_runs(std::string_view body, size_t& at, int64_t count, Bytes& out) {
  if (at >= body.size() || static_cast<uint8_t>(body[at]) > kMostRice) return false;
  const int k = body[at];
  BitReader reader(body, at + 1);
  out.assign((bytes_for(count) + kSpare + 7) / 8 * 8, 0);
  for (int64_t place = 0; place < count; ++place) {
    int64_t high = 0;
    uint32_t low = 0;
    if (!reader.unary(count, high) || !reader.field(k, low)) return false;
    place += (high << k) + low;
    if (place > count) return false;
    if (place < count) set(out, place);
  }
  return reader.close(at);
}

bool read_pairs(std::string_view body, size_t& at, int64_t count, Bytes& out) {
  Bytes some, two;
  const int64_t halves = (count + 1) / 2;
  if (!read_stored(body, at, halves, some) || !read_stored(body, at, 2 * ones(some), two)) return false;
  out.assign((bytes_for(count) + kSpare + 7) / 8 * 8, 0);
  size_t next = 0;
  for (int64_t i = 0; i < halves; ++i) {
    if (!bit(some, i)) continue;
    const uint8_t pair = two[next / 8] >> next % 8 & 3;
    if (pair == 0) return false;
    out[static_cast<size_t>(i / 4)] |= static_cast<uint8_t>(pair << 2 * (i % 4));
    next += 2;
  }
  return !bit(out, count);
}

// Symbols of `width` bits each become one string.
bool read_symbols(RansReader& reader, const Slots& slots, int64_t count, int width, Bytes& out) {
  uint8_t symbols[kChunk] = {};
  out.assign((bytes_for(count * width) + kSpare + 7) / 8 * 8, 0);
  uint8_t* next = out.data();
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t here = std::min(kChunk, count - done);
    if (!reader.take(slots, here, symbols)) return false;
    std::fill_n(symbols + here, -here & 7, uint8_t{0});
    for (int64_t i = 0; i < here; i += 8, next += width) {
      uint64_t eight = 0;
      for (int k = 7; k >= 0; --k) eight = eight << width | symbols[i + k];
      std::memcpy(next, &eight, 8);
    }
  }
  return true;
}

bool read_coded_flags(std::string_view body, size_t& at, int64_t count, Bytes& out) {
  if (body.size() - at < 2) return false;
  const uint32_t p = static_cast<uint8_t>(body[at]) | static_cast<uint32_t>(static_cast<uint8_t>(body[at + 1])) << 8;
  if (p < kSure || p > kTotal - kSure) return false;
  const int64_t symbols = (count + 3) / 4;
  RansReader reader;
  if (!reader.open(body, at + 2, symbols) || !read_symbols(reader, Slots(nibble_frequencies(p)), symbols, 4, out)) return false;
  for (int64_t i = count; i < 4 * symbols; ++i) {
    if (bit(out, i)) return false;
  }
  return reader.close(at);
}

bool read_flags(int way, std::string_view body, size_t& at, int64_t count, Bytes& out) {
  switch (way) {
    case kStored: return read_stored(body, at, count, out);
    case kRuns: return read_runs(body, at, count, out);
    case kPairs: return read_pairs(body, at, count, out);
    default: return read_coded_flags(body, at, count, out);
  }
}

bool read_values(int way, std::string_view body, size_t& at, int64_t count, Bytes& out) {
  if (way == kStored) return read_stored(body, at, 3 * count, out);
  if (way != kCoded || count == 0) return false;
  Frequencies frequencies;
  RansReader reader;
  return read_table(body, at, 8, frequencies) && reader.open(body, at, count) &&
         read_symbols(reader, Slots(frequencies), count, 3, out) && reader.close(at);
}

// Eight items from eight flags and the values from bit `at` on.
size_t expand(uint32_t flags, const uint8_t* values, size_t at, uint8_t* out) {
  uint64_t next = word_at(values + at / 8) >> at % 8;
  for (int k = 0; k < 8; ++k, flags >>= 1) {
    const uint32_t set = flags & 1;
    const uint16_t two = kWeights[((next & 7) + 1) & -set];
    std::memcpy(out + 2 * k, &two, 2);
    next >>= 3 * set;
    at += 3 * set;
  }
  return at;
}

// All weights, one byte each; false if one is set after the last.
bool expand_all(const Bytes& flags, const Bytes& values, int64_t count, uint8_t* out) {
  size_t at = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const uint8_t eight = flags[static_cast<size_t>(i / 16)];
    if (i + 16 <= count) {
      at = expand(eight, values.data(), at, out + i);
      continue;
    }
    uint8_t last[16];
    expand(eight, values.data(), at, last);
    std::memcpy(out + i, last, static_cast<size_t>(count - i));
    if (count % 2 && last[count - i]) return false;
  }
  return true;
}

// ----------------------------------------------------------------------------------------------- strings of bits, written

// Strings of flags, one byte a flag.
Bytes stored(const Bytes& bits, int width) {
  Bytes out;
  BitWriter writer(out);
  for (const uint8_t value : bits) writer.field(value, width);
  writer.close();
  return out;
}

Bytes runs(const Bytes& flags) {
  std::vector<int64_t> lengths;
  int64_t run = 0;
  for (const uint8_t flag : flags) {
    if (flag) lengths.push_back(run);
    run = flag ? 0 : run + 1;
  }
  if (run) lengths.push_back(run);
  int best = 0;
  int64_t least = INT64_MAX;
  for (int k = 0; k <= kMostRice; ++k) {
    int64_t bits = 0;
    for (const int64_t length : lengths) bits += (length >> k) + 1 + k;
    if (bits < least) least = bits, best = k;
  }
  Bytes out{static_cast<uint8_t>(best)};
  BitWriter writer(out);
  for (const int64_t length : lengths) {
    writer.unary(length >> best);
    writer.field(static_cast<uint32_t>(length & ((1 << best) - 1)), best);
  }
  writer.close();
  return out;
}

Bytes pairs(const Bytes& flags) {
  Bytes some, two;
  for (size_t i = 0; i < flags.size(); i += 2) {
    const uint8_t second = i + 1 < flags.size() ? flags[i + 1] : 0;
    const uint8_t pair = static_cast<uint8_t>(flags[i] | second << 1);
    some.push_back(pair != 0);
    if (pair) two.push_back(pair);
  }
  Bytes out = stored(some, 1);
  const Bytes rest = stored(two, 2);
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

Bytes coded_flags(Bytes flags) {
  const uint32_t p = share_of_ones(static_cast<uint64_t>(std::count(flags.begin(), flags.end(), 1)), flags.size());
  flags.resize((flags.size() + 3) / 4 * 4);
  for (size_t i = 0; i < flags.size(); i += 4) {
    flags[i / 4] = static_cast<uint8_t>(flags[i] | flags[i + 1] << 1 | flags[i + 2] << 2 | flags[i + 3] << 3);
  }
  Bytes out{static_cast<uint8_t>(p), static_cast<uint8_t>(p >> 8)};
  encode_runs({{flags.data(), static_cast<int64_t>(flags.size() / 4), nibble_frequencies(p)}}, out);
  return out;
}

Bytes coded_values(const Bytes& values) {
  std::vector<uint64_t> counts(8);
  for (const uint8_t value : values) ++counts[value];
  const Frequencies frequencies = quantized(counts);
  Bytes out;
  write_table(frequencies, out);
  encode_runs({{values.data(), static_cast<int64_t>(values.size()), frequencies}}, out);
  return out;
}

}  // namespace

bool decode_ternary(std::string_view body, int64_t count, CodeKind kind, int width, uint8_t* out) {
  if (count < 1 || kind.low < -1 || kind.high > 1 || body.empty() || static_cast<uint8_t>(body[0]) >> 4) return false;
  size_t at = 1;
  Bytes flags, values;
  if (!read_flags(body[0] & 3, body, at, (count + 1) / 2, flags)) return false;
  if (!read_values(body[0] >> 2, body, at, ones(flags), values) || at != body.size()) return false;
  Bytes wide;
  if (width > 1) wide.resize(static_cast<size_t>(count));
  uint8_t* const weights = width > 1 ? wide.data() : out;
  if (!expand_all(flags, values, count, weights)) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int8_t weight = static_cast<int8_t>(weights[i]);
    if (weight < kind.low || weight > kind.high) return false;
    for (int k = 0; width > 1 && k < width; ++k) out[i * width + k] = static_cast<uint8_t>(k ? weight >> 7 : weight);
  }
  return true;
}

void encode_ternary(const int32_t* codes, int64_t count, CodeKind kind, Bytes& out) {
  out.clear();
  if (count < 1 || kind.low < -1 || kind.high > 1) return;
  if (std::any_of(codes, codes + count, [](int32_t code) { return code < -1 || code > 1; })) return;
  Bytes flags, values;
  for (int64_t i = 0; i < count; i += 2) {
    const int32_t second = i + 1 < count ? codes[i + 1] & 3 : 0;
    const uint8_t value = kValues[static_cast<size_t>((codes[i] & 3) << 2 | second)];
    flags.push_back(value != 0);
    if (value) values.push_back(static_cast<uint8_t>(value - 1));
  }
  const Bytes ways[] = {stored(flags, 1), runs(flags), pairs(flags), coded_flags(flags)};
  const Bytes *best = std::min_element(ways, ways + 4, [](const Bytes& a, const Bytes& b) { return a.size() < b.size(); });
  const Bytes as_they_are = stored(values, 3), coded = values.empty() ? Bytes{} : coded_values(values);
  const bool shorter = coded.size() < as_they_are.size();
  const Bytes& rest = shorter ? coded : as_they_are;
  out.push_back(static_cast<uint8_t>((best - ways) | (shorter ? kCoded : kStored) << 2));
  out.insert(out.end(), best->begin(), best->end());
  out.insert(out.end(), rest.begin(), rest.end());
}

}  // namespace bl
