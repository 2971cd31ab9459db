// Bit planes as bins, each with the planes before it as context (src/bitladder/codec/best_planes.py).
#include <array>
#include <memory>

#include "best.h"
#include "bins.h"
#include "neighbours.h"

namespace bl {

namespace {

constexpr int kNear = 4;  // planes from this one on have nothing to learn from the neighbours

template <class Coin>
bool first(Coin coin, CodeGrid grid, uint8_t* codes) {
  std::array<Bin, 9> bins;
  for (int64_t r = 0; r < grid.rows; ++r) {
    unsigned left = 0, left2 = 0, left3 = 0;  // 1 and 2 for a bit that is there
    for (int64_t c = 0; c < grid.cols; ++c, ++codes) {
      const bool one = coin.bit(bins[3 * left + left3], *codes & 1);
      *codes = one;
      left3 = std::exchange(left2, std::exchange(left, 1u + one));
    }
  }
  return coin.end();
}

// The magnitude that the planes before `number` make of a code with a place for this one's bit.
struct Folded {
  unsigned flip;  // of this code's bits
  unsigned magnitude;
  Folded(unsigned code, int number, bool sign)
      : flip(sign ? 0 : ~(code >> number) & 1), magnitude((code >> 1 ^ (0 - flip)) & ((1u << (number - 1)) - 1)) {}
};

// Size classes of what magnitudes of at most three bits let one expect.
constexpr auto kSizes = [] {
  std::array<uint8_t, 64> sizes{};
  for (int expected = 1; expected < 64; ++expected) {
    int octave = 0;
    while (expected >> (octave + 1)) ++octave;
    sizes[static_cast<size_t>(expected)] = static_cast<uint8_t>(1 + 2 * octave + (expected << 1 >> octave & 1));
  }
  return sizes;
}();

// The bin of a bit is looked up for both values of the bit before it, so that nothing waits for that one but the choice.
template <class Coin>
bool near(Coin coin, CodeGrid grid, int number, bool sign, uint8_t* codes) {
  std::array<std::array<Bin, kClasses>, 1 << (kNear - 2)> bins;
  std::vector<int32_t> means(static_cast<size_t>(grid.cols) + 1);
  for (int64_t r = 0; r < grid.rows; ++r) {
    const int speed = pace(r);
    int left = 0;
    Folded code(grid.cols ? *codes : 0, number, sign);
    Bin* bin = &bins[code.magnitude][kSizes[static_cast<size_t>(3 * means[0] >> 6)]];
    for (int64_t c = 0; c < grid.cols; ++c, ++codes) {
      const Folded next(c + 1 < grid.cols ? codes[1] : 0, number, sign);
      const auto shorter = static_cast<int>(code.magnitude << 1);
      const int expected = 2 * shorter + left + (3 * means[static_cast<size_t>(c) + 1] >> 6);
      Bin* const if_zero = &bins[next.magnitude][kSizes[static_cast<size_t>(expected)]];
      Bin* const if_one = &bins[next.magnitude][kSizes[static_cast<size_t>(expected) + 2]];
      const bool one = coin.bit(*bin, (*codes ^ code.flip) & 1);
      bin = one ? if_one : if_zero;
      *codes = static_cast<uint8_t>((*codes & ~1u) | (one ^ code.flip));
      left = shorter | one;
      means[static_cast<size_t>(c)] = follow(means[static_cast<size_t>(c)], left, speed);
      code = next;
    }
  }
  return coin.end();
}

template <class Coin>
bool far(Coin coin, CodeGrid grid, int number, bool sign, uint8_t* codes) {
  std::array<Bin, 128> bins;
  for (int64_t i = 0; i < grid.count(); ++i) {
    const Folded code(codes[i], number, sign);
    const unsigned one = coin.bit(bins[code.magnitude], (codes[i] ^ code.flip) & 1);
    codes[i] = static_cast<uint8_t>((codes[i] & ~1u) | (one ^ code.flip));
  }
  return coin.end();
}

template <class Coin>
bool plane(Coin coin, CodeGrid grid, int number, bool sign, uint8_t* codes) {
  if (number == 0) return first(std::move(coin), grid, codes);
  return number < kNear ? near(std::move(coin), grid, number, sign, codes) : far(std::move(coin), grid, number, sign, codes);
}

}  // namespace

bool decode_best_plane(std::string_view body, CodeGrid grid, int number, bool sign, uint8_t* codes) {
  if (number > 7) return false;
  for (int64_t i = 0; i < grid.count(); ++i) codes[i] = static_cast<uint8_t>(codes[i] << 1);
  return plane(Decoder(body), grid, number, sign, codes);
}

void encode_best_plane(const uint8_t* codes, CodeGrid grid, int bits, int number, bool sign, Bytes& out) {
  std::vector<uint8_t> known(codes, codes + grid.count());
  for (uint8_t& code : known) code = static_cast<uint8_t>(code >> (bits - 1 - number));
  plane(Encoder(out), grid, number, sign, known.data());
}

}  // namespace bl
