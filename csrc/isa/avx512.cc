// AVX-512 with VNNI and VBMI.
#include "kernels.h"
#include "simd/avx512.h"

namespace bl {

namespace avx512 {
#include "rooms.inc"
}

extern const Kernels avx512_kernels = {"avx512", avx512::dense_table, avx512::planes_table, avx512::window_table, avx512::pointwise_table, avx512::sequence_table, avx512::straight_table, avx512::sums_table};

}  // namespace bl
