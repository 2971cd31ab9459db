// The names of operators (docs/operators.md). A file that uses another one needs a newer version.
#pragma once

#include <string_view>

namespace bl {

bool is_operator(std::string_view name);

int least_inputs(std::string_view name);  // how many inputs it cannot do without; they come first

}  // namespace bl
