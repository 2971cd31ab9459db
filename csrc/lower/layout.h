// Copies of a value in another form: rows or image, codes or reals, with a ring or without.
#pragma once

#include <cmath>

namespace bl {

class Lowering;

// A step that fills value `to` from value `from`, of the same shape; reals are first held between `low` and `high`.
void emit_conversion(Lowering& lower, int from, int to, float low = -INFINITY, float high = INFINITY);
// A step that fills the ring of an image with what stands for zero.
void emit_ring(Lowering& lower, int number);

}  // namespace bl
