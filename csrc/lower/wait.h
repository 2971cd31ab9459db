// Nodes that are left to their only reader, which computes them along the way.
#pragma once

#include "lower.h"
#include "view.h"

namespace bl {

// Whether `node` is left to its only reader:
//   a transpose to the product that reads it through strides;
//   a product, what scales it and adds a mask to it, to the softmax over its last axis;
//   an addition of two values of one shape to the layer normalization of the sum.
bool waits(const Lowering& lower, const Node& node);

// The node that makes `name` if it was left to its reader, else null.
const Node* waiting(const Lowering& lower, const std::string& name);

// An operand of a product: a value in rows and how it is seen through transposes.
struct Operand {
  int value = -1;
  View view;
};
bool operand_of(Lowering& lower, const Node& node, size_t slot, Operand& out);

}  // namespace bl
