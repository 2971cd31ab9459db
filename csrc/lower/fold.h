// Arithmetic on shapes: nodes whose inputs are known when a network is lowered, and small, are computed then.
#pragma once

#include "graph/graph.h"
#include "lower.h"

namespace bl {

// Computes `node` now if its inputs are constants of whole numbers or truth values (or it asks for a shape only).
bool fold(Lowering& lower, const Node& node);

// A number as an integer, cut to 64 bits: ends of slices are often the largest there is, which a double cannot hold.
int64_t whole(double x);

// The whole numbers of a known input; false if it is not known.
bool known_integers(const Lowering& lower, const Node& node, size_t slot, Shape& out);

}  // namespace bl
