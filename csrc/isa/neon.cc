// NEON with dot products: Armv8.2 and later.
#include "kernels.h"
#include "simd/neon.h"

namespace bl {

namespace neon {
#include "rooms.inc"
}

extern const Kernels neon_kernels = {"neon", neon::dense_table, neon::planes_table, neon::window_table, neon::pointwise_table, neon::sequence_table, neon::straight_table, neon::sums_table};

}  // namespace bl
