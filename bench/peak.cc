// The most that this machine does on one core: int8 multiply-accumulates a second in registers for each instruction set,
// and bytes a second read from memory. Prints "name value" lines.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// The best of nine runs of `work`, in units a second.
template <class Work>
double best(double units, Work work) {
  double least = 1e9;
  for (int i = 0; i < 9; ++i) {
    const double began = now();
    work();
    const double took = now() - began;
    if (took < least) least = took;
  }
  return units / least;
}

constexpr int kLoops = 2000000;
volatile int sink;

// Ten sums at once: more than the latency of an instruction times how many start in a cycle. Each is a variable of its own
// that the compiler cannot see into, so that they stay in registers and are not found to be one.
#define TEN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9)

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void avx512() {
  const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(static_cast<char>(sink + 1));
#define MAKE(i) __m512i s##i = x;
#define STEP(i) s##i = _mm512_dpbusd_epi32(s##i, x, w); asm volatile("" : "+v"(s##i));
  TEN(MAKE)
  for (int i = 0; i < kLoops; ++i) { TEN(STEP) }
#undef MAKE
#undef STEP
}

// Without VNNI exact sums take 16-bit products: vpmaddwd and an addition.
__attribute__((target("avx2"))) void avx2() {
  const __m256i x = _mm256_set1_epi16(3);
  __m256i w = _mm256_set1_epi16(static_cast<short>(sink + 1));
#define MAKE(i) __m256i s##i = x;
#define STEP(i) s##i = _mm256_add_epi32(s##i, _mm256_madd_epi16(x, w)); asm volatile("" : "+x"(s##i), "+x"(w));
  TEN(MAKE)
  for (int i = 0; i < kLoops; ++i) { TEN(STEP) }
#undef MAKE
#undef STEP
}

__attribute__((target("avx2"))) void read(const uint8_t* at, size_t bytes) {
  __m256i s[4] = {};
  for (size_t i = 0; i < bytes; i += 128)
    for (int j = 0; j < 4; ++j) s[j] = _mm256_xor_si256(s[j], _mm256_loadu_si256((const __m256i*)(at + i + 32 * j)));
  for (int j = 1; j < 4; ++j) s[0] = _mm256_xor_si256(s[0], s[j]);
  sink = _mm256_extract_epi32(s[0], 0);
}
#else
void read(const uint8_t* at, size_t bytes) {
  uint64_t s[4] = {};
  for (size_t i = 0; i < bytes; i += 32)
    for (int j = 0; j < 4; ++j) {
      uint64_t v;
      std::memcpy(&v, at + i + 8 * j, 8);
      s[j] ^= v;
    }
  sink = static_cast<int>(s[0] ^ s[1] ^ s[2] ^ s[3]);
}
#endif

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
void neon() {
  const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(static_cast<int8_t>(sink + 1));
#define MAKE(i) int32x4_t s##i = vreinterpretq_s32_s8(x);
#define STEP(i) s##i = vdotq_s32(s##i, x, w); asm volatile("" : "+w"(s##i));
  TEN(MAKE)
  for (int i = 0; i < kLoops; ++i) { TEN(STEP) }
#undef MAKE
#undef STEP
}
#endif

}  // namespace

int main() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) std::printf("avx512 %g\n", best(640.0 * kLoops, avx512));
  if (__builtin_cpu_supports("avx2")) std::printf("avx2 %g\n", best(160.0 * kLoops, avx2));
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
  std::printf("neon %g\n", best(160.0 * kLoops, neon));
#endif
  constexpr size_t kBytes = size_t{1} << 29;
  const std::vector<uint8_t> memory(kBytes, 1);
  std::printf("memory %g\n", best(kBytes, [&] { read(memory.data(), kBytes); }));
}
