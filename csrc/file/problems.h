// What errors say: one line, with at most 60 characters of what a file holds, all of them printable.
#pragma once

#include <string>
#include <string_view>

#include "file.h"
#include "graph/tree.h"

namespace bl {

Problem malformed(const std::string& what);
Problem damaged(const std::string& where, const std::string& must, const std::string& got);

std::string quoted(std::string_view text);

// A few words on a value, for errors.
std::string shown(const Tree& x);

}  // namespace bl
