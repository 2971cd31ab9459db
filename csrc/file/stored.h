// Arrays and encodings as headers describe them: checked as far as headers say, and not decoded yet.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "file.h"
#include "graph/graph.h"

namespace bl {

// Where the bytes of a part lie in a layer's segments, and how they are coded.
struct Place {
  int64_t segment = 0, coding = 0, length = 0;
  int64_t offset = 0;  // from the beginning of the segment
};

// The bytes of an array: in the header itself, or in a part.
struct Blob {
  Tree::Bytes here;
  std::optional<Place> place;
};

struct StoredArray {
  Type type = Type::f32;
  Shape shape;
  int64_t count = 0, bytes = 0;
  Blob blob;
};

struct StoredEncoding {
  Format format;
  std::vector<int> axes;
  std::map<std::string, StoredArray> params;
};

// Where arrays may have their bytes: in a layer's header short ones stand in it and long ones in parts.
enum class Inline { short_ones, all };

// The shape of an entry, refused if no memory holds such a tensor, and how many elements that is.
Problem shape_of(const Tree& entry, const std::string& where, Shape& out, int64_t& count);

// A part as its three numbers say it; its offset is not known yet.
Place place_of(const Tree& part);

// The bytes of an array of `size` bytes, from an entry that was checked to have `bytes` or `part` or both or neither.
Problem stored_blob(const Tree& entry, int64_t size, Inline which, const std::string& where, Blob& out);

Problem stored_array(const Tree& entry, Inline which, const std::string& where, StoredArray& out);

// `shape`: of the weight that is encoded; null for an activation, which has any. `newer`: parameters may come that are
// unknown here; they have places like others.
// `shared`: a checked map that has what the entry lacks, params of it inline; null for an activation.
Problem stored_encoding(const Tree& entry, const Tree* shared, const Shape* shape, bool newer, const std::string& where,
                        StoredEncoding& out);

// Whether a parameter `name` may have these values.
Problem check_values(const std::string& name, const Array& values, const std::string& where);

}  // namespace bl
