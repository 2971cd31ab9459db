// Arithmetic on shapes: nodes whose inputs are known when a network is lowered, and small, are computed then.
#pragma once

#include "graph/graph.h"
#include "lower.h"

namespace bl {

// Computes `node` now if its inputs are constants of whole numbers or truth values (or it asks for a shape only).
bool fold(Lowering& lower, const Node& node);

// The whole numbers of a known input; false if it is not known.
bool known_integers(const Lowering& lower, const Node& node, size_t slot, Shape& out);

}  // namespace bl
