// Rules of operators on images that only move or blend pixels (resize.cc).
#pragma once

#include "lower.h"

namespace bl {

bool lower_resize(Lowering& lower, const Node& node);
bool lower_pad(Lowering& lower, const Node& node);
bool lower_depth_to_space(Lowering& lower, const Node& node);
bool lower_space_to_depth(Lowering& lower, const Node& node);

}  // namespace bl
