#include "container.h"

#include <algorithm>

#include "checked.h"
#include "codec/codec.h"
#include "crc32.h"
#include "cursor.h"
#include "problems.h"
#include "sha256.h"

namespace bl {

namespace {

constexpr std::string_view kMagic("\x89LAD\r\n\x1a\n", 8), kStartCode("NQ", 2);
constexpr int64_t kPrelude = 88, kHashed = 52, kMostHeader = 16 << 20, kMostRecord = 1 << 20, kMostLayers = 65535;
constexpr int64_t kLongestVarint = 10;
constexpr int64_t kLargestFile = int64_t{1} << 62;
constexpr uint32_t kDelta = 1, kMustKnow = 0xffff;  // flags

// The prelude as it is spelt, after the magic.
struct Prelude {
  uint16_t major = 0, minor = 0;
  uint32_t flags = 0, network = 0, decoded = 0, layers = 0, table = 0, records = 0;
  uint64_t total = 0;
  uint32_t network_crc = 0, table_crc = 0;
  std::string_view identity;
  uint32_t crc = 0;
};

Prelude spelt(std::string_view data) {
  Prelude p;
  Cursor in(data.substr(kMagic.size(), static_cast<size_t>(kPrelude) - kMagic.size()));
  const bool whole = in.little(p.major) && in.little(p.minor) && in.little(p.flags) && in.little(p.network) &&
                     in.little(p.decoded) && in.little(p.layers) && in.little(p.table) && in.little(p.records) &&
                     in.little(p.total) && in.little(p.network_crc) && in.little(p.table_crc) && in.take(32, p.identity) &&
                     in.little(p.crc);
  return whole ? p : Prelude{};  // there are as many bytes as that
}

Problem wrong_checksum(const std::string& of) {
  return {Status::malformed, "load: " + of + " has a wrong checksum; fetch the file again", 0};
}

Problem at_most(const std::string& what, int64_t got, int64_t most) {
  if (got <= most) return {};
  return malformed(what + " must be at most " + std::to_string(most) + ", got " + std::to_string(got));
}

Problem check_major(const Prelude& p) {
  if (p.major == kMajor) return {};
  return {Status::unsupported,
          "load: the file has format " + std::to_string(p.major) + "." + std::to_string(p.minor) + ", must be " +
              std::to_string(kMajor) + ".x for this version; install another", 0};
}

Problem check_flags(const Prelude& p) {
  if (p.flags & kMustKnow & ~kDelta) {
    return {Status::unsupported, "load: the file has flags " + std::to_string(p.flags & kMustKnow) +
                                     ", which are unknown here; install a version that has them", 0};
  }
  if (p.flags & kDelta) {
    return {Status::unsupported, "load: the file is a delta, which needs its base; apply it to the base first", 0};
  }
  return {};
}

// Where the first segment begins, and that all lengths are within their limits.
Problem check_lengths(const Prelude& p, Container& out) {
  if (p.total > static_cast<uint64_t>(kLargestFile)) return malformed("the file must be at most 2^62 bytes long");
  out.total = static_cast<int64_t>(p.total);
  int64_t most_table = 0;
  if (!checked_mul(kLongestVarint, p.layers, most_table)) return malformed("it has too many layers");
  if (Problem problem = at_most("the length of the network header", p.network, kMostHeader)) return problem;
  if (Problem problem = at_most("the decoded length of the network header", p.decoded, kMostHeader)) return problem;
  if (Problem problem = at_most("the number of layers", p.layers, kMostLayers)) return problem;
  if (Problem problem = at_most("the number of layers", p.layers, p.table)) return problem;
  if (Problem problem = at_most("the length of the offset table", p.table, most_table)) return problem;
  if (Problem problem = at_most("the length of the layer headers", p.records, kMostHeader)) return problem;
  int64_t start = kPrelude;
  for (const uint32_t length : {p.network, p.table, p.records}) {
    if (!checked_add(start, length, start)) return malformed("its headers are longer than any file");
  }
  out.start = start;
  return {};
}

Problem check_identity(const Prelude& p, std::string_view data, std::string_view headers) {
  Sha256 hash;
  hash.update(data.substr(0, static_cast<size_t>(kHashed)));
  hash.update(headers);
  const Digest digest = hash.digest();
  const bool same = std::equal(digest.begin(), digest.end(), p.identity.begin(),
                               [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); });
  return same ? Problem{} : Problem{Status::malformed, "load: the identity of the file is not that of its headers; fetch it again", 0};
}

// A text as headers have it, how it is coded and then the rest; never much longer than what is there.
bool decode(std::string_view stored, size_t length, Texts& texts, std::string& out) {
  constexpr size_t kMostPerByteOfText = 64, kSpare = 1024;
  if (stored.empty()) return false;
  const PartView part{static_cast<uint8_t>(stored[0]), stored.substr(1)};
  if (part.coding != kRaw && length > kSpare && parts_of(static_cast<int64_t>(length - kSpare), kMostPerByteOfText) > static_cast<int64_t>(part.body.size())) return false;
  return texts.decode(part, length, out);
}

// The records, as the offset table cuts them.
Problem cut_records(std::string_view table, std::string_view records, size_t layers, std::vector<std::string_view>& out) {
  Cursor lengths(table), in(records);
  for (size_t i = 0; i < layers; ++i) {
    uint64_t length = 0;
    if (!lengths.varint(length)) return malformed("the offset table ends before layer " + std::to_string(i));
    if (!in.take(length, out.emplace_back())) return malformed("layer header " + std::to_string(i) + " has no end");
  }
  if (lengths.left() || in.left()) return malformed("the offset table does not cover the layer headers");
  return {};
}

}  // namespace

Problem require(const Container& file, int64_t needed) {
  if (file.data.size() >= static_cast<uint64_t>(needed)) return {};
  return {Status::truncated,
          "load: the file ends after " + std::to_string(file.data.size()) + " bytes, must have at least " +
              std::to_string(needed) + " for what was asked; fetch the rest, or ask for fewer bits",
          static_cast<uint64_t>(needed)};
}

Problem open_container(std::string_view data, Container& out) {
  out.data = data;
  if (data.substr(0, kMagic.size()) != kMagic.substr(0, data.size())) {
    return {Status::malformed, "load: this does not begin like a ladder file; give a file that quantize wrote", 0};
  }
  if (Problem p = require(out, kPrelude)) return p;
  const Prelude prelude = spelt(data);
  if (Problem p = check_major(prelude)) return p;
  if (crc32(data.substr(0, static_cast<size_t>(kPrelude) - sizeof prelude.crc)) != prelude.crc) return wrong_checksum("the prelude");
  if (Problem p = check_flags(prelude)) return p;
  out.newer = prelude.minor > kMinor;
  if (Problem p = check_lengths(prelude, out)) return p;
  if (data.size() > prelude.total) {
    return malformed("there are " + std::to_string(data.size() - prelude.total) + " bytes after the end of the file");
  }
  if (Problem p = require(out, out.start)) return p;
  std::string_view network, table, records;
  Cursor headers(data.substr(static_cast<size_t>(kPrelude), static_cast<size_t>(out.start - kPrelude)));
  const std::string_view all = data.substr(static_cast<size_t>(kPrelude), headers.left());
  headers.take(prelude.network, network) && headers.take(prelude.table, table) && headers.take(prelude.records, records);
  if (crc32(network) != prelude.network_crc) return wrong_checksum("the network header");
  if (crc32(table) != prelude.table_crc) return wrong_checksum("the offset table");
  if (Problem p = check_identity(prelude, data, all)) return p;
  out.text_left = kMostHeader;
  if (Problem p = cut_records(table, records, prelude.layers, out.records)) return p;
  return decode(network, prelude.decoded, out.texts, out.text) ? Problem{} : malformed("the network header cannot be decoded");
}

Problem read_record(Container& file, size_t number, std::string& text) {
  const std::string where = "layer header " + std::to_string(number);
  constexpr size_t kSum = 4;
  const std::string_view record = file.records[number];
  std::string_view code;
  Cursor in(record.substr(0, record.size() - std::min(record.size(), kSum)));
  uint32_t crc = 0;
  if (!Cursor(record.substr(record.size() - std::min(record.size(), kSum))).little(crc)) return malformed(where + " is too short");
  if (crc32(record.substr(0, in.left())) != crc) return wrong_checksum(where);
  uint16_t its_number = 0;
  uint64_t length = 0;
  if (!in.take(kStartCode.size(), code) || code != kStartCode || !in.little(its_number) || its_number != number) {
    return malformed(where + " does not begin as it must");
  }
  if (!in.varint(length) || length > static_cast<uint64_t>(kMostRecord)) return malformed(where + " is too long");
  if (static_cast<int64_t>(length) > file.text_left) return malformed("the layer headers together are too long");
  file.text_left -= static_cast<int64_t>(length);
  std::string_view stored;
  in.take(in.left(), stored);
  return decode(stored, static_cast<size_t>(length), file.texts, text) ? Problem{} : malformed(where + " cannot be decoded");
}

}  // namespace bl
