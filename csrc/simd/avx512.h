// The vector words for AVX-512 with VNNI and VBMI (Ice Lake, Zen 4 and later); simd/scalar.h says what each one means.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define BL_PAIRS  // has the words of pairs
#define BL_ROWS   // has store_rows

namespace bl::avx512 {

constexpr int lanes = 16;
constexpr int group = 4;
constexpr int tile_rows[group + 1] = {0, 12, 12, 8, 6};
constexpr int dot_offset = 0;

using I32 = __m512i;
using F32 = __m512;
using Quad = __m512i;
using Weights = __m512i;
using Mask = __m512i;

static inline I32 splat(int32_t v) { return _mm512_set1_epi32(v); }
static inline F32 splat(float v) { return _mm512_set1_ps(v); }
static inline I32 load(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
static inline I32 load_codes(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
static inline void store(int32_t* p, I32 v) { _mm512_storeu_si512(p, v); }

static inline __mmask16 first(int n) { return static_cast<__mmask16>(n < lanes ? (1u << n) - 1 : 0xffffu); }
static inline void store(float* p, F32 v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

static inline I32 add(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
static inline I32 sub(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
static inline I32 mul(I32 a, I32 b) { return _mm512_mullo_epi32(a, b); }
static inline I32 min(I32 a, I32 b) { return _mm512_min_epi32(a, b); }
static inline I32 max(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
static inline I32 shift_left(I32 a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
static inline I32 shift_right(I32 a, int n) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(n)); }

static inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
static inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
static inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
static inline F32 div(F32 a, F32 b) { return _mm512_div_round_ps(a, b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
static inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
static inline F32 to_float(I32 a) { return _mm512_cvt_roundepi32_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline I32 to_int(F32 a) { return _mm512_cvt_roundps_epi32(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline F32 round(F32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// Adding 1.5 * 2^23 rounds and leaves the number in the low bits. It runs where nothing else of a residual does.
constexpr int32_t nearest_offset = 0x4b400000;
static inline I32 nearest(F32 a, F32 b) {
  return _mm512_castps_si512(_mm512_fmadd_round_ps(a, b, _mm512_set1_ps(0x1.8p23f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline I32 differences(I32 before, I32 a, I32 b) { return _mm512_ternarylogic_epi32(before, a, b, 0xf6); }
static inline bool any(I32 a) { return _mm512_test_epi32_mask(a, a) != 0; }

static inline Mask splat_mask(uint8_t mask) { return _mm512_set1_epi8(static_cast<char>(mask)); }
static inline Weights load_weights(const int8_t* p) { return _mm512_loadu_si512(p); }
static inline Weights load_weights(const int8_t* p, Mask mask) { return _mm512_and_si512(_mm512_loadu_si512(p), mask); }
static inline Quad splat_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}
// Two quads over all columns, and the weights that they meet: those of columns 0, 1, 4, 5, ... and those of 2, 3, 6, 7, ...
static inline Quad splat_pair(const uint8_t* p) {
  int64_t pair;
  __builtin_memcpy(&pair, p, 8);
  return _mm512_set1_epi64(pair);
}
static inline Weights pair_low(Weights first, Weights second) { return _mm512_unpacklo_epi32(first, second); }
static inline Weights pair_high(Weights first, Weights second) { return _mm512_unpackhi_epi32(first, second); }
static inline I32 join_pairs(I32 low, I32 high) {
  const __m512 a = _mm512_castsi512_ps(low), b = _mm512_castsi512_ps(high);
  return add(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)), _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
}
static inline I32 dot(I32 acc, Quad x, Weights w) { return _mm512_dpbusd_epi32(acc, x, w); }

// Codes of four vectors of whole numbers.
static inline __m512i code_bytes(I32 a, I32 b, I32 c, I32 d, I32 zero) {
  const __m512i words = _mm512_packs_epi32(zero, zero), order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), words), high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), words);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

template <int N>
static inline void store_codes(uint8_t* p, const I32* v, I32 zero, int n) {
  if constexpr (N == 1) {
    const __m128i few = _mm512_cvtusepi32_epi8(max(add(v[0], zero), _mm512_setzero_si512()));
    if (n >= lanes) _mm_storeu_si128(reinterpret_cast<__m128i*>(p), few);
    else _mm_mask_storeu_epi8(p, first(n), few);
    return;
  }
  const __m512i bytes = code_bytes(v[0], v[N > 1 ? 1 : 0], v[N > 2 ? 2 : 0], v[N > 3 ? 3 : 0], zero);
  if (n < N * lanes) return _mm512_mask_storeu_epi8(p, (1ull << n) - 1, bytes);  // slow where n is all of them
  if constexpr (N == 4) _mm512_storeu_si512(p, bytes);
  if constexpr (N == 2 || N == 3) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(bytes));
  if constexpr (N == 3) _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 32), _mm512_extracti32x4_epi32(bytes, 2));
}

// Codes of rows that fill a vector together: four of one vector each, or two of two.
template <int N>
static inline void store_rows(uint8_t* const* y, const I32* v, I32 zero, int n) {
  const __m512i bytes = code_bytes(v[0], v[1], v[2], v[3], zero);
  if constexpr (N == 2) {
    const __m256i rows[2] = {_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1)};
    for (int r = 0; r < 2; ++r)
      if (n == 2 * lanes) _mm256_storeu_si256(reinterpret_cast<__m256i*>(y[r]), rows[r]);
      else _mm256_mask_storeu_epi8(y[r], static_cast<__mmask32>((1ull << n) - 1), rows[r]);
  } else {
    const __m128i rows[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1), _mm512_extracti32x4_epi32(bytes, 2),
                             _mm512_extracti32x4_epi32(bytes, 3)};
    for (int r = 0; r < 4; ++r)
      if (n == lanes) _mm_storeu_si128(reinterpret_cast<__m128i*>(y[r]), rows[r]);
      else _mm_mask_storeu_epi8(y[r], first(n), rows[r]);
  }
}

static inline I32 add_bytes(I32 acc, const uint8_t* p, int n) {
  const __mmask64 there = n < 4 * lanes ? (1ull << n) - 1 : ~0ull;
  return _mm512_dpbusd_epi32(acc, _mm512_maskz_loadu_epi8(there, p), _mm512_set1_epi8(1));
}
static inline int32_t total(I32 a) { return _mm512_reduce_add_epi32(a); }

}  // namespace bl::avx512
