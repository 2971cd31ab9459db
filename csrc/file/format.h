// The texts of number formats, and the parameters that each format needs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace bl {

// The format that prints as `text`; false if none does. One format has one text: "int8", not "int08".
bool parse_format(std::string_view text, Format& out);

struct Parameter {
  std::string name;
  Type type = Type::f32;
  Shape table = {};  // of a table; none for a parameter with one entry per channel (or group)
};
std::vector<Parameter> parameters_of(const Format& format);

// The encoding of the leading `bits` of each code of a nested format: tables of wider codes are dropped.
void narrow(Encoding& encoding, int bits);

}  // namespace bl
