// Bit planes as rows of words: code i is bit i % 64 of word i / 64, and no bit is set after the last code.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace bl {

struct Rows {
  int64_t count = 0;  // codes
  std::vector<std::vector<uint64_t>> planes;  // most significant first

  size_t words() const { return static_cast<size_t>((count + 63) / 64); }
  // The bits of word `i` that are codes.
  uint64_t there(size_t i) const {
    return i + 1 < words() || count % 64 == 0 ? ~uint64_t{0} : (uint64_t{1} << count % 64) - 1;
  }
};

// The `known` planes that codes of one byte each are.
Rows rows_of(const uint8_t* codes, int64_t count, int known);

// Codes of one byte each, of at most eight planes.
void codes_of(const Rows& rows, uint8_t* codes);

// Appends a plane that is stored as it is; false if its bytes are not that.
bool append_raw(std::string_view body, Rows& rows);

}  // namespace bl
