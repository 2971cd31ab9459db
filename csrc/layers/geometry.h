// Where the windows of a layer lie: parts, stretches, rings (layer.h).
#pragma once

#include <string>

#include "layer.h"

namespace bl {

// Strides, dilations, pads and the kernel of a convolution's node. False, with the reason, where kernels do not take them.
bool read_geometry(const Node& node, const Shape& w, Layer& l, std::string& why);
// The parts of a convolution: its groups.
void convolution_parts(Layer& l, int out_channels, int in_group);
// The parts of a transposed convolution: the phases of its stride, for each group (S10).
void transposed_parts(Layer& l, int in_channels, int out_group);
// Where tables and panels of each part begin.
void place_parts(Layer& l);

}  // namespace bl
