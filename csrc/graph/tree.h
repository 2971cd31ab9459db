// A value of the header of a file: JSON's kinds, with whole numbers apart from others. Also the attributes of a node.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace bl {

struct Tree {
  using List = std::vector<Tree>;
  struct Entry;
  using Map = std::vector<Entry>;  // in the order of the text
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Map> value;

  bool is_null() const { return value.index() == 0; }
  const bool* flag() const { return std::get_if<bool>(&value); }
  const int64_t* whole() const { return std::get_if<int64_t>(&value); }
  const double* real() const { return std::get_if<double>(&value); }
  const std::string* text() const { return std::get_if<std::string>(&value); }
  const List* list() const { return std::get_if<List>(&value); }
  const Map* map() const { return std::get_if<Map>(&value); }

  // The entry of a map under `key`, or null where this is no map or has no such key.
  const Tree* find(std::string_view key) const;
};

// A key and its value, called as a pair's are; std::pair would need to know Tree while Tree is being defined.
struct Tree::Entry {
  std::string first;
  Tree second;
};

// The tree that `text` spells. False, with the reason in `why`, if it spells none: docs/file-format.md says what may stand
// in a header (ASCII, depth at most 32, no key twice, whole numbers of 64 bits, finite floats).
bool parse_tree(std::string_view text, Tree& out, std::string& why);

// Makes a float of every {"float":"inf"}, {"float":"-inf"} and {"float":"nan"} in `x`, a value in which they may stand.
// False if another object has the one key "float".
bool spell_out_floats(Tree& x);

}  // namespace bl
