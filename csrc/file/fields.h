// What the header of a file may say: every object's keys, what a good value of each is, and what to call one in errors.
#pragma once

#include <initializer_list>
#include <span>
#include <string>

#include "file.h"
#include "graph/tree.h"

namespace bl {

struct Field {
  const char* key;
  bool (*good)(const Tree&);
  const char* called;
  bool optional = false;
};

using Fields = std::span<const Field>;

extern const Fields kRootFields, kGraphFields, kInputFields, kNodeFields, kArrayFields, kEncodingFields;
extern const Fields kHeadFields;                  // of every tensor
extern const Fields kCodesFields, kWidthsFields;  // what those kinds have beside an encoding or an array

constexpr size_t kInline = 32;  // bytes of an array that are written in the header itself
constexpr size_t kMostAxes = 32;

// `x` is an object with every field of `tables` there and good, and, unless `others` may be there, with no other.
Problem checked(const Tree& x, std::initializer_list<Fields> tables, const std::string& where, bool others);

Problem damaged(const std::string& where, const std::string& must, const std::string& got);

// A few words on a value, for errors.
std::string shown(const Tree& x);

}  // namespace bl
