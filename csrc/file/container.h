// The bytes of a file up to its first segment: prelude, network header, offset table, layer headers (docs/file-format.md).
// Knows nothing of networks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "codec/texts.h"
#include "file.h"

namespace bl {

constexpr int kMajor = 2, kMinor = 0;

struct Container {
  std::string_view data;  // a file, or the first bytes of one
  bool newer = false;     // its minor version is above this reader's: keys may come that are unknown here
  int64_t start = 0;      // where the first segment begins
  int64_t total = 0;      // the length of the whole file
  std::string text;       // the network header, decoded
  Texts texts;            // what the headers decoded so far let one expect of the next
  std::vector<std::string_view> records;  // the layer headers, as stored
  int64_t text_left = 0;  // bytes that the decoded layer headers may still take
};

// Checks everything up to the first segment but what the headers' texts say.
Problem open_container(std::string_view data, Container& out);

// The decoded text of layer header `number`. Call it once for each, in order.
Problem read_record(Container& file, size_t number, std::string& text);

// `file` has `needed` bytes, or says that it is truncated.
Problem require(const Container& file, int64_t needed);

}  // namespace bl
