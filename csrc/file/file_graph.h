// The entry `graph` of a header.
#pragma once

#include "file.h"
#include "graph/tree.h"

namespace bl {

// Adds inputs, outputs and nodes to `out`, which has its constants and encodings, and checks that every name is made once
// and before it is used.
Problem read_graph(const Tree& entry, bool newer, Graph& out);

}  // namespace bl
