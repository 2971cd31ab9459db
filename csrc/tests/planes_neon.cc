// The plane kernels of one instruction set, for test_planes.cc and bench_planes.cc alone.
#include <arm_neon.h>
#include <stdint.h>

#include "../kernels/planes.h"

namespace bl::neon_planes {
#include "../kernels/finish.inc"
#include "../kernels/planes.inc"
}  // namespace bl::neon_planes

namespace bl {
extern const PlaneKernels planes_neon;
const PlaneKernels planes_neon = neon_planes::plane_table;
}  // namespace bl
