#include "lookup.h"

#include <algorithm>
#include <cmath>

namespace bl {

namespace {

double sigmoid(double x) {
  const double small = std::exp(-std::fabs(x));
  return (x < 0 ? small : 1) / (1 + small);
}
double softplus(double x) {
  if (x == 0) return std::log(2.0);
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
double held(double x, double low, double high) { return std::min(std::max(x, low), high); }
double elu(double x, double alpha) { return x < 0 ? alpha * std::expm1(x) : x; }
double gelu(double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }
double gelu_tanh(double x) {
  constexpr double pi = 3.14159265358979323846;
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
}
double celu(double x, double alpha) { return std::max(x, 0.0) + std::min(0.0, alpha * std::expm1(std::min(x, 0.0) / alpha)); }
double shrink(double x, double bias, double lambd) { return x < -lambd ? x + bias : x > lambd ? x - bias : 0; }

struct Word {
  const char* op;
  double (*f)(double x, double a, double b);
  const char* a_name = nullptr;  // attributes, and what they are by default
  double a = 0;
  const char* b_name = nullptr;
  double b = 0;
};

#define F(value) [](double x, [[maybe_unused]] double a, [[maybe_unused]] double b) -> double { return value; }
const Word words[] = {
    {"abs", F(std::fabs(x))},
    {"neg", F(-x)},
    {"sign", F(x > 0 ? 1 : x < 0 ? -1 : 0)},
    {"ceil", F(std::ceil(x))},
    {"floor", F(std::floor(x))},
    {"round", F(std::nearbyint(x))},
    {"sqrt", F(std::sqrt(x))},
    {"exp", F(std::exp(x))},
    {"log", F(std::log(x))},
    {"reciprocal", F(1 / x)},
    {"erf", F(std::erf(x))},
    {"sin", F(std::sin(x))},
    {"cos", F(std::cos(x))},
    {"tan", F(std::tan(x))},
    {"asin", F(std::asin(x))},
    {"acos", F(std::acos(x))},
    {"atan", F(std::atan(x))},
    {"sinh", F(std::sinh(x))},
    {"cosh", F(std::cosh(x))},
    {"tanh", F(std::tanh(x))},
    {"asinh", F(std::asinh(x))},
    {"acosh", F(std::acosh(x))},
    {"atanh", F(std::atanh(x))},
    {"relu", F(std::max(x, 0.0))},
    {"sigmoid", F(sigmoid(x))},
    {"softplus", F(softplus(x))},
    {"softsign", F(x / (1 + std::fabs(x)))},
    {"gelu", F(a != 0 ? gelu_tanh(x) : gelu(x))},
    {"elu", F(elu(x, a)), "alpha", 1.0},
    {"celu", F(celu(x, a)), "alpha", 1.0},
    {"selu", F(b * elu(x, a)), "alpha", 1.67326319217681884765625, "gamma", 1.05070102214813232421875},
    {"leaky_relu", F(x < 0 ? a * x : x), "alpha", 0.01},
    {"mish", F(x * std::tanh(softplus(x)))},
    {"swish", F(x * sigmoid(a * x)), "alpha", 1.0},
    {"hard_sigmoid", F(held(a * x + b, 0, 1)), "alpha", 0.2, "beta", 0.5},
    {"hard_swish", F(x * held(1.0 / 6 * x + 0.5, 0, 1))},
    {"thresholded_relu", F(x > a ? x : 0), "alpha", 1.0},
    {"shrink", F(shrink(x, a, b)), "bias", 0.0, "lambd", 0.5},
};
#undef F

}  // namespace

uint8_t code_of(float y, const Coding& coding) {
  if (std::isnan(y)) return 0;
  const float code = std::nearbyint(y / coding.step()) + static_cast<float>(coding.zero);
  return static_cast<uint8_t>(std::clamp(code, 0.0f, static_cast<float>(coding.high)));
}

bool function_of(const Node& node, Function& out) {
  for (const Word& word : words) {
    if (node.op != word.op) continue;
    out.f = word.f;
    out.a = word.a_name ? attr(node, word.a_name, word.a) : 0;
    out.b = word.b_name ? attr(node, word.b_name, word.b) : 0;
    if (node.op == "gelu") out.a = attr(node, "approximate", "none") == "tanh";
    return true;
  }
  return false;
}

bool lookup_table(const Node& node, const Coding& in, const Coding& out, uint8_t table[256]) {
  Function f;
  if (!in.uniform() || !out.uniform() || node.inputs.size() != 1 || !function_of(node, f)) return false;
  for (int code = 0; code < 256; ++code) {
    float y = static_cast<float>(f(static_cast<float>(code - in.zero) * in.step()));
    if (node.low && y < static_cast<float>(*node.low)) y = static_cast<float>(*node.low);
    if (node.high && y > static_cast<float>(*node.high)) y = static_cast<float>(*node.high);
    table[code] = code_of(y, out);
  }
  return true;
}

const Node* fused_table(const Lowering& lower, const Node& from, const Coding& coding, std::shared_ptr<uint8_t[]>& table) {
  const Node* node = lower.only_reader(from.name());
  Coding out;
  if (node == nullptr || !lower.coding(*node, 0, out)) return nullptr;
  std::shared_ptr<uint8_t[]> made(new uint8_t[256]);
  if (!lookup_table(*node, coding, out, made.get())) return nullptr;
  table = std::move(made);
  return node;
}

}  // namespace bl
