#include "best_text.h"

#include <algorithm>

namespace bl {

namespace {

// Which of the eight bytes before make each context, the last one being the lowest.
constexpr uint64_t kMasks[] = {0, 0xff, 0xffff, 0xffffff, 0xffffffffffff, 0xff00, 0xffff0000, 0xffffff0000000000};
constexpr uint64_t kSpread = 0x9e3779b97f4a7c15, kMix = 0xd6e8feb86659fd93;  // odd numbers with their bits well mixed
constexpr int kShort = 16;  // answers after which a bin forgets as fast as it learns
constexpr int kWeight = 17920, kHeaviest = 1 << 20;
constexpr int kSlow = 15;

// The chance, of 65536, at odds of e to the power -8, -7.5, .. 8.
constexpr int kCurve[] = {22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                          4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
                          62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

constexpr int chance_at(int odds) {
  const int place = std::clamp(odds, -2047, 2047) + 2048;
  const int low = place >> 7, part = place & 127;
  return (kCurve[low] * (128 - part) + kCurve[low + 1] * part) >> 7;
}

// For chances by 16: the lowest logarithm of odds, in 256ths, that has at least that chance.
const std::array<int16_t, 4096>& odds_table() {
  static const auto table = [] {
    std::array<int16_t, 4096> found{};
    int odds = -2047;
    for (int step = 0; step < 4096; ++step) {
      while (odds < 2047 && chance_at(odds) < 16 * step) ++odds;
      found[static_cast<size_t>(step)] = static_cast<int16_t>(odds);
    }
    return found;
  }();
  return table;
}

// A coin for text that is known already: nothing is coded.
struct Known {
  bool odds(uint32_t, bool one) const { return one; }
};

}  // namespace

Text::Text() : bins_(kContexts << kBins) {
  for (auto& weights : weights_) weights.fill(kWeight);
}

void Text::learn(std::string_view text) {
  Known coin;
  for (const char told : text) byte(coin, static_cast<uint8_t>(told));
}

void Text::encode(std::string_view text, std::vector<uint8_t>& out) {
  Encoder coin(out);
  for (const char told : text) byte(coin, static_cast<uint8_t>(told));
  coin.end();
}

bool Text::decode(std::string_view body, size_t length, std::string& out) {
  Decoder coin(body);
  out.clear();
  out.reserve(length);
  for (size_t i = 0; i < length; ++i) out += static_cast<char>(byte(coin, 0));
  return coin.end();
}

template <class Coin>
uint8_t Text::byte(Coin& coin, uint8_t told) {
  std::array<uint64_t, kContexts> places;
  for (size_t k = 0; k < kContexts; ++k) {
    places[k] = ((past_ & kMasks[k]) + k * kMix) * kSpread;
    places[k] ^= places[k] >> 32;
  }
  unsigned node = 1;
  for (int place = 7; place >= 0; --place) {
    std::array<Bin*, kContexts> bins;
    for (size_t k = 0; k < kContexts; ++k) bins[k] = &bins_[(k << kBins) + ((places[k] + node) * kMix >> (64 - kBins))];
    node = node << 1 | static_cast<unsigned>(bit(coin, bins, told >> place & 1));
  }
  past_ = past_ << 8 | (node & 255);
  return static_cast<uint8_t>(node);
}

template <class Coin>
bool Text::bit(Coin& coin, const std::array<Bin*, kContexts>& bins, bool told) {
  const std::array<int16_t, 4096>& table = odds_table();
  std::array<int, kContexts> guesses;
  std::array<int32_t*, kContexts> weights;
  int64_t sum = 0;
  for (size_t k = 0; k < kContexts; ++k) {
    guesses[k] = table[bins[k]->chance >> 4];
    weights[k] = &weights_[k][std::min<size_t>(bins[k]->seen, kOften)];
    sum += int64_t{*weights[k]} * guesses[k] >> 16;
  }
  const int mixed = chance_at(static_cast<int>(sum));
  const bool one = coin.odds(static_cast<uint32_t>(std::clamp(mixed, kLeast, kMost)), told);
  const int off = (one ? 65535 : 0) - mixed;
  for (size_t k = 0; k < kContexts; ++k) {
    *weights[k] = std::clamp(*weights[k] + (guesses[k] * off >> kSlow), -kHeaviest, kHeaviest);
    bins[k]->learn(one, kShort);
  }
  return one;
}

}  // namespace bl
