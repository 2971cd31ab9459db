// AVX2 with FMA: x86-64 machines since 2013.
#include "kernels.h"
#include "simd/avx2.h"

namespace bl {

namespace avx2 {
#include "rooms.inc"
}

extern const Kernels avx2_kernels = {"avx2", avx2::dense_table, avx2::planes_table, avx2::window_table, avx2::pointwise_table, avx2::sequence_table, avx2::straight_table, avx2::sums_table};

}  // namespace bl
