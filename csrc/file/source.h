// The sections of a file being read; every one may be taken once, and is checked before anything is made from it.
#pragma once

#include <string>
#include <vector>

#include "container.h"
#include "graph/graph.h"

namespace bl {

class Source {
 public:
  explicit Source(const Container& file) : file_(file), taken_(file.sections.size()) {}

  const Container& file() const { return file_; }

  // Section `number` now belongs to `where`.
  Problem claim(int64_t number, const std::string& where);
  int64_t last_claimed() const;  // -1 if none is
  Problem all_claimed() const;

  Problem array(const Tree& entry, const std::string& where, Array& out);

  // `shape`: of the weight that is encoded; null for an activation, which has any.
  Problem encoding(const Tree& entry, const std::string& where, const Shape* shape, Encoding& out);

  // The codes of `out`, which has its encoding and its shape, from one section.
  Problem codes(int64_t number, const std::string& where, Codes& out);

  // The bytes of one plane of `count` codes, from a section that was claimed.
  Problem plane(int64_t number, const std::string& where, int64_t count, std::string_view& out);

 private:
  Problem parameter(const Tree& entry, const std::string& where, Array& out);
  Problem read(int64_t number, const std::string& where, int64_t size, std::string_view& body);

  const Container& file_;
  std::vector<bool> taken_;
};

// The shape of an entry, refused if no memory holds such a tensor.
Problem shape_of(const Tree& entry, const std::string& where, Shape& out);

// The format of an entry that has one.
Problem check_format(const Tree& entry, const std::string& where, Format& out);

}  // namespace bl
