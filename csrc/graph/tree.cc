#include "tree.h"

namespace bl {

const Tree* Tree::find(std::string_view key) const {
  if (const Map* entries = map()) {
    for (const auto& [name, entry] : *entries) {
      if (name == key) return &entry;
    }
  }
  return nullptr;
}

}  // namespace bl
