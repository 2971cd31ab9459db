// Planes work on 64 codes at once: masks say which codes are of which level, and the next bits of a level's string go to the
// places of its mask.
#include <algorithm>
#include <cstring>

#include "bits.h"
#include "dense.h"
#include "fast.h"
#include "rans.h"

namespace bl {

namespace {

constexpr size_t kLevels = 8;
constexpr uint32_t kProbability[kLevels] = {0, 24, 128, 311, 565, 879, 1241, 1636};    // of a one, in 1/4096; 0: as it is
constexpr uint32_t kBounds[kLevels - 1] = {66, 210, 430, 715, 1056, 1436, 1842};  // shares of ones between the levels
constexpr uint8_t kInverted = 8;  // in a level: ones and zeros change places
constexpr int64_t kChunk = 4096;  // symbols at once, a multiple of the lanes

struct Portable {
  static int ones(uint64_t x) { return __builtin_popcountll(x); }
  // The low bits of `bits`, one to each place that is set in `mask`, lowest first.
  static uint64_t deposit(uint64_t bits, uint64_t mask) {
    uint64_t out = 0;
    for (; mask; mask &= mask - 1, bits >>= 1) out |= mask & -mask & -(bits & 1);
    return out;
  }
};

#ifdef __x86_64__
// In assembly, for these are compiled for every x86-64 and chosen at run time.
struct Bmi2 {
  static int ones(uint64_t x) {
    uint64_t count;
    asm("popcntq %1, %0" : "=r"(count) : "r"(x) : "cc");
    return static_cast<int>(count);
  }
  static uint64_t deposit(uint64_t bits, uint64_t mask) {
    uint64_t out;
    asm("pdepq %2, %1, %0" : "=r"(out) : "r"(bits), "r"(mask));
    return out;
  }
};
#endif

// By word of the next plane: the codes of each level, and those whose bit is inverted.
struct Masks {
  uint64_t of[kLevels], inverted;
};

constexpr size_t kBlock = 8;  // words at once, for vectors of any length
struct Block {
  uint64_t word[kBlock];
};

// The codes of a block with each prefix, from those `there`.
void split(const Rows& rows, size_t first, const Block& there, Block* with) {
  with[0] = there;
  for (size_t k = 0; k < rows.planes.size(); ++k) {
    Block plane{};
    std::copy_n(rows.planes[k].begin() + static_cast<std::ptrdiff_t>(first), std::min(kBlock, rows.words() - first), plane.word);
    for (size_t v = size_t{1} << k; v-- > 0;) {
      const Block both = with[v];
      for (size_t j = 0; j < kBlock; ++j) with[2 * v].word[j] = both.word[j] & ~plane.word[j];
      for (size_t j = 0; j < kBlock; ++j) with[2 * v + 1].word[j] = both.word[j] & plane.word[j];
    }
  }
}

// `levels`: one for each value that the planes of `rows` can have.
std::vector<Masks> masks_of(const Rows& rows, const uint8_t* levels) {
  std::vector<Masks> out(rows.words());
  const size_t prefixes = size_t{1} << rows.planes.size();
  Block with[size_t{1} << (kMostPlanes - 1)];
  for (size_t first = 0; first < out.size(); first += kBlock) {
    const size_t here = std::min(kBlock, out.size() - first);
    Block there{}, bits[4] = {};  // bit b of the levels of the codes
    for (size_t j = 0; j < here; ++j) there.word[j] = rows.there(first + j);
    split(rows, first, there, with);
    for (size_t v = 0; v < prefixes; ++v) {
      for (int b = 0; b < 4; ++b) {
        if (!(levels[v] >> b & 1)) continue;
        for (size_t j = 0; j < kBlock; ++j) bits[b].word[j] |= with[v].word[j];
      }
    }
    for (size_t j = 0; j < here; ++j) {
      Masks& masks = out[first + j];
      for (size_t k = 0; k < kLevels; ++k) {
        masks.of[k] = there.word[j];
        for (size_t b = 0; b < 3; ++b) masks.of[k] &= k >> b & 1 ? bits[b].word[j] : ~bits[b].word[j];
      }
      masks.inverted = bits[3].word[j];
    }
  }
  return out;
}

// The bits of a level.
struct Level {
  int64_t count = 0;
  size_t next = 0;
  Bytes bits;
};

template <class Machine>
void count_all(const std::vector<Masks>& masks, Level* out) {
  for (const Masks& word : masks)
    for (size_t k = 0; k < kLevels; ++k) out[k].count += Machine::ones(word.of[k]);
}

template <class Machine>
void deposit_all(const std::vector<Masks>& masks, Level* in, std::vector<uint64_t>& row) {
  for (size_t i = 0; i < row.size(); ++i) {
    uint64_t word = masks[i].inverted;
    for (size_t k = 0; k < kLevels; ++k) {
      const uint64_t mask = masks[i].of[k];
      word ^= Machine::deposit(bits_at(in[k].bits.data(), in[k].next), mask);
      in[k].next += static_cast<size_t>(Machine::ones(mask));
    }
    row[i] = word;
  }
}

struct Work {
  void (*count)(const std::vector<Masks>&, Level*);
  void (*deposit)(const std::vector<Masks>&, Level*, std::vector<uint64_t>&);
};

Work work(bool portable) {
#ifdef __x86_64__
  if (!portable && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")) {
    return {count_all<Bmi2>, deposit_all<Bmi2>};
  }
#else
  (void)portable;
#endif
  return {count_all<Portable>, deposit_all<Portable>};
}

int64_t nibbles(int64_t bits) { return (bits + 3) / 4; }

// Room for all bits of a level and for reads of nine bytes anywhere in it.
void reserve(Level& own) { own.bits.assign(static_cast<size_t>(own.count / 8 + 32), 0); }

bool take_raw(std::string_view body, size_t& at, Level& own) {
  const size_t bytes = static_cast<size_t>(dense_bytes(own.count, 1));
  if (body.size() - at < bytes || !ends_clean(body.substr(at, bytes), own.count, 1)) return false;
  reserve(own);
  if (bytes) std::memcpy(own.bits.data(), body.data() + at, bytes);
  at += bytes;
  return true;
}

bool take_coded(RansReader& reader, uint32_t p, Level& own) {
  reserve(own);
  if (own.count == 0) return true;
  const Slots slots(nibble_frequencies(p));
  uint8_t symbols[kChunk + 1];
  uint8_t* out = own.bits.data();
  for (int64_t done = 0, total = nibbles(own.count); done < total; done += kChunk) {
    const int64_t here = std::min(kChunk, total - done);
    if (!reader.take(slots, here, symbols)) return false;
    symbols[here] = 0;
    for (int64_t i = 0; i < here; i += 2) *out++ = static_cast<uint8_t>(symbols[i] | symbols[i + 1] << 4);
  }
  return own.count % 8 == 0 || own.bits[static_cast<size_t>(own.count / 8)] >> own.count % 8 == 0;
}

uint8_t level_for(uint64_t ones, uint64_t count) {
  const uint32_t share = count ? share_of_ones(ones, count) : kTotal / 2, rare = std::min(share, kTotal - share);
  const auto above = std::upper_bound(kBounds, kBounds + kLevels - 1, rare) - kBounds;
  const auto level = static_cast<uint8_t>((above + 1) % static_cast<int>(kLevels));
  return level && 2 * share > kTotal ? level | kInverted : level;
}

}  // namespace

bool decode_fast_plane(std::string_view body, Rows& rows, bool portable) {
  const size_t number = rows.planes.size(), prefixes = size_t{1} << number;
  size_t at = static_cast<size_t>(dense_bytes(static_cast<int64_t>(prefixes), 4));
  if (rows.count < 1 || number >= kMostPlanes || body.size() < at) return false;
  if (!ends_clean(body.substr(0, at), static_cast<int64_t>(prefixes), 4)) return false;
  const std::vector<uint8_t> levels = unpack(body.substr(0, at), static_cast<int64_t>(prefixes), 4, 1, false);
  if (std::find(levels.begin(), levels.end(), kInverted) != levels.end()) return false;
  const std::vector<Masks> masks = masks_of(rows, levels.data());
  const Work machine = work(portable);
  Level all[kLevels];
  machine.count(masks, all);
  int64_t symbols = 0;
  for (size_t k = 1; k < kLevels; ++k) symbols += nibbles(all[k].count);
  RansReader reader;
  if (!take_raw(body, at, all[0]) || !reader.open(body, at, symbols)) return false;
  for (size_t k = 1; k < kLevels; ++k) {
    if (!take_coded(reader, kProbability[k], all[k])) return false;
  }
  if (!reader.close(at) || at != body.size()) return false;
  std::vector<uint64_t> row(rows.words());
  machine.deposit(masks, all, row);
  rows.planes.push_back(std::move(row));
  return true;
}

void encode_fast_plane(const uint8_t* codes, int64_t count, int bits, int number, Bytes& out) {
  out.clear();
  if (count < 1) return;
  const auto bit_of = [=](uint8_t code) { return code >> (bits - 1 - number) & 1; };
  std::vector<uint64_t> counts(size_t{1} << number), ones(counts);
  for (int64_t i = 0; i < count; ++i) {
    const size_t prefix = codes[i] >> (bits - number);
    ++counts[prefix];
    ones[prefix] += static_cast<uint64_t>(bit_of(codes[i]));
  }
  Bytes levels(counts.size()), strings[kLevels];  // a byte for each bit
  for (size_t v = 0; v < levels.size(); ++v) levels[v] = level_for(ones[v], counts[v]);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t level = levels[codes[i] >> (bits - number)];
    strings[level % kInverted].push_back(static_cast<uint8_t>(bit_of(codes[i]) ^ level / kInverted));
  }
  BitWriter writer(out);
  for (const uint8_t level : levels) writer.field(level, 4);
  writer.close();
  BitWriter raw(out);
  for (const uint8_t bit : strings[0]) raw.field(bit, 1);
  raw.close();
  std::vector<SymbolRun> runs;
  for (size_t k = 1; k < kLevels; ++k) {
    Bytes& own = strings[k];
    const int64_t size = nibbles(static_cast<int64_t>(own.size()));
    own.resize(static_cast<size_t>(4 * size));
    for (size_t i = 0; i < own.size(); i += 4) {
      own[i / 4] = static_cast<uint8_t>(own[i] | own[i + 1] << 1 | own[i + 2] << 2 | own[i + 3] << 3);
    }
    runs.push_back({own.data(), size, nibble_frequencies(kProbability[k])});
  }
  encode_runs(runs, out);
}

}  // namespace bl
