#include "problems.h"

namespace bl {

Problem malformed(const std::string& what) { return {Status::malformed, "load: " + what + "; the file is damaged", 0}; }

Problem damaged(const std::string& where, const std::string& must, const std::string& got) {
  return malformed(where + " must be " + must + ", got " + got);
}

std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) out += c >= ' ' && c <= '~' ? c : '?';
  return out + (text.size() > kLongest ? "...'" : "'");
}

std::string shown(const Tree& x) {
  if (x.text()) return quoted(*x.text());
  if (x.whole()) return std::to_string(*x.whole());
  if (x.flag()) return *x.flag() ? "true" : "false";
  if (x.list()) return "a list of " + std::to_string(x.list()->size());
  if (x.bytes()) return std::to_string(x.bytes()->size()) + " bytes";
  return x.is_null() ? "null" : x.map() ? "a map" : "a float";
}

}  // namespace bl
