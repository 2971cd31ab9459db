#include "wait.h"

#include <algorithm>

namespace bl {

namespace {

bool bare(const Lowering& lower, const Node& node) {
  return node.outputs.size() == 1 && !node.low && !node.high && lower.graph().encoding(node.outputs[0]) == nullptr;
}

// A single number that leaves a value of `rank` axes in its shape.
bool is_scalar(const Lowering& lower, const Node& node, size_t slot, int64_t rank) {
  const Array* a = lower.constant(node, slot);
  return a != nullptr && a->type == Type::f32 && elements(a->shape) == 1 && static_cast<int64_t>(a->shape.size()) <= rank;
}

Shape order_of(const Node& transpose, size_t rank) {
  Shape backwards(rank);
  for (size_t a = 0; a < rank; ++a) backwards[a] = static_cast<int64_t>(rank - 1 - a);
  return attr(transpose, "perm", backwards);
}

// The shape of an input, seen through transposes that wait; false if it is not there.
bool shape_of(const Lowering& lower, const Node& node, size_t slot, Shape& out) {
  const int x = lower.input(node, slot);
  if (x >= 0) {
    out = lower.value(x).shape;
    return true;
  }
  const Node* maker = lower.waiting(node.inputs[slot]);
  if (maker == nullptr || maker->op != "transpose" || !shape_of(lower, *maker, 0, out)) return false;
  out = permuted(view_of(out), order_of(*maker, out.size())).shape;
  return true;
}

// A product and what scales and masks it on the way to a softmax over its last axis and to nothing else; empty if it is not so.
std::vector<const Node*> scores(const Lowering& lower, const Node& product) {
  Shape a, b;
  if (!shape_of(lower, product, 0, a) || !shape_of(lower, product, 1, b) || a.size() < 2 || b.size() < 2) return {};
  const int64_t rank = static_cast<int64_t>(std::max(a.size(), b.size()));
  std::vector<const Node*> chain = {&product};
  bool masked = false;
  for (;;) {
    const Node& at = *chain.back();
    if (!bare(lower, at)) return {};
    const std::string& name = at.outputs[0];
    const Node* reader = lower.only_reader(name);
    if (reader == nullptr) return {};
    if (reader->op == "softmax") return axis_of(attr(*reader, "axis", int64_t{-1}), static_cast<size_t>(rank)) == rank - 1 ? chain : std::vector<const Node*>{};
    if (reader->inputs.size() != 2 || reader->inputs[0] == reader->inputs[1]) return {};
    const size_t slot = reader->inputs[0] == name ? 0 : 1;
    if (lower.waiting(reader->outputs[0]) != nullptr) return {};  // a sum of two products: the softmax takes one of them
    if (reader->op == "add" && !masked) {
      masked = true;
    } else if (!(!masked && is_scalar(lower, *reader, 1 - slot, rank) && (reader->op == "mul" || (reader->op == "div" && slot == 0)))) {
      return {};
    }
    chain.push_back(reader);
  }
}

bool same_encoding(const Lowering& lower, const std::string& a, const std::string& b) {
  const Encoding *x = lower.graph().encoding(a), *y = lower.graph().encoding(b);
  if (x == nullptr || y == nullptr) return x == y;
  Coding p, q;
  return coding_of(*x, p) && coding_of(*y, q) && p.uniform() && p == q;
}

bool waits_transpose(const Lowering& lower, const Node& node) {
  const Node* reader = lower.only_reader(node.outputs[0]);
  if (reader == nullptr || node.low || node.high || !same_encoding(lower, node.inputs[0], node.outputs[0])) return false;
  if (reader->op == "matmul") return reader->inputs[0] != reader->inputs[1];
  return reader->op == "transpose" && waits_transpose(lower, *reader);
}

bool waits_add(const Lowering& lower, const Node& node) {
  const Node* reader = lower.only_reader(node.outputs[0]);
  if (reader == nullptr || node.inputs.size() != 2 || !bare(lower, node)) return false;
  if ((reader->op != "layer_norm" && reader->op != "rms_norm") || reader->inputs[0] != node.outputs[0]) return false;
  const int x = lower.input(node, 0), y = lower.input(node, 1);
  return x >= 0 && y >= 0 && lower.value(x).shape == lower.value(y).shape && lower.value(x).type == Type::f32 && lower.value(y).type == Type::f32;
}

}  // namespace

std::vector<const Node*> left_to_reader(const Lowering& lower, const Node& node) {
  if (node.op == "matmul") return scores(lower, node);
  const bool waits = node.op == "transpose" ? waits_transpose(lower, node) : node.op == "add" && waits_add(lower, node);
  return waits ? std::vector<const Node*>{&node} : std::vector<const Node*>{};
}

bool operand_of(Lowering& lower, const Node& node, size_t slot, Operand& out) {
  const int x = lower.input(node, slot);
  if (x >= 0) {
    out.value = lower.rows(x);
    out.view = view_of(lower.value(out.value).shape);
    return true;
  }
  const Node* maker = slot < node.inputs.size() ? lower.waiting(node.inputs[slot]) : nullptr;
  if (maker == nullptr || maker->op != "transpose" || !operand_of(lower, *maker, 0, out)) return false;
  out.view = permuted(out.view, order_of(*maker, out.view.shape.size()));
  return true;
}

}  // namespace bl
