// Nodes that are left to their only reader, which computes them along the way.
#pragma once

#include "lower.h"
#include "view.h"

namespace bl {

// What is left to its only reader when `node` is; empty if it is lowered by itself:
//   a transpose, to the product that reads it through strides;
//   a product, what scales it and adds a mask to it, to the softmax over its last axis;
//   an addition of two values of one shape, to the layer normalization of the sum.
std::vector<const Node*> left_to_reader(const Lowering& lower, const Node& node);

// An operand of a product: a value in rows and how it is seen through transposes.
struct Operand {
  int value = -1;
  View view;
};
bool operand_of(Lowering& lower, const Node& node, size_t slot, Operand& out);

}  // namespace bl
