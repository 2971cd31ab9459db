// The plane kernels of one instruction set, for test_planes.cc and bench_planes.cc alone.
#include <immintrin.h>
#include <stdint.h>

#include "../kernels/planes.h"

namespace bl::avx2_planes {
#include "../kernels/finish.inc"
#include "../kernels/planes.inc"
}  // namespace bl::avx2_planes

namespace bl {
extern const PlaneKernels planes_avx2;
const PlaneKernels planes_avx2 = avx2_planes::plane_table;
}  // namespace bl
