#include "rans.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "bits.h"

namespace bl {

namespace {

constexpr uint32_t kStart = 1u << 16;

int lanes_for(int64_t symbols) { return symbols >= kFew ? kLanes : symbols > 0 ? 1 : 0; }

int length_of(uint32_t value) { return value ? 32 - __builtin_clz(value) : 0; }

template <class Word>
void put(Bytes& out, Word word) {
  for (size_t k = 0; k < sizeof(Word); ++k) out.push_back(static_cast<uint8_t>(word >> 8 * k));
}

template <class Word>
Word get(const uint8_t* data) {
  Word word = 0;
  for (size_t k = 0; k < sizeof(Word); ++k) word = static_cast<Word>(word | Word{data[k]} << 8 * k);
  return word;
}

}  // namespace

Frequencies quantized(const std::vector<uint64_t>& counts) {
  const uint64_t total = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  Frequencies out(counts.size());
  for (size_t s = 0; s < out.size(); ++s)
    out[s] = counts[s] ? static_cast<uint32_t>(std::max<uint64_t>(1, counts[s] * kTotal / total)) : 0;
  uint32_t sum = std::accumulate(out.begin(), out.end(), 0u);
  for (; sum < kTotal; ++sum) {  // at most 256 times
    size_t best = 0;
    uint64_t most = 0;
    for (size_t s = 0; s < out.size(); ++s) {
      if (!counts[s]) continue;
      const uint64_t gain = (counts[s] << 20) / (2 * out[s] + 1);
      if (gain > most) most = gain, best = s;
    }
    ++out[best];
  }
  for (; sum > kTotal; --sum) {
    size_t best = 0;
    uint64_t least = ~uint64_t{0};
    for (size_t s = 0; s < out.size(); ++s) {
      if (out[s] < 2) continue;
      const uint64_t cost = (counts[s] << 20) / (2 * out[s] - 1);
      if (cost < least) least = cost, best = s;
    }
    --out[best];
  }
  const auto first = std::max_element(out.begin(), out.end());
  if (*first > kMostFrequency) {
    auto second = first == out.begin() ? first + 1 : out.begin();
    for (auto other = second; other != out.end(); ++other)
      if (other != first && *other > *second) second = other;
    *second += *first - kMostFrequency;
    *first = kMostFrequency;
  }
  return out;
}

void write_table(const Frequencies& frequencies, Bytes& out) {
  BitWriter writer(out);
  int before = 0;
  for (const uint32_t frequency : frequencies) {
    const int length = length_of(frequency), differs = length - before;
    writer.unary(differs >= 0 ? 2 * differs : -2 * differs - 1);
    if (length > 1) writer.field(frequency & ((1u << (length - 1)) - 1), length - 1);
    before = length;
  }
  writer.close();
}

bool read_table(std::string_view body, size_t& at, int symbols, Frequencies& out) {
  BitReader reader(body, at);
  out.assign(static_cast<size_t>(symbols), 0);
  int64_t length = 0;
  uint32_t sum = 0;
  for (uint32_t& frequency : out) {
    int64_t differs = 0;
    if (!reader.unary(2 * kTotalBits, differs)) return false;
    length += differs & 1 ? -((differs + 1) >> 1) : differs >> 1;
    if (length < 0 || length > kTotalBits) return false;
    if (length > 0) {
      uint32_t below = 0;
      if (!reader.field(static_cast<int>(length) - 1, below)) return false;
      frequency = below | 1u << (length - 1);
    }
    if (frequency > kMostFrequency) return false;
    sum += frequency;
  }
  return sum == kTotal && reader.close(at);
}

uint32_t share_of_ones(uint64_t ones, uint64_t count) {
  const uint64_t p = (2 * kTotal * ones + count) / (2 * count);
  return static_cast<uint32_t>(std::min<uint64_t>(std::max<uint64_t>(p, kSure), kTotal - kSure));
}

Frequencies nibble_frequencies(uint32_t p) {
  Frequencies out(16);
  uint64_t by_ones[5];
  for (int ones = 0; ones <= 4; ++ones) {
    uint64_t product = 1;
    for (int k = 0; k < 4; ++k) product *= k < ones ? p : kTotal - p;
    by_ones[ones] = std::max<uint64_t>(1, product >> 3 * kTotalBits);
  }
  uint32_t sum = 0;
  for (uint32_t nibble = 0; nibble < 16; ++nibble) {
    const uint32_t ones = (nibble & 1) + (nibble >> 1 & 1) + (nibble >> 2 & 1) + (nibble >> 3);
    sum += out[nibble] = static_cast<uint32_t>(by_ones[ones]);
  }
  out[2 * p > kTotal ? 15 : 0] += kTotal - sum;
  return out;
}

void encode_runs(const std::vector<SymbolRun>& runs, Bytes& out) {
  int64_t total = 0;
  for (const SymbolRun& run : runs) total += run.count;
  const int lanes = lanes_for(total);
  uint32_t states[kLanes];
  std::fill_n(states, kLanes, kStart);
  std::vector<uint16_t> words;
  for (size_t r = runs.size(); r-- > 0;) {
    const SymbolRun& run = runs[r];
    std::vector<uint32_t> starts(run.frequencies.size());
    std::exclusive_scan(run.frequencies.begin(), run.frequencies.end(), starts.begin(), 0u);
    for (int64_t i = run.count; i-- > 0;) {
      const size_t s = run.symbols[i];
      const uint32_t f = run.frequencies[s];
      uint32_t& x = states[i % lanes];
      if (x >= uint64_t{f} << (32 - kTotalBits)) {
        words.push_back(static_cast<uint16_t>(x));
        x >>= 16;
      }
      x = (x / f << kTotalBits) + starts[s] + x % f;
    }
  }
  for (int lane = 0; lane < lanes; ++lane) put(out, states[lane]);
  for (size_t i = words.size(); i-- > 0;) put(out, words[i]);
}

Slots::Slots(const Frequencies& frequencies, uint8_t first) {
  uint32_t* slot = of;
  for (size_t s = 0; s < frequencies.size(); ++s) {
    const uint32_t f = frequencies[s], symbol = static_cast<uint8_t>(first + s);
    for (uint32_t place = 0; place < f; ++place) *slot++ = f << 20 | place << 8 | symbol;
  }
}

bool RansReader::open(std::string_view body, size_t at, int64_t symbols) {
  lanes_ = lanes_for(symbols);
  if (at > body.size() || body.size() - at < 4 * static_cast<size_t>(lanes_)) return false;
  begin_ = reinterpret_cast<const uint8_t*>(body.data());
  next_ = begin_ + at;
  end_ = begin_ + body.size();
  for (int lane = 0; lane < lanes_; ++lane, next_ += 4) {
    states_[lane] = get<uint32_t>(next_);
    if (states_[lane] < kStart) return false;
  }
  return true;
}

bool RansReader::take_one(const Slots& slots, uint32_t& state, uint8_t& out) {
  const uint32_t slot = slots.of[state % kTotal];
  state = (slot >> 20) * (state >> kTotalBits) + (slot >> 8) % kTotal;
  out = static_cast<uint8_t>(slot);
  if (state >= kStart) return true;
  if (end_ - next_ < 2) return false;
  state = state << 16 | get<uint16_t>(next_);
  next_ += 2;
  return true;
}

bool RansReader::take(const Slots& slots, int64_t count, uint8_t* out) {
  int64_t i = 0;
  if (lanes_ == kLanes) {
    uint32_t x[kLanes];
    std::copy_n(states_, kLanes, x);
    const uint8_t* next = next_;
    // No branch hangs on the data: a word is read whether it is used or not, so a round of them must be there.
    for (; i + kLanes <= count && end_ - next >= 2 * kLanes; i += kLanes) {
#pragma GCC unroll 8
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t slot = slots.of[x[lane] % kTotal];
        const uint32_t state = (slot >> 20) * (x[lane] >> kTotalBits) + (slot >> 8) % kTotal;
        const uint32_t low = static_cast<uint32_t>((uint64_t{state} - kStart) >> 63);  // one if a word is needed
        x[lane] = state << 16 * low | (get<uint16_t>(next) & -low);
        next += 2 * low;
        out[i + lane] = static_cast<uint8_t>(slot);
      }
    }
    std::copy_n(x, kLanes, states_);
    next_ = next;
  }
  for (; i < count; ++i)
    if (!take_one(slots, states_[i % lanes_], out[i])) return false;
  return true;
}

bool RansReader::close(size_t& at) const {
  at = static_cast<size_t>(next_ - begin_);
  return std::all_of(states_, states_ + lanes_, [](uint32_t state) { return state == kStart; });
}

}  // namespace bl
