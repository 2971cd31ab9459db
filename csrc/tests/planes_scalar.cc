// The plane kernels of one instruction set, for test_planes.cc and bench_planes.cc alone.

#include <stdint.h>

#include "../kernels/planes.h"

namespace bl::scalar_planes {
#include "../kernels/finish.inc"
#include "../kernels/planes.inc"
}  // namespace bl::scalar_planes

namespace bl {
extern const PlaneKernels planes_scalar;
const PlaneKernels planes_scalar = scalar_planes::plane_table;
}  // namespace bl
