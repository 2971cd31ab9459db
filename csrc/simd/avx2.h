// The vector words for AVX2; simd/scalar.h says what each one means.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace bl::avx2 {

constexpr int lanes = 8;
constexpr int group = 2;
constexpr int tile_rows[group + 1] = {0, 6, 5};
constexpr int dot_offset = 0;

// Products of bytes are summed in pairs of 16-bit numbers, which must not saturate: bytes 0 and 2 of a quad in one vector,
// bytes 1 and 3 in the other, each as 16 bits.
struct Halves { __m256i even, odd; };

using I32 = __m256i;
using F32 = __m256;
using Quad = Halves;
using Weights = Halves;
using Mask = __m256i;

static inline I32 splat(int32_t v) { return _mm256_set1_epi32(v); }
static inline F32 splat(float v) { return _mm256_set1_ps(v); }
static inline I32 load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline F32 load(const float* p) { return _mm256_loadu_ps(p); }
static inline I32 load_codes(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
static inline void store(int32_t* p, I32 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

static inline void store(float* p, F32 v, int n) {
  const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  if (n >= lanes) _mm256_storeu_ps(p, v);
  else _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), place), v);
}

static inline I32 add(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
static inline I32 sub(I32 a, I32 b) { return _mm256_sub_epi32(a, b); }
static inline I32 mul(I32 a, I32 b) { return _mm256_mullo_epi32(a, b); }
static inline I32 min(I32 a, I32 b) { return _mm256_min_epi32(a, b); }
static inline I32 max(I32 a, I32 b) { return _mm256_max_epi32(a, b); }
static inline I32 shift_left(I32 a, int n) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(n)); }
static inline I32 shift_right(I32 a, int n) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(n)); }

static inline F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
static inline F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
static inline F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
static inline F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
static inline F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
static inline F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
static inline F32 to_float(I32 a) { return _mm256_cvtepi32_ps(a); }
static inline F32 round(F32 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline I32 to_int(F32 a) { return _mm256_cvtps_epi32(round(a)); }


constexpr int32_t nearest_offset = 0;
static inline I32 nearest(F32 a, F32 b) { return to_int(mul(a, b)); }
static inline I32 differences(I32 before, I32 a, I32 b) { return _mm256_or_si256(before, _mm256_xor_si256(a, b)); }
static inline bool any(I32 a) { return !_mm256_testz_si256(a, a); }

static inline Mask splat_mask(uint8_t mask) { return _mm256_set1_epi8(static_cast<char>(mask)); }
static inline Weights spread(__m256i w) { return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)}; }
static inline __m256i load_bytes(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline Weights load_weights(const int8_t* p) { return spread(load_bytes(p)); }
static inline Weights load_weights(const int8_t* p, Mask mask) { return spread(_mm256_and_si256(load_bytes(p), mask)); }
static inline Quad splat_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  const __m256i x = _mm256_set1_epi32(quad);
  return {_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)};
}
static inline I32 dot(I32 acc, Quad x, Weights w) {
  return add(acc, add(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd)));
}

template <int N>
static inline void store_codes(uint8_t* p, const I32* v, I32 zero, int n) {
  const __m256i sums = _mm256_adds_epi16(_mm256_packs_epi32(v[0], v[N - 1]), _mm256_packs_epi32(zero, zero));
  const __m256i words = _mm256_permute4x64_epi64(sums, 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  if (n >= 16) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  alignas(16) uint8_t all[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(all), bytes);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}

static inline I32 add_bytes(I32 acc, const uint8_t* p, int n) {
  const __m256i place = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
                                         27, 28, 29, 30, 31);
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i there = _mm256_cmpgt_epi8(_mm256_set1_epi8(static_cast<char>(n < 127 ? n : 127)), place);
  return add(acc, _mm256_sad_epu8(_mm256_and_si256(bytes, there), _mm256_setzero_si256()));
}
static inline int32_t total(I32 a) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

}  // namespace bl::avx2
