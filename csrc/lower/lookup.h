// Functions of one real, and of one code: tables of 256 codes (docs/numerics.md, "Lookup tables").
#pragma once

#include <cstdint>
#include <memory>

#include "lower.h"

namespace bl {

// What an operator of one input does to an element, in double precision; a and b are its attributes.
struct Function {
  double (*f)(double x, double a, double b) = nullptr;
  double a = 0, b = 0;
  double operator()(double x) const { return f(x, a, b); }
};

// False if `node` is no such operator.
bool function_of(const Node& node, Function& out);

// The code of a real where codes have one step; the lowest of what is no number.
uint8_t code_of(float real, const Coding& coding);

// The code that `node`, an operator of one input, makes of each stored code. False if it is no such operator, or if codes do
// not have one step on both sides.
bool lookup_table(const Node& node, const Coding& in, const Coding& out, uint8_t table[256]);

// The only reader of what `from` makes, if it is such an operator: its table can be applied to the codes before they are
// stored. Null otherwise.
const Node* fused_table(const Lowering& lower, const Node& from, const Coding& coding, std::shared_ptr<uint8_t[]>& table);

}  // namespace bl
