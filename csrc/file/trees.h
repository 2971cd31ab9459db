// Trees and their table of strings as bytes (docs/file-format.md, "Trees"). Nothing is reserved before the bytes that are
// left can hold it, and no file makes more than a bounded number of values or texts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cursor.h"
#include "graph/tree.h"

namespace bl {

using Strings = std::vector<std::string>;

// Takes the table of strings from the front of a header of `length` bytes; false, with the reason in `why`, if there is none.
bool read_strings(Cursor& in, size_t length, Strings& out, std::string& why);

// The tree that all of `in` spells.
bool read_tree(Cursor& in, const Strings& strings, Tree& out, std::string& why);

}  // namespace bl
