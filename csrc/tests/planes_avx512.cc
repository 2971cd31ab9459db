// The plane kernels of one instruction set, for test_planes.cc and bench_planes.cc alone.
#include <immintrin.h>
#include <stdint.h>

#include "../kernels/planes.h"

namespace bl::avx512_planes {
#include "../kernels/finish.inc"
#include "../kernels/planes.inc"
}  // namespace bl::avx512_planes

namespace bl {
extern const PlaneKernels planes_avx512;
const PlaneKernels planes_avx512 = avx512_planes::plane_table;
}  // namespace bl
