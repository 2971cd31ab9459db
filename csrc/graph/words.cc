#include "words.h"

#include <algorithm>
#include <iterator>

namespace bl {

namespace {

struct Operator {
  std::string_view name;
  int least;  // inputs that it cannot do without
  constexpr bool operator<(const Operator& other) const { return name < other.name; }
};

constexpr Operator kOperators[] = {  // in the order of the alphabet
    {"abs", 1}, {"acos", 1}, {"acosh", 1}, {"add", 2}, {"affine_grid", 2}, {"and_", 2}, {"arg_max", 1}, {"arg_min", 1},
    {"asin", 1}, {"asinh", 1}, {"atan", 1}, {"atanh", 1}, {"attention", 3}, {"avg_pool", 1}, {"batch_norm", 5},
    {"bit_cast", 1}, {"bit_shift", 2}, {"bitwise_and", 2}, {"bitwise_not", 1}, {"bitwise_or", 2}, {"bitwise_xor", 2},
    {"cast", 1}, {"causal_conv_with_state", 2}, {"ceil", 1}, {"celu", 1}, {"center_crop_pad", 2}, {"clip", 1}, {"col2im", 3},
    {"compress", 2}, {"concat", 1}, {"constant_of_shape", 1}, {"conv", 2}, {"conv_transpose", 2}, {"cos", 1}, {"cosh", 1},
    {"cum_prod", 2}, {"cum_sum", 2}, {"depth_to_space", 1}, {"dequantize_linear", 2}, {"det", 1}, {"div", 2},
    {"dynamic_quantize_linear", 1}, {"einsum", 1}, {"elu", 1}, {"embedding", 2}, {"equal", 2}, {"erf", 1}, {"exp", 1},
    {"expand", 2}, {"eye_like", 1}, {"flatten", 1}, {"floor", 1}, {"gather", 2}, {"gather_elements", 2}, {"gather_nd", 2},
    {"gelu", 1}, {"global_avg_pool", 1}, {"global_max_pool", 1}, {"greater", 2}, {"greater_or_equal", 2}, {"grid_sample", 2},
    {"group_norm", 3}, {"gru", 3}, {"hard_sigmoid", 1}, {"hard_swish", 1}, {"hardmax", 1}, {"identity", 1},
    {"instance_norm", 3}, {"is_inf", 1}, {"is_nan", 1}, {"layer_norm", 2}, {"leaky_relu", 1}, {"less", 2},
    {"less_or_equal", 2}, {"linear", 2}, {"linear_attention", 3}, {"log", 1}, {"lp_normalization", 1}, {"lp_pool", 1},
    {"lrn", 1}, {"lstm", 3}, {"matmul", 2}, {"max", 1}, {"max_pool", 1}, {"max_pool_indices", 1}, {"max_unpool", 2},
    {"min", 1}, {"mish", 1}, {"mod", 2}, {"mul", 2}, {"neg", 1}, {"non_zero", 1}, {"not_", 1}, {"one_hot", 3}, {"or_", 2},
    {"pad", 2}, {"pow", 2}, {"prelu", 2}, {"quantize_linear", 2}, {"range", 3}, {"reciprocal", 1}, {"reduce_l2", 1},
    {"reduce_log_sum_exp", 1}, {"reduce_max", 1}, {"reduce_mean", 1}, {"reduce_min", 1}, {"reduce_prod", 1},
    {"reduce_sum", 1}, {"relu", 1}, {"reshape", 2}, {"resize", 1}, {"reverse_sequence", 2}, {"rms_norm", 2}, {"rnn", 3},
    {"rotary_embedding", 3}, {"round", 1}, {"scatter_elements", 3}, {"scatter_nd", 3}, {"selu", 1}, {"shape", 1},
    {"shrink", 1}, {"sigmoid", 1}, {"sign", 1}, {"sin", 1}, {"sinh", 1}, {"size", 1}, {"slice", 3}, {"softmax", 1},
    {"softplus", 1}, {"softsign", 1}, {"space_to_depth", 1}, {"split", 1}, {"sqrt", 1}, {"squeeze", 1}, {"sub", 2},
    {"swish", 1}, {"tan", 1}, {"tanh", 1}, {"tensor_scatter", 2}, {"thresholded_relu", 1}, {"tile", 2}, {"top_k", 2},
    {"transpose", 1}, {"trilu", 1}, {"unique", 1}, {"unsqueeze", 2}, {"where", 1}, {"xor", 2},
};
static_assert(std::is_sorted(std::begin(kOperators), std::end(kOperators)));

const Operator* operator_named(std::string_view name) {
  const Operator* found = std::lower_bound(std::begin(kOperators), std::end(kOperators), Operator{name, 0});
  return found != std::end(kOperators) && found->name == name ? found : nullptr;
}

}  // namespace

bool is_operator(std::string_view name) { return operator_named(name) != nullptr; }

int least_inputs(std::string_view name) {
  const Operator* found = operator_named(name);
  return found ? found->least : 0;
}

}  // namespace bl
