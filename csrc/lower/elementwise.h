// Rules of operators that look at one element of each input at a time.
#pragma once

#include <functional>
#include <string>

#include "lower.h"

namespace bl {

// Output 0 of `node` as a table of the codes of value x: entry = code of float32(f(real)), after the node's clip. False
// (and nothing is emitted) where a side has several steps.
bool emit_table(Lowering& lower, const Node& node, int x, const Coding& out, const std::function<float(float)>& f);
// Output 0 of `node` as f of each element of x, decoded.
bool emit_function(Lowering& lower, const Node& node, int x, const std::string& kernel, const std::function<float(float)>& f);

bool lower_binary(Lowering& lower, const Node& node);
bool lower_power(Lowering& lower, const Node& node);
bool lower_comparison(Lowering& lower, const Node& node);
bool lower_where(Lowering& lower, const Node& node);

}  // namespace bl
