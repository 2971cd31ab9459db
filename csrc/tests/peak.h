// The multiply-accumulates that an instruction set can do in a second: its instructions on registers and nothing else.
#pragma once

#include <chrono>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bl {

// Of a stretch of about a third of a millisecond of `block`, which does `macs` multiply-accumulates.
template <class F>
double rate(double macs, F block) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100000; ++i) block();
  return macs * 100000 / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

#if defined(__x86_64__)
// 24 sums, so that neither latency nor loads are in the way.
#define BL_SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
#define BL_DPBUSD(i) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #i "\n"
#define BL_MADD(i) "vpmaddwd %%ymm14, %%ymm15, %%ymm" #i "\n"
inline double measured_peak(const char* name) {
  if (std::strcmp(name, "avx512") == 0) return rate(24 * 64, [] { asm volatile(BL_SUMS(BL_DPBUSD) : : : "memory"); });
  if (std::strcmp(name, "avx2") == 0)
    return rate(12 * 16, [] {
      asm volatile(BL_MADD(0) BL_MADD(1) BL_MADD(2) BL_MADD(3) BL_MADD(4) BL_MADD(5) BL_MADD(6) BL_MADD(7) BL_MADD(8) BL_MADD(9) BL_MADD(10)
                       BL_MADD(11) : : : "memory");
    });
  return 1e9;
}
#undef BL_SUMS
#undef BL_DPBUSD
#undef BL_MADD
#else
inline double measured_peak(const char*) { return 1e9; }
#endif

}  // namespace bl
