// Weights that are read as codes while running: rows of an embedding, matrices of recurrent cells. Nothing is packed, and
// the codes are those of the graph, so every width reads the same bytes.
#pragma once

#include <cstdint>
#include <string>

#include "graph/graph.h"
#include "kernels.h"
#include "lower.h"

namespace bl {

struct Reading {
  const Array* array = nullptr;  // float32, or
  const Codes* codes = nullptr;
  int layer = -1;                // whose level has the width, or -1
  Shape shape;
  int64_t rows = 0, width = 0;   // all axes but the last, and the last

  // Row `row` as reals.
  void row(const Frame& f, int64_t row, float* out) const;
};

// The weight in a slot; empty text, or why it cannot be read.
std::string read_weight(const Lowering& lower, const Node& node, size_t slot, Reading& out);
// The same without a lowering: whether it can be read.
std::string check_weight(const Graph& graph, const Node& node, size_t slot);

}  // namespace bl
