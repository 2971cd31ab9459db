#include "lower.h"

namespace bl {

const Room window_room{nullptr, 0};

}  // namespace bl

namespace bl {

bool lower_depthwise(Lowering& lower, const Node& node, const Layer&, int) { return lower.refuse(node, "depthwise convolution has no kernel"); }

}  // namespace bl
