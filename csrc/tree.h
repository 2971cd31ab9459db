// A value of the header of a file: JSON's kinds, with whole numbers apart from others. Also the attributes of a node.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace bl {

struct Tree {
  using List = std::vector<Tree>;
  using Map = std::vector<std::pair<std::string, Tree>>;  // in the order of the text
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

// The tree that `text` spells. False, with the reason in `why`, if it spells none: docs/file-format.md says what may stand
// in a header (ASCII, depth at most 32, no key twice, whole numbers of 64 bits, {"float":"inf"} and its kin).
bool parse_tree(std::string_view text, Tree& out, std::string& why);

}  // namespace bl
