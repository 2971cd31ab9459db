// Functions of one real, and of one code: tables of 256 codes (docs/numerics.md, "Lookup tables").
#pragma once

#include <cstdint>

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

// The code that `node`, an operator of one input, makes of each stored code. False if it is no such operator, or if codes do
// not have one step on both sides.
bool lookup_table(const Node& node, const Coding& in, const Coding& out, uint8_t table[256]);

}  // namespace bl
