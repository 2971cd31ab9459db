// Tensors of a layer made from the bytes of its segments.
#pragma once

#include <string_view>
#include <vector>

#include "file.h"
#include "layer_head.h"

namespace bl {

// The values of an array; those in a part from `segments`.
Problem decode_array(const StoredArray& stored, const std::vector<std::string_view>& segments, const std::string& where, Array& out);

// An encoding with its parameters. Where these are all in the header, `segments` may be empty.
Problem decode_encoding(const StoredEncoding& stored, const std::vector<std::string_view>& segments, const std::string& where,
                        Encoding& out);

// Adds the tensors of `layer`, of which the first segments are there, with at most `bits` planes but never fewer than their
// minimum; 0: all planes that are there.
Problem decode_layer(const LayerHead& layer, const std::vector<std::string_view>& segments, int bits, Graph& out);

}  // namespace bl
