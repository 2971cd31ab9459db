#include "lookup.h"

namespace bl {

bool lookup_table(const Node&, const Coding&, const Coding&, uint8_t*) { return false; }

}  // namespace bl
