// Numbers as bins: scales, biases, tables, weights left as reals (src/bitladder/codec/best_numbers.py).
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "best.h"
#include "bins.h"
#include "magnitude.h"
#include "reals.h"

namespace bl {

namespace {

constexpr int kLongest = 64;  // bits of a difference
enum Way : int { kPlain, kMedian, kPrevious, kBefore };

struct View {
  bool worth = false;
  int power = 0;
  Numbers numbers, before;
};

// What the first number is predicted from, and the middle length of differences.
struct Start {
  int64_t base = 0;
  int length = 0;
};

int64_t plus(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }
int64_t minus(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b)); }
uint64_t magnitude(int64_t a) { return a < 0 ? -static_cast<uint64_t>(a) : static_cast<uint64_t>(a); }
int length_of(int64_t a) { return static_cast<int>(std::bit_width(magnitude(a))); }
bool real(Type type) { return type == Type::f16 || type == Type::f32 || type == Type::f64; }

// The median, the upper one of two.
template <class T>
T middle(std::vector<T> numbers) {
  const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
  std::nth_element(numbers.begin(), at, numbers.end());
  return *at;
}

// The values as words, the higher bits zero.
std::vector<uint64_t> words(const uint8_t* values, int64_t count, int size) {
  std::vector<uint64_t> out(static_cast<size_t>(count));
  for (uint64_t& word : out) {
    for (int byte = 0; byte < size; ++byte) word |= uint64_t{*values++} << (8 * byte);
  }
  return out;
}

Numbers integers(Type type, const uint8_t* values, int64_t count) {
  const int size = static_cast<int>(size_of(type));
  const bool is_signed = type == Type::i8 || type == Type::i16 || type == Type::i32;
  const uint64_t top = is_signed ? uint64_t{1} << (8 * size - 1) : 0;
  Numbers out;
  for (const uint64_t word : words(values, count, size)) out.push_back(static_cast<int64_t>((word ^ top) - top));
  return out;
}

// The number in the values' type, as bits; false if it has no such.
bool integer(Type type, int64_t number, uint64_t& bits) {
  const int size = static_cast<int>(size_of(type));
  bits = static_cast<uint64_t>(number);
  if (type == Type::boolean) return bits < 2;
  if (size == 8) return true;
  const bool is_signed = type == Type::i8 || type == Type::i16 || type == Type::i32;
  const int64_t low = is_signed ? -(int64_t{1} << (8 * size - 1)) : 0;
  return low <= number && number < low + (int64_t{1} << (8 * size));
}

bool value_of(Type type, const View& view, int64_t number, uint64_t& bits) {
  if (!real(type)) return integer(type, number, bits);
  const int size = static_cast<int>(size_of(type));
  return (view.worth ? from_worth : from_pattern)(number, view.power, size, bits);
}

// The numbers of `before` as those of `view`.
Numbers near(Type type, const View& view, const uint8_t* before, int64_t count) {
  if (!before || view.worth) return {};
  if (!real(type)) return integers(type, before, count);
  const int size = static_cast<int>(size_of(type));
  return patterns_at(words(before, count, size), size, view.power);
}

std::vector<View> views(Type type, const uint8_t* values, int64_t count, const uint8_t* before) {
  std::vector<View> out;
  if (real(type)) {
    const int size = static_cast<int>(size_of(type));
    const std::vector<uint64_t> bits = words(values, count, size);
    Whole whole;
    if (to_worths(bits, size, whole)) out.push_back({true, whole.power, std::move(whole.numbers), {}});
    whole = to_patterns(bits, size);
    out.push_back({false, whole.power, std::move(whole.numbers), {}});
  } else {
    out.push_back({false, 0, integers(type, values, count), {}});
  }
  for (View& view : out) view.before = near(type, view, before, count);
  return out;
}

Start start(const View& view, int way) {
  const int64_t base = way == kMedian ? middle(view.numbers) : way == kPrevious ? view.numbers[0] : 0;
  std::vector<int> lengths;
  int64_t guess = base;
  for (size_t i = 0; i < view.numbers.size(); ++i) {
    if (way == kBefore) guess = view.before[i];
    lengths.push_back(length_of(minus(view.numbers[i], guess)));
    if (way == kPrevious) guess = view.numbers[i];
  }
  return {base, middle(std::move(lengths))};
}

// The bins of lengths near a middle one: whether it is that, whether it is longer, and how many steps away it is.
struct Lengths {
  int middle;
  Bin other, longer;
  std::array<std::array<Bin, kLongest>, 2> steps;

  template <class Coin>
  int code(Coin& coin, int told) {
    if (!coin.bit(other, told != middle)) return middle;
    const bool is_longer = coin.bit(longer, told > middle);
    const int most = is_longer ? kLongest - middle : middle;
    int away = std::min(most, 1);
    while (away < most && coin.bit(steps[is_longer][static_cast<size_t>(away)], std::abs(told - middle) > away)) ++away;
    return is_longer ? middle + away : middle - away;
  }
};

// Which view, its power, and the way.
template <class Coin>
int header(Coin& coin, bool is_real, View& view, int way) {
  if (is_real) {
    view.worth = coin.even(1, view.worth);
    view.power = static_cast<int>(even(coin, 12, static_cast<uint64_t>(view.power + 2048))) - 2048;
  }
  return static_cast<int>(even(coin, 2, static_cast<uint64_t>(way)));
}

// Fills view.numbers; an encoder is told them and how they start.
template <class Coin>
bool differences(Coin& coin, int way, Start from, View& view) {
  if (way == kMedian || way == kPrevious) {
    const auto length = static_cast<int>(even(coin, 7, static_cast<uint64_t>(length_of(from.base))));
    if (length > kLongest) return false;
    const uint64_t size = even(coin, length, magnitude(from.base));
    from.base = static_cast<int64_t>(coin.even(1, from.base < 0) ? -size : size);
  }
  struct Models {
    Lengths lengths;
    Magnitudes<kLongest, 1, 8> sizes;
    Bin minus;
  };
  const auto models = std::make_unique<Models>();
  models->lengths.middle = static_cast<int>(even(coin, 7, static_cast<uint64_t>(from.length)));
  if (models->lengths.middle > kLongest) return false;
  models->sizes.learned = std::clamp(static_cast<int>(std::bit_width(view.numbers.size())) - 4, 0, 8);
  int64_t guess = from.base;
  for (size_t i = 0; i < view.numbers.size(); ++i) {
    if (way == kBefore) guess = view.before[i];
    const int64_t told = minus(view.numbers[i], guess);
    const int length = models->lengths.code(coin, length_of(told));
    auto difference = static_cast<int64_t>(models->sizes.rest(coin, length, magnitude(told)));
    if (difference && coin.bit(models->minus, told < 0)) difference = minus(0, difference);
    view.numbers[i] = plus(guess, difference);
    if (way == kPrevious) guess = view.numbers[i];
  }
  return true;
}

}  // namespace

bool decode_best_numbers(std::string_view body, Type type, int64_t count, const uint8_t* before, uint8_t* out) {
  Decoder coin(body);
  View view;
  const int way = header(coin, real(type), view, kPlain);
  if (real(type) && !view.worth && (view.power < 0 || view.power > 63)) return false;
  if (way == kBefore) view.before = near(type, view, before, count);
  if (way == kBefore && view.before.size() != static_cast<size_t>(count)) return false;
  view.numbers.resize(static_cast<size_t>(count));
  if (!differences(coin, way, {}, view) || !coin.end()) return false;
  for (const int64_t number : view.numbers) {
    uint64_t bits = 0;
    if (!value_of(type, view, number, bits)) return false;
    for (size_t byte = 0; byte < size_of(type); ++byte) *out++ = static_cast<uint8_t>(bits >> (8 * byte));
  }
  return true;
}

void encode_best_numbers(Type type, const uint8_t* values, int64_t count, const uint8_t* before, Bytes& out) {
  if (!count) return;
  Bytes best;
  for (View& view : views(type, values, count, before)) {
    for (int way = kPlain; way <= (view.before.empty() ? kPrevious : kBefore); ++way) {
      Bytes body;
      Encoder coin(body);
      header(coin, real(type), view, way);
      differences(coin, way, start(view, way), view);
      coin.end();
      if (best.empty() || body.size() < best.size()) best = std::move(body);
    }
  }
  out.insert(out.end(), best.begin(), best.end());
}

}  // namespace bl
