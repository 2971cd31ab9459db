// The vector words, spelled out: what simd/avx2.h, avx512.h and neon.h do with intrinsics.
#pragma once

#include <stdint.h>

namespace bl::scalar {

constexpr int lanes = 16;                        // numbers in a vector
constexpr int group = 1;                         // vectors of columns beside each other in a tile, at most
constexpr int tile_rows[group + 1] = {0, 2};     // rows of a tile of that many vectors
constexpr int dot_offset = 0;                    // what `dot` takes off every x

struct I32 { int32_t at[lanes]; };
struct F32 { float at[lanes]; };
struct Quad { int16_t at[4]; };                  // four inputs, for every column the same
struct Weights { int8_t at[4 * lanes]; };        // four weights for each column
using Mask = uint8_t;

template <class Vector, class F>
static inline Vector each(F f) {
  Vector v;
  for (int i = 0; i < lanes; ++i) v.at[i] = f(i);
  return v;
}

static inline int32_t wrapped(uint32_t v) { return static_cast<int32_t>(v); }
static inline uint32_t bits(int32_t v) { return static_cast<uint32_t>(v); }

static inline I32 splat(int32_t v) { return each<I32>([&](int) { return v; }); }
static inline F32 splat(float v) { return each<F32>([&](int) { return v; }); }
static inline I32 load(const int32_t* p) { return each<I32>([&](int i) { return p[i]; }); }
static inline F32 load(const float* p) { return each<F32>([&](int i) { return p[i]; }); }
static inline I32 load_codes(const uint8_t* p) { return each<I32>([&](int i) { return p[i]; }); }
static inline void store(int32_t* p, const I32& v) { for (int i = 0; i < lanes; ++i) p[i] = v.at[i]; }
// The first n of v.
static inline void store(float* p, const F32& v, int n) { for (int i = 0; i < lanes && i < n; ++i) p[i] = v.at[i]; }

static inline I32 add(const I32& a, const I32& b) { return each<I32>([&](int i) { return wrapped(bits(a.at[i]) + bits(b.at[i])); }); }
static inline I32 sub(const I32& a, const I32& b) { return each<I32>([&](int i) { return wrapped(bits(a.at[i]) - bits(b.at[i])); }); }
static inline I32 mul(const I32& a, const I32& b) { return each<I32>([&](int i) { return wrapped(bits(a.at[i]) * bits(b.at[i])); }); }
static inline I32 min(const I32& a, const I32& b) { return each<I32>([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; }); }
static inline I32 max(const I32& a, const I32& b) { return each<I32>([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; }); }
static inline I32 shift_left(const I32& a, int n) { return each<I32>([&](int i) { return wrapped(bits(a.at[i]) << n); }); }
static inline I32 shift_right(const I32& a, int n) { return each<I32>([&](int i) { return a.at[i] >> n; }); }

static inline F32 add(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] + b.at[i]; }); }
static inline F32 sub(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] - b.at[i]; }); }
static inline F32 mul(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] * b.at[i]; }); }
static inline F32 div(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] / b.at[i]; }); }
static inline F32 min(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; }); }
static inline F32 max(const F32& a, const F32& b) { return each<F32>([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; }); }
static inline F32 to_float(const I32& a) { return each<F32>([&](int i) { return static_cast<float>(a.at[i]); }); }

// Halves to even; any number for what has no place in 32 bits.
static inline int32_t rounded(float a) {
  if (!(a > -0x1p31f && a < 0x1p31f)) return INT32_MIN;
  const int32_t whole = static_cast<int32_t>(a);
  const float rest = a - static_cast<float>(whole);  // exact, of the sign of a
  const float size = rest < 0 ? -rest : rest;
  const bool away = size > 0.5f || (size == 0.5f && (whole & 1));
  return away ? whole + (a < 0 ? -1 : 1) : whole;
}
static inline I32 to_int(const F32& a) { return each<I32>([&](int i) { return rounded(a.at[i]); }); }

// Of sizes below 2^31.
static inline F32 round(const F32& a) { return to_float(to_int(a)); }

// The whole number nearest to a * b, which is below 2^22 in size, plus nearest_offset.
constexpr int32_t nearest_offset = 0;
static inline I32 nearest(const F32& a, const F32& b) { return to_int(mul(a, b)); }
// The bits of `before` and those in which a and b differ.
static inline I32 differences(const I32& before, const I32& a, const I32& b) {
  return each<I32>([&](int i) { return before.at[i] | (a.at[i] ^ b.at[i]); });
}
static inline bool any(const I32& a) {
  bool some = false;
  for (int i = 0; i < lanes; ++i) some |= a.at[i] != 0;
  return some;
}

static inline Mask splat_mask(uint8_t mask) { return mask; }
static inline Weights load_weights(const int8_t* p, Mask mask = 0xff) {
  Weights w;
  for (int i = 0; i < 4 * lanes; ++i) w.at[i] = static_cast<int8_t>(p[i] & mask);
  return w;
}
static inline Quad splat_quad(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
// acc + x * w in 32 bits that wrap around.
static inline I32 dot(const I32& acc, const Quad& x, const Weights& w) {
  return each<I32>([&](int i) {
    const int8_t* v = w.at + 4 * i;
    return wrapped(bits(acc.at[i]) + bits(x.at[0] * v[0] + x.at[1] * v[1] + x.at[2] * v[2] + x.at[3] * v[3]));
  });
}

// The first n of the numbers in v[0] .. v[N - 1], plus zero, held to 0..255.
template <int N>
static inline void store_codes(uint8_t* p, const I32* v, const I32& zero, int n) {
  for (int i = 0; i < N * lanes && i < n; ++i) {
    const int64_t c = int64_t{v[i / lanes].at[i % lanes]} + zero.at[0];
    p[i] = static_cast<uint8_t>(c < 0 ? 0 : c > 255 ? 255 : c);
  }
}

// The first n of 4 * lanes bytes, which may all be read, are added to the numbers, each to any.
static inline I32 add_bytes(I32 acc, const uint8_t* p, int n) {
  for (int i = 0; i < 4 * lanes && i < n; ++i) acc.at[i % lanes] += p[i];
  return acc;
}
static inline int32_t total(const I32& a) {
  int32_t sum = 0;
  for (int i = 0; i < lanes; ++i) sum += a.at[i];
  return sum;
}

}  // namespace bl::scalar
