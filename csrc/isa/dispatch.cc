// The instruction sets this build has and this machine runs, best first.
#include <array>
#include <cstddef>
#include <cstring>

#include "kernels.h"

#if defined(BL_NEON) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace bl {
namespace {

#if defined(BL_AVX2) || defined(BL_AVX512)

// Which register states the system saves when it switches threads (XCR0), 0 where it saves none.
unsigned saved_states() {
  unsigned a = 1, b = 0, c = 0, d = 0;
  asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if (!(c >> 27 & 1)) return 0;  // OSXSAVE: xgetbv may be asked
  asm("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return a;
}

constexpr unsigned ymm = 0x06, zmm = 0xe6;  // bits of XCR0: SSE and AVX; these and the three of AVX-512

bool has_avx2() {
  return (saved_states() & ymm) == ymm && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512() {
  return (saved_states() & zmm) == zmm && has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("gfni");
}

#endif

#if defined(BL_NEON)

bool has_dot_product() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) >> 20 & 1;  // HWCAP_ASIMDDP
#else
  return true;  // every 64-bit ARM machine of Apple's
#endif
}

#endif

constexpr size_t most = 4;  // the sets there are at all

// The available sets, then nulls.
std::array<const Kernels*, most + 1> find() {
  std::array<const Kernels*, most + 1> found{};
  size_t n = 0;
#if defined(BL_AVX512)
  if (has_avx512()) found[n++] = &avx512_kernels;
#endif
#if defined(BL_AVX2)
  if (has_avx2()) found[n++] = &avx2_kernels;
#endif
#if defined(BL_NEON)
  if (has_dot_product()) found[n++] = &neon_kernels;
#endif
  found[n++] = &scalar_kernels;
  return found;
}

}  // namespace

const Kernels* const* available_kernels() {
  static const std::array<const Kernels*, most + 1> found = find();
  return found.data();
}

const Kernels* kernels_named(const char* name) {
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels)
    if (!std::strcmp((*kernels)->name, name)) return *kernels;
  return nullptr;
}

}  // namespace bl
