#include "words.h"

#include <algorithm>
#include <iterator>

namespace bl {

namespace {

constexpr std::string_view kOperators[] = {  // in the order of the alphabet
    "abs", "acos", "acosh", "add", "affine_grid", "and_", "arg_max", "arg_min", "asin", "asinh", "atan", "atanh",
    "attention", "avg_pool", "batch_norm", "bit_cast", "bit_shift", "bitwise_and", "bitwise_not", "bitwise_or",
    "bitwise_xor", "cast", "causal_conv_with_state", "ceil", "celu", "center_crop_pad", "clip", "col2im", "compress",
    "concat", "constant_of_shape", "conv", "conv_transpose", "cos", "cosh", "cum_prod", "cum_sum", "depth_to_space",
    "dequantize_linear", "det", "div", "dynamic_quantize_linear", "einsum", "elu", "embedding", "equal", "erf", "exp",
    "expand", "eye_like", "flatten", "floor", "gather", "gather_elements", "gather_nd", "gelu", "global_avg_pool",
    "global_max_pool", "greater", "greater_or_equal", "grid_sample", "group_norm", "gru", "hard_sigmoid", "hard_swish",
    "hardmax", "identity", "instance_norm", "is_inf", "is_nan", "layer_norm", "leaky_relu", "less", "less_or_equal",
    "linear", "linear_attention", "log", "lp_normalization", "lp_pool", "lrn", "lstm", "matmul", "max", "max_pool",
    "max_pool_indices", "max_unpool", "min", "mish", "mod", "mul", "neg", "non_zero", "not_", "one_hot", "or_", "pad",
    "pow", "prelu", "quantize_linear", "range", "reciprocal", "reduce_l2", "reduce_log_sum_exp", "reduce_max",
    "reduce_mean", "reduce_min", "reduce_prod", "reduce_sum", "relu", "reshape", "resize", "reverse_sequence",
    "rms_norm", "rnn", "rotary_embedding", "round", "scatter_elements", "scatter_nd", "selu", "shape", "shrink",
    "sigmoid", "sign", "sin", "sinh", "size", "slice", "softmax", "softplus", "softsign", "space_to_depth", "split",
    "sqrt", "squeeze", "sub", "swish", "tan", "tanh", "tensor_scatter", "thresholded_relu", "tile", "top_k",
    "transpose", "trilu", "unique", "unsqueeze", "where", "xor",
};
static_assert(std::is_sorted(std::begin(kOperators), std::end(kOperators)));

}  // namespace

bool is_operator(std::string_view name) {
  return std::binary_search(std::begin(kOperators), std::end(kOperators), name);
}

}  // namespace bl
