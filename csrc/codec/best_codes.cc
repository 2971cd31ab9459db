// Codes as bins: their magnitudes and signs, as their neighbours let one expect (src/bitladder/codec/best_codes.py).
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "best.h"
#include "bins.h"
#include "magnitude.h"
#include "neighbours.h"

namespace bl {

namespace {

constexpr int kLongest = 33;  // bits of the distance of two codes

// Where rows of codes come from and go to: an encoder is told those of `from`, a decoder's go to `out`.
struct Rows {
  const int32_t* from = nullptr;
  uint8_t* out = nullptr;
  int width = 4;

  void get(int64_t at, int64_t count, int32_t* row) const {
    if (from) std::copy_n(from + at, count, row);
  }
  void put(int64_t at, int64_t count, const int32_t* row) const {
    if (!out) return;
    if (width == 1) std::transform(row, row + count, out + at, [](int32_t code) { return static_cast<uint8_t>(code); });
    else if (width == 2) narrow<uint16_t>(at, count, row);
    else narrow<uint32_t>(at, count, row);
  }

 private:
  template <class T>
  void narrow(int64_t at, int64_t count, const int32_t* row) const {
    for (int64_t i = 0; i < count; ++i) {
      const T code = static_cast<T>(row[i]);
      std::memcpy(out + (at + i) * static_cast<int64_t>(sizeof(T)), &code, sizeof(T));
    }
  }
};

int capped(uint64_t magnitude) { return static_cast<int>(std::min<uint64_t>(magnitude, kCap)); }
bool within(int64_t code, CodeKind kind) { return kind.low <= code && code <= kind.high; }

// How many bits the larger of two magnitudes has.
int length_of(int64_t a, int64_t b) {
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max(std::abs(a), std::abs(b)))));
}

// A branch on the sign would be a guess.
int64_t with_sign(int64_t magnitude, bool minus) { return (magnitude ^ -int64_t{minus}) + minus; }

template <class Coin>
bool plain(Coin coin, CodeGrid grid, CodeKind kind, int64_t centre, const Rows& rows) {
  struct Models {
    Magnitudes<32, 1> centre;
    Magnitudes<kLongest, kClasses> sizes;
    std::array<Bin, kSigns> signs;
  };
  const auto models = std::make_unique<Models>();
  Magnitudes<kLongest, kClasses>& sizes = models->sizes;
  const auto far = static_cast<int64_t>(models->centre.code(coin, 0, static_cast<uint64_t>(std::abs(centre))));
  centre = far && coin.even(1, centre < 0) ? -far : far;
  if (!within(centre, kind)) return false;
  sizes.plant(length_of(kind.high - centre, centre - kind.low), kDepths);
  std::vector<int32_t> row(static_cast<size_t>(grid.cols));
  std::vector<int32_t> means(row.size());
  for (int64_t r = 0; r < grid.rows; ++r) {
    rows.get(r * grid.cols, grid.cols, row.data());
    const int speed = pace(r);
    int size = 0, size2 = 0;
    int64_t left = 0, left2 = 0, left3 = 0;
    for (size_t c = 0; c < row.size(); ++c) {
      const int64_t told = row[c] - centre;
      const auto magnitude = sizes.code(coin, size_class(size, size2, means[c]), static_cast<uint64_t>(std::abs(told)));
      auto code = static_cast<int64_t>(magnitude);
      Bin& sign = models->signs[static_cast<size_t>(sign_class(left, left3))];
      if (code) code = with_sign(code, coin.bit(sign, told < 0));
      left3 = std::exchange(left2, std::exchange(left, code));
      size2 = std::exchange(size, capped(magnitude));
      means[c] = follow(means[c], size, speed);
      if (!within(code + centre, kind)) return false;
      row[c] = static_cast<int32_t>(code + centre);
    }
    rows.put(r * grid.cols, grid.cols, row.data());
  }
  return coin.end();
}

// By state: the state after an even level and after an odd one.
constexpr uint8_t kNext[8][2] = {{0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6}};

template <class Coin>
bool trellis(Coin coin, CodeGrid grid, CodeKind kind, std::vector<int32_t>& codes) {
  struct Models {
    Magnitudes<kLongest, 2 * kClasses> sizes;
    std::array<Bin, kSigns> signs;
  };
  const auto models = std::make_unique<Models>();
  models->sizes.plant(length_of((int64_t{kind.high} + 1) >> 1, (int64_t{kind.low} - 1) / 2), kDepths);
  int state = 0;
  for (int64_t c = 0; c < grid.cols; ++c) {
    int mean = 0;
    for (int64_t r = 0; r < grid.rows; ++r) {
      int32_t& place = codes[static_cast<size_t>(r * grid.cols + c)];
      const auto before = [&](int64_t by) { return c < by ? int64_t{0} : int64_t{(&place)[-by]}; };
      const auto size_before = [&](int64_t by) { return capped(static_cast<uint64_t>(std::abs(before(by)))); };
      const int64_t told = place;
      const int odd = state & 1;
      const int which = 2 * size_class(size_before(1), size_before(2), mean) + odd;
      const auto level = static_cast<int64_t>(models->sizes.code(coin, which, static_cast<uint64_t>(std::abs(told) + odd) >> 1));
      int64_t code = level ? 2 * level - odd : 0;
      mean = follow(mean, capped(static_cast<uint64_t>(code)), pace(r));
      Bin& sign = models->signs[static_cast<size_t>(sign_class(before(1), before(3)))];
      if (code) code = with_sign(code, coin.bit(sign, told < 0));
      if (!within(code, kind)) return false;
      place = static_cast<int32_t>(code);
      state = kNext[state][level & 1];
    }
  }
  return coin.end();
}

// Whether a trellis can give these codes: each has the parity that the state asks for, or is zero.
bool admissible(const int32_t* codes, CodeGrid grid) {
  int state = 0;
  for (int64_t c = 0; c < grid.cols; ++c) {
    for (int64_t r = 0; r < grid.rows; ++r) {
      const int64_t code = codes[r * grid.cols + c];
      if (code && (code ^ state) & 1) return false;
      state = kNext[state][(std::abs(code) + (state & 1)) >> 1 & 1];
    }
  }
  return true;
}

}  // namespace

bool decode_best_codes(std::string_view body, CodeGrid grid, CodeKind kind, int width, uint8_t* out) {
  return plain(Decoder(body), grid, kind, 0, {nullptr, out, width});
}

void encode_best_codes(const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out) {
  if (!grid.count()) return;
  std::vector<int32_t> sorted(codes, codes + grid.count());
  const auto middle = sorted.begin() + grid.count() / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  plain(Encoder(out), grid, kind, *middle, {codes, nullptr, 4});
}

bool decode_trellis(std::string_view body, CodeGrid grid, CodeKind kind, int width, uint8_t* out) {
  std::vector<int32_t> codes(static_cast<size_t>(grid.count()));
  if (!trellis(Decoder(body), grid, kind, codes)) return false;
  Rows{nullptr, out, width}.put(0, grid.count(), codes.data());
  return true;
}

void encode_trellis(const int32_t* codes, CodeGrid grid, CodeKind kind, Bytes& out) {
  if (!grid.count() || !admissible(codes, grid)) return;
  std::vector<int32_t> copy(codes, codes + grid.count());
  trellis(Encoder(out), grid, kind, copy);
}

}  // namespace bl
