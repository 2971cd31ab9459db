// The bytes of a file: a prelude, a header, and sections that follow each other without holes (docs/file-format.md).
// Knows nothing of networks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "file.h"
#include "graph/tree.h"

namespace bl {

constexpr int kMajor = 1, kMinor = 0;

// A row of the section table; offsets count from the first section.
struct Section {
  int64_t offset = 0, size = 0;
  uint32_t crc = 0;
  int64_t end() const { return offset + size; }
};

struct Container {
  std::string_view data;  // a file, or the first bytes of one
  int minor = 0;
  int64_t header_end = 0, start = 0;  // `start`: where the first section begins
  Tree header;
  std::vector<Section> sections;

  // How long a prefix of the file must be to hold section `number` and all before it.
  int64_t needed(size_t number) const { return start + sections[number].end(); }
  size_t present() const;  // how many sections `data` holds whole
};

// Checks everything but what sections hold. Leaves `out.header` a map.
Problem open_container(std::string_view data, Container& out);

// `file` has `needed` bytes, or says that it is truncated.
Problem require(const Container& file, int64_t needed);

// The bytes of section `number`, checked, with the padding before it.
Problem read_section(const Container& file, size_t number, std::string_view& body);

// What errors say: one line, with at most 60 characters of what a file holds, all of them printable.
Problem malformed(const std::string& what);
std::string quoted(std::string_view text);

uint32_t crc32(std::string_view data);

}  // namespace bl
