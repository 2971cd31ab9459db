#include "container.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bl {

namespace {

constexpr std::string_view kMagic("\x89LADDER\n", 8);
constexpr size_t kPrelude = 20;
constexpr int64_t kMostHeader = 16 << 20, kAlign = 64, kLargestFile = INT64_MAX;

constexpr int64_t aligned(int64_t offset) { return (offset + kAlign - 1) / kAlign * kAlign; }

template <class T>
T little(std::string_view data, size_t at) {
  T out = 0;
  for (size_t i = sizeof(T); i-- > 0;) out = static_cast<T>(out << 8 | static_cast<uint8_t>(data[at + i]));
  return out;
}

// Tables for eight bytes at a time: entry [k][b] is the remainder of byte b followed by k zeros.
constexpr std::array<std::array<uint32_t, 256>, 8> crc_tables() {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    t[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t b = 0; b < 256; ++b) t[k][b] = t[k - 1][b] >> 8 ^ t[0][t[k - 1][b] & 255];
  }
  return t;
}

constexpr auto kCrc = crc_tables();

}  // namespace

uint32_t crc32(std::string_view data) {
  uint32_t c = ~0u;
  size_t at = 0;
  for (; at + 8 <= data.size(); at += 8) {
    const uint64_t word = little<uint64_t>(data, at) ^ c;
    c = 0;
    for (size_t k = 0; k < 8; ++k) c ^= kCrc[7 - k][word >> (8 * k) & 255];
  }
  for (; at < data.size(); ++at) c = c >> 8 ^ kCrc[0][(c ^ static_cast<uint8_t>(data[at])) & 255];
  return ~c;
}

Problem malformed(const std::string& what) { return {Status::malformed, "load: " + what + "; the file is damaged", 0}; }

std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) out += c >= ' ' && c <= '~' ? c : '?';
  return out + (text.size() > kLongest ? "...'" : "'");
}

size_t Container::present() const {
  size_t n = 0;
  while (n < sections.size() && static_cast<uint64_t>(needed(n)) <= data.size()) ++n;
  return n;
}

Problem require(const Container& file, int64_t needed) {
  if (file.data.size() >= static_cast<uint64_t>(needed)) return {};
  return {Status::truncated,
          "load: the file ends after " + std::to_string(file.data.size()) + " bytes, must have at least " +
              std::to_string(needed) + " for what was asked; fetch the rest, or ask for fewer bits",
          static_cast<uint64_t>(needed)};
}

namespace {

// One row of the section table, which must begin where the one before ends.
Problem check_row(const Tree& row, const std::string& where, int64_t expected, Section& out) {
  const Tree::List* cells = row.list();
  if (!cells || cells->size() != 4) return malformed(where + " must have offset, size, checksum and coding");
  constexpr struct {
    const char* name;
    int64_t most;
  } kNumbers[] = {{"offset", kLargestFile}, {"size", kLargestFile}, {"checksum", UINT32_MAX}};
  for (size_t i = 0; i < 3; ++i) {
    const int64_t* x = (*cells)[i].whole();
    if (!x || *x < 0 || *x > kNumbers[i].most) {
      const std::string must = " must be a whole number up to " + std::to_string(kNumbers[i].most);
      return malformed(std::string(kNumbers[i].name) + " of " + where + must);
    }
  }
  const std::string* coding = (*cells)[3].text();
  if (!coding || *coding != "raw") {
    return malformed("coding of " + where + " must be 'raw', got " + (coding ? quoted(*coding) : "no text"));
  }
  out = {*(*cells)[0].whole(), *(*cells)[1].whole(), static_cast<uint32_t>(*(*cells)[2].whole())};
  if (out.offset != expected) {
    const std::string must = ", must be at " + std::to_string(expected) + ", after the one before";
    return malformed(where + " is at " + std::to_string(out.offset) + must);
  }
  if (out.size > kLargestFile - 2 * kMostHeader - out.offset) return malformed(where + " ends beyond any file");
  return {};
}

Problem check_sections(const Tree* rows, std::vector<Section>& out) {
  if (!rows || !rows->list()) return malformed("the header must have a list of sections");
  out.reserve(rows->list()->size());
  for (const Tree& row : *rows->list()) {
    Section section;
    const int64_t expected = out.empty() ? 0 : aligned(out.back().end());
    if (Problem p = check_row(row, "section " + std::to_string(out.size()), expected, section)) return p;
    out.push_back(section);
  }
  return {};
}

}  // namespace

Problem open_container(std::string_view data, Container& out) {
  out.data = data;
  if (data.substr(0, kMagic.size()) != kMagic.substr(0, data.size())) {
    return {Status::malformed, "load: this does not begin like a ladder file; give a file that quantize wrote", 0};
  }
  if (Problem p = require(out, kPrelude)) return p;
  const int major = little<uint16_t>(data, 8);
  out.minor = little<uint16_t>(data, 10);
  if (major != kMajor) {
    return {Status::unsupported,
            "load: the file has format " + std::to_string(major) + "." + std::to_string(out.minor) + ", must be " +
                std::to_string(kMajor) + ".x for this version; install another", 0};
  }
  const int64_t length = little<uint32_t>(data, 12);
  if (length > kMostHeader) {
    return malformed("the header has " + std::to_string(length) + " bytes, must have at most " + std::to_string(kMostHeader));
  }
  out.header_end = static_cast<int64_t>(kPrelude) + length;
  out.start = aligned(out.header_end);
  if (Problem p = require(out, out.header_end)) return p;
  const std::string_view text = data.substr(kPrelude, static_cast<size_t>(length));
  if (crc32(text) != little<uint32_t>(data, 16)) {
    return {Status::malformed, "load: the header has a wrong checksum; fetch the file again", 0};
  }
  std::string why;
  if (!parse_tree(text, out.header, why)) return malformed("the header cannot be read: " + why);
  if (!out.header.map()) return malformed("the header must be a JSON object");
  if (Problem p = check_sections(out.header.find("sections"), out.sections)) return p;
  const int64_t total = out.sections.empty() ? out.header_end : out.needed(out.sections.size() - 1);
  if (data.size() > static_cast<uint64_t>(total)) {
    const uint64_t more = data.size() - static_cast<uint64_t>(total);
    return malformed("there are " + std::to_string(more) + " bytes after the end of the file");
  }
  return {};
}

Problem read_section(const Container& file, size_t number, std::string_view& body) {
  const Section& section = file.sections[number];
  if (Problem p = require(file, file.needed(number))) return p;
  const auto begin = static_cast<size_t>(number ? file.needed(number - 1) : file.header_end);
  const auto first = static_cast<size_t>(file.start + section.offset);
  const std::string_view padding = file.data.substr(begin, first - begin);
  const std::string where = "section " + std::to_string(number);
  if (std::any_of(padding.begin(), padding.end(), [](char c) { return c != 0; })) {
    return malformed("the padding before " + where + " is not zero");
  }
  body = file.data.substr(first, static_cast<size_t>(section.size));
  if (crc32(body) != section.crc) {
    return {Status::malformed, "load: " + where + " has a wrong checksum; fetch the file again", 0};
  }
  return {};
}

}  // namespace bl
