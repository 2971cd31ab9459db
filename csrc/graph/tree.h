// A value as headers of files have it: the attributes of a node, or what a network says of itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace bl {

struct Tree {
  using Bytes = std::vector<uint8_t>;
  using List = std::vector<Tree>;
  struct Entry;
  using Map = std::vector<Entry>;  // in the order of the file
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Map, Bytes> value;

  bool is_null() const { return value.index() == 0; }
  const bool* flag() const { return std::get_if<bool>(&value); }
  const int64_t* whole() const { return std::get_if<int64_t>(&value); }
  const double* real() const { return std::get_if<double>(&value); }
  const std::string* text() const { return std::get_if<std::string>(&value); }
  const List* list() const { return std::get_if<List>(&value); }
  const Map* map() const { return std::get_if<Map>(&value); }
  const Bytes* bytes() const { return std::get_if<Bytes>(&value); }

  // The entry of a map under `key`, or null where this is no map or has no such key.
  const Tree* find(std::string_view key) const;
};

// A key and its value, called as a pair's are; std::pair would need to know Tree while Tree is being defined.
struct Tree::Entry {
  std::string first;
  Tree second;
};

}  // namespace bl
