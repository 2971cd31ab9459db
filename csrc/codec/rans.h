// Static rANS (docs/coding.md, "Static coder"; src/bitladder/codec/rans.py is the definition): symbols of known frequencies.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "codec.h"

namespace bl {

constexpr int kTotalBits = 12;
constexpr uint32_t kTotal = 1u << kTotalBits;    // what the frequencies of a run sum to
constexpr uint32_t kMostFrequency = kTotal - 12;  // so that a symbol costs more than 8 / 2048 bit
constexpr uint32_t kSure = 24;                   // of 4096, the least probability of a bit
constexpr int kLanes = 8;                        // states that take turns; for fewer than kFew symbols there is one
constexpr int64_t kFew = 8192;

// Of symbol 0, 1, ...; at most 256 of them.
using Frequencies = std::vector<uint32_t>;

// Frequencies nearly in the proportion of `counts`, of which there are two at least and the sum is below 2^43.
Frequencies quantized(const std::vector<uint64_t>& counts);
void write_table(const Frequencies& frequencies, Bytes& out);
bool read_table(std::string_view body, size_t& at, int symbols, Frequencies& out);

// Bits of a class, four a symbol: their share of ones in 1/4096, and the frequencies that follow from one.
uint32_t share_of_ones(uint64_t ones, uint64_t count);
Frequencies nibble_frequencies(uint32_t p);

struct SymbolRun {
  const uint8_t* symbols;
  int64_t count;
  Frequencies frequencies;
};
void encode_runs(const std::vector<SymbolRun>& runs, Bytes& out);

// What a slot decodes to: frequency, place in its symbol's slots, symbol; and the symbols are counted from `first`.
struct Slots {
  explicit Slots(const Frequencies& frequencies, uint8_t first = 0);
  uint32_t of[kTotal];
};

// Decodes the runs of a stream, in order.
class RansReader {
 public:
  // At byte `at` of `body` begins a stream of so many symbols in all; false if it cannot.
  bool open(std::string_view body, size_t at, int64_t symbols);
  bool take(const Slots& slots, int64_t count, uint8_t* out);
  // Whether the states are where the encoder began; `at`: the byte after the stream.
  bool close(size_t& at) const;

 private:
  bool take_one(const Slots& slots, uint32_t& state, uint8_t& out);

  const uint8_t *begin_ = nullptr, *next_ = nullptr, *end_ = nullptr;
  int lanes_ = 0;
  uint32_t states_[kLanes] = {};
};

}  // namespace bl
