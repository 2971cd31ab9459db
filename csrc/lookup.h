// Functions of one code: tables of 256 codes (docs/numerics.md, "Lookup tables").
#pragma once

#include <cstdint>

#include "lower.h"

namespace bl {

// The code that `node`, an operator of one input, makes of each stored code. False if it is no such operator.
bool lookup_table(const Node& node, const Coding& in, const Coding& out, uint8_t table[256]);

}  // namespace bl
