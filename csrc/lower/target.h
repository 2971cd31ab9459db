// Where a rule writes its output when a node keeps the form of its input: codes stay codes where the encoding stays.
#pragma once

#include "lower.h"

namespace bl {

struct Target {
  int number = -1;      // the value to write; -1: the node was refused
  bool direct = false;  // it is the output, else `land` makes the output of it
};

// For output 0 of `node`, elements as in `like` (codes with its coding, or reals): the output itself if the graph gives it
// the same coding (or none, for reals) and the node clips nothing; else a temporary.
Target target(Lowering& lower, const Node& node, const Value& like, const Shape& shape, bool image);
void land(Lowering& lower, const Node& node, const Target& target);

// How many tasks for so many elements in `most` pieces: one where it is not worth waking anybody.
inline int tasks_for(const Lowering& lower, int64_t work, int64_t most) {
  const int64_t many = work < 50000 || lower.options().threads == 1 ? 1 : 2 * lower.options().threads;
  return static_cast<int>(many < most ? many : most < 1 ? 1 : most);
}
// The first of `count` things that belong to task number `task`; those up to the first of the next task are its own.
inline int64_t share_of(int64_t count, int tasks, int task) { return count * task / tasks; }

}  // namespace bl
