// Planes work on 64 codes at once: the planes before say as masks which codes are of which class, and the next bits of a
// class's string go to the places of its mask.
#include <algorithm>
#include <cstring>

#include "bits.h"
#include "dense.h"
#include "fast.h"
#include "rans.h"

namespace bl {

namespace {

constexpr uint32_t kNear = 192;   // of 4096: so near to one half a probability is not worth coding
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

// The classes of the next plane.
struct Classes {
  const Rows& rows;
  const bool sign;
  const size_t number = rows.planes.size(), count = std::max<size_t>(number, 1);

  // What the bits of word `i` of the next plane are inverted by.
  uint64_t inverted(size_t i) const { return number == 0 || sign ? 0 : ~rows.planes[0][i]; }

  // For word `i`, the codes of each class: those whose distance from the middle has that many bits.
  void masks(size_t i, uint64_t* out) const {
    const uint64_t invert = inverted(i);
    uint64_t rest = rows.there(i);
    for (size_t k = 1; k < number; ++k) {
      const uint64_t set = rest & (rows.planes[k][i] ^ invert);
      out[number - k] = set;
      rest ^= set;
    }
    out[0] = rest;
  }
};

// The bits of a class.
struct Class {
  int64_t count = 0;
  uint32_t p = 0;
  size_t next = 0;
  Bytes bits;
};

template <class Machine>
void count_all(const Classes& classes, Class* out) {
  uint64_t masks[kMostPlanes];
  for (size_t i = 0; i < classes.rows.words(); ++i) {
    classes.masks(i, masks);
    for (size_t c = 0; c < classes.count; ++c) out[c].count += Machine::ones(masks[c]);
  }
}

template <class Machine>
void deposit_all(const Classes& classes, Class* in, std::vector<uint64_t>& row) {
  uint64_t masks[kMostPlanes];
  for (size_t i = 0; i < row.size(); ++i) {
    classes.masks(i, masks);
    uint64_t word = 0;
    for (size_t c = 0; c < classes.count; ++c) {
      word |= Machine::deposit(bits_at(in[c].bits.data(), in[c].next), masks[c]);
      in[c].next += static_cast<size_t>(Machine::ones(masks[c]));
    }
    row[i] = word ^ (classes.inverted(i) & classes.rows.there(i));
  }
}

struct Work {
  void (*count)(const Classes&, Class*);
  void (*deposit)(const Classes&, Class*, std::vector<uint64_t>&);
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

// Room for all bits of a class and for reads of nine bytes anywhere in it.
void reserve(Class& own) { own.bits.assign(static_cast<size_t>(own.count / 8 + 32), 0); }

bool take_raw(std::string_view body, size_t& at, Class& own) {
  const size_t bytes = static_cast<size_t>(dense_bytes(own.count, 1));
  if (body.size() - at < bytes || !ends_clean(body.substr(at, bytes), own.count, 1)) return false;
  reserve(own);
  std::memcpy(own.bits.data(), body.data() + at, bytes);
  at += bytes;
  return true;
}

bool take_coded(RansReader& reader, Class& own) {
  const Slots slots(nibble_frequencies(own.p));
  reserve(own);
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

}  // namespace

bool decode_fast_plane(std::string_view body, bool sign, Rows& rows, bool portable) {
  const Classes classes{rows, sign};
  if (rows.count < 1 || classes.number >= kMostPlanes) return false;
  const Work machine = work(portable);
  Class all[kMostPlanes];
  machine.count(classes, all);
  size_t at = 0;
  int64_t symbols = 0;
  for (Class& own : all) {
    if (own.count == 0) continue;
    if (body.size() - at < 2) return false;
    own.p = static_cast<uint8_t>(body[at]) | static_cast<uint32_t>(static_cast<uint8_t>(body[at + 1])) << 8;
    if (own.p && (own.p < kSure || own.p > kTotal - kSure)) return false;
    if (own.p) symbols += nibbles(own.count);
    at += 2;
  }
  for (Class& own : all) {
    if (own.count && !own.p && !take_raw(body, at, own)) return false;
  }
  RansReader reader;
  if (!reader.open(body, at, symbols)) return false;
  for (Class& own : all) {
    if (own.count && own.p && !take_coded(reader, own)) return false;
    if (own.bits.empty()) reserve(own);
  }
  if (!reader.close(at) || at != body.size()) return false;
  std::vector<uint64_t> row(rows.words());
  machine.deposit(classes, all, row);
  rows.planes.push_back(std::move(row));
  return true;
}

void encode_fast_plane(const uint8_t* codes, int64_t count, int bits, int number, bool sign, Bytes& out) {
  out.clear();
  Bytes strings[kMostPlanes];  // a byte for each bit
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t prefix = codes[i] >> (bits - number), below = number > 0 ? (1u << (number - 1)) - 1 : 0;
    const uint32_t invert = number > 0 && !sign && !(prefix >> (number - 1)) ? 1 : 0;
    uint32_t distance = (invert ? ~prefix : prefix) & below;
    size_t length = 0;
    for (; distance; distance >>= 1) ++length;
    strings[length].push_back((codes[i] >> (bits - 1 - number) & 1) ^ invert);
  }
  Bytes raw;
  std::vector<Run> runs;
  for (Bytes& own : strings) {
    if (own.empty()) continue;
    uint32_t p = share_of_ones(static_cast<uint64_t>(std::count(own.begin(), own.end(), 1)), own.size());
    if (p + kNear > kTotal / 2 && p < kTotal / 2 + kNear) {
      p = 0;
      BitWriter writer(raw);
      for (const uint8_t bit : own) writer.field(bit, 1);
      writer.close();
    } else {
      const int64_t size = static_cast<int64_t>(own.size());
      own.resize(static_cast<size_t>(4 * nibbles(size)));
      for (size_t i = 0; i < own.size(); i += 4) {
        own[i / 4] = static_cast<uint8_t>(own[i] | own[i + 1] << 1 | own[i + 2] << 2 | own[i + 3] << 3);
      }
      runs.push_back({own.data(), nibbles(size), nibble_frequencies(p)});
    }
    out.push_back(static_cast<uint8_t>(p));
    out.push_back(static_cast<uint8_t>(p >> 8));
  }
  out.insert(out.end(), raw.begin(), raw.end());
  encode_runs(runs, out);
}

}  // namespace bl
