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
bool first(Coin coin, Grid grid, uint8_t* codes) {
  std::array<Bin, kSigns> bins;
  for (int64_t r = 0; r < grid.rows; ++r) {
    int left = 0, left2 = 0, left3 = 0;
    for (int64_t c = 0; c < grid.cols; ++c, ++codes) {
      const bool one = coin.bit(bins[static_cast<size_t>(sign_class(left, left3))], *codes & 1);
      *codes = one;
      left3 = std::exchange(left2, std::exchange(left, one ? 1 : -1));
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

template <class Coin>
bool near(Coin coin, Grid grid, int number, bool sign, uint8_t* codes) {
  std::array<std::array<Bin, kClasses>, 1 << (kNear - 2)> bins;
  std::vector<int32_t> means(static_cast<size_t>(grid.cols));
  for (int64_t r = 0; r < grid.rows; ++r) {
    const int speed = pace(r);
    int left = 0, left2 = 0;
    for (size_t c = 0; c < means.size(); ++c, ++codes) {
      const Folded code(*codes, number, sign);
      Bin& bin = bins[code.magnitude][static_cast<size_t>(size_class(left, left2, means[c]))];
      const unsigned one = coin.bit(bin, (*codes ^ code.flip) & 1);
      *codes = static_cast<uint8_t>((*codes & ~1u) | (one ^ code.flip));
      left2 = std::exchange(left, static_cast<int>(code.magnitude << 1 | one));
      means[c] = follow(means[c], left, speed);
    }
  }
  return coin.end();
}

template <class Coin>
bool far(Coin coin, Grid grid, int number, bool sign, uint8_t* codes) {
  std::array<Bin, 128> bins;
  for (int64_t i = 0; i < grid.count(); ++i) {
    const Folded code(codes[i], number, sign);
    const unsigned one = coin.bit(bins[code.magnitude], (codes[i] ^ code.flip) & 1);
    codes[i] = static_cast<uint8_t>((codes[i] & ~1u) | (one ^ code.flip));
  }
  return coin.end();
}

template <class Coin>
bool plane(Coin coin, Grid grid, int number, bool sign, uint8_t* codes) {
  if (number == 0) return first(std::move(coin), grid, codes);
  return number < kNear ? near(std::move(coin), grid, number, sign, codes) : far(std::move(coin), grid, number, sign, codes);
}

}  // namespace

bool decode_best_plane(std::string_view body, Grid grid, int number, bool sign, uint8_t* codes) {
  if (number > 7) return false;
  for (int64_t i = 0; i < grid.count(); ++i) codes[i] = static_cast<uint8_t>(codes[i] << 1);
  return plane(Decoder(body), grid, number, sign, codes);
}

void encode_best_plane(const uint8_t* codes, Grid grid, int bits, int number, bool sign, Bytes& out) {
  std::vector<uint8_t> known(codes, codes + grid.count());
  for (uint8_t& code : known) code = static_cast<uint8_t>(code >> (bits - 1 - number));
  plane(Encoder(out), grid, number, sign, known.data());
}

}  // namespace bl
