// Weights whose codes are not numbers to sum, as int8 codes that are (docs/numerics.md): product codebooks, powers of two.
#pragma once

#include "graph/graph.h"

namespace bl {

// Whether a graph has any such weights.
bool has_expandable(const Graph& graph);

// Makes int8 codes of them. Powers of two beyond 8 bits stay as they are.
void expand(Graph& graph);

}  // namespace bl
