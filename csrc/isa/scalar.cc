// Plain loops, for any machine: the slow clear twin of the others.
#include "kernels.h"
#include "simd/scalar.h"

namespace bl {

namespace scalar {
#include "rooms.inc"
}

extern const Kernels scalar_kernels = {"scalar", scalar::dense_table, scalar::planes_table, scalar::window_table, scalar::pointwise_table, scalar::sequence_table, scalar::straight_table, scalar::sums_table};

}  // namespace bl
