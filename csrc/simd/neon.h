// The vector words for NEON with dot products; simd/scalar.h says what each one means.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace bl::neon {

constexpr int lanes = 4;
constexpr int group = 4;
constexpr int tile_rows[group + 1] = {0, 8, 8, 8, 6};
constexpr int dot_offset = 128;  // sdot multiplies signed bytes, so 128 is taken off x

using I32 = int32x4_t;
using F32 = float32x4_t;
using Quad = int8x16_t;
using Weights = int8x16_t;
using Mask = int8x16_t;

static inline I32 splat(int32_t v) { return vdupq_n_s32(v); }
static inline F32 splat(float v) { return vdupq_n_f32(v); }
static inline I32 load(const int32_t* p) { return vld1q_s32(p); }
static inline F32 load(const float* p) { return vld1q_f32(p); }
static inline I32 load_codes(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
static inline void store(int32_t* p, I32 v) { vst1q_s32(p, v); }

static inline void store(float* p, F32 v, int n) {
  if (n >= lanes) return vst1q_f32(p, v);
  float all[lanes];
  vst1q_f32(all, v);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}

static inline I32 add(I32 a, I32 b) { return vaddq_s32(a, b); }
static inline I32 sub(I32 a, I32 b) { return vsubq_s32(a, b); }
static inline I32 mul(I32 a, I32 b) { return vmulq_s32(a, b); }
static inline I32 min(I32 a, I32 b) { return vminq_s32(a, b); }
static inline I32 max(I32 a, I32 b) { return vmaxq_s32(a, b); }
static inline I32 shift_left(I32 a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
static inline I32 shift_right(I32 a, int n) { return vshlq_s32(a, vdupq_n_s32(-n)); }

static inline F32 add(F32 a, F32 b) { return vaddq_f32(a, b); }
static inline F32 sub(F32 a, F32 b) { return vsubq_f32(a, b); }
static inline F32 mul(F32 a, F32 b) { return vmulq_f32(a, b); }
static inline F32 div(F32 a, F32 b) { return vdivq_f32(a, b); }
static inline F32 min(F32 a, F32 b) { return vminq_f32(a, b); }
static inline F32 max(F32 a, F32 b) { return vmaxq_f32(a, b); }
static inline F32 to_float(I32 a) { return vcvtq_f32_s32(a); }
static inline I32 to_int(F32 a) { return vcvtnq_s32_f32(a); }

static inline F32 round(F32 a) { return vrndnq_f32(a); }

constexpr int32_t nearest_offset = 0;
static inline I32 nearest(F32 a, F32 b) { return to_int(mul(a, b)); }
static inline I32 differences(I32 before, I32 a, I32 b) { return vorrq_s32(before, veorq_s32(a, b)); }
static inline bool any(I32 a) { return vmaxvq_u32(vreinterpretq_u32_s32(a)) != 0; }

static inline Mask splat_mask(uint8_t mask) { return vreinterpretq_s8_u8(vdupq_n_u8(mask)); }
static inline Weights load_weights(const int8_t* p) { return vld1q_s8(p); }
static inline Weights load_weights(const int8_t* p, Mask mask) { return vandq_s8(vld1q_s8(p), mask); }
static inline Quad splat_quad(const uint8_t* p) {
  uint32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vdupq_n_u32(quad)), vdupq_n_u8(0x80)));
}
static inline I32 dot(I32 acc, Quad x, Weights w) { return vdotq_s32(acc, x, w); }

template <int N>
static inline void store_codes(uint8_t* p, const I32* v, I32 zero, int n) {
  const int16x8_t words = vcombine_s16(vqmovn_s32(zero), vqmovn_s32(zero));
  const int16x8_t low = vcombine_s16(vqmovn_s32(v[0]), vqmovn_s32(v[N > 1 ? 1 : 0]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(v[N > 2 ? 2 : 0]), vqmovn_s32(v[N > 3 ? 3 : 0]));
  const uint8x16_t bytes = vcombine_u8(vqmovun_s16(vqaddq_s16(low, words)), vqmovun_s16(vqaddq_s16(high, words)));
  if (N == 4 && n >= 16) return vst1q_u8(p, bytes);
  uint8_t all[16];
  vst1q_u8(all, bytes);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}

static inline I32 add_bytes(I32 acc, const uint8_t* p, int n) {
  static const uint8_t place[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8x16_t there = vcltq_u8(vld1q_u8(place), vdupq_n_u8(static_cast<uint8_t>(n < 255 ? n : 255)));
  return vreinterpretq_s32_u32(vdotq_u32(vreinterpretq_u32_s32(acc), vandq_u8(vld1q_u8(p), there), vdupq_n_u8(1)));
}
static inline int32_t total(I32 a) { return vaddvq_s32(a); }

}  // namespace bl::neon
