// Bit planes as rows of words: code i is bit i % 64 of word i / 64, and no bit is set after the last code.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace bl {

constexpr size_t kMostPlanes = 8;  // of codes of one byte

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

// The planes so far: as rows for coders that work on many codes at once, as codes for those that go from code to code.
class Prefix {
 public:
  Prefix(uint8_t* codes, int64_t count) : codes_(codes), count_(count) {}

  Rows& rows(int known) {
    if (!in_rows_) rows_ = rows_of(codes_, count_, known);
    in_rows_ = true;
    return rows_;
  }
  uint8_t* codes() {
    if (in_rows_) codes_of(rows_, codes_);
    in_rows_ = false;
    return codes_;
  }

 private:
  uint8_t* codes_;
  int64_t count_;
  Rows rows_;
  bool in_rows_ = false;
};

// Appends a plane that is stored as it is; false if its bytes are not that.
bool append_raw(std::string_view body, Rows& rows);

}  // namespace bl
