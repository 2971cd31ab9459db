// What the headers of a file may say: every map's keys, what a good value of each is, and what to call one in errors.
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

extern const Fields kRootFields, kGraphFields, kInputFields, kNodeFields, kLayerFields;
extern const Fields kEncodingFields, kArrayFields;  // of an activation, and of all arrays
extern const Fields kSharedFields;                  // of weights: what may be missing, and what `global` may give
extern const Fields kHeadFields;                    // of every tensor
extern const Fields kCodesFields, kWidthsFields, kVersionFields;

constexpr int64_t kInline = 32;  // bytes of an array that stand in a layer's header itself
constexpr size_t kMostAxes = 32;
constexpr int64_t kMostElements = int64_t{1} << 40;  // of a tensor

// `x` is a map with every field of `tables` there and good, and, unless `others` may be there, with no other.
Problem checked(const Tree& x, std::initializer_list<Fields> tables, const std::string& where, bool others);

}  // namespace bl
