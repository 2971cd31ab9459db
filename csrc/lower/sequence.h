// Rules of the room `sequence`, by files: products and softmax, norms, reductions, recurrence.
#pragma once

#include "kernels/sequence.h"
#include "lower.h"

namespace bl {

bool lower_matmul(Lowering& lower, const Node& node);
bool lower_softmax(Lowering& lower, const Node& node);
bool lower_layer_norm(Lowering& lower, const Node& node);
bool lower_rms_norm(Lowering& lower, const Node& node);
bool lower_channel_norm(Lowering& lower, const Node& node);  // of instances and groups
bool lower_embedding(Lowering& lower, const Node& node);
bool lower_reduce(Lowering& lower, const Node& node);
bool lower_arg(Lowering& lower, const Node& node);
bool lower_running(Lowering& lower, const Node& node);
bool lower_recurrent(Lowering& lower, const Node& node);
std::string check_recurrent(const Graph& graph, const Node& node);
std::string check_embedding(const Graph& graph, const Node& node);

// The output `slot` of a kernel that gives reals or codes: codes where the graph has an encoding with one step and the node
// has no clip. Else reals, for `settle`.
int leaving(Lowering& lower, const Node& node, size_t slot, const Shape& shape, Leave& leave);
// Input `slot` as reals in rows, or -1 where nothing made it (refused).
int real_rows(Lowering& lower, const Node& node, size_t slot);

}  // namespace bl
