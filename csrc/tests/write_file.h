// Files put together from their pieces, with good lengths and checksums and everything raw: for tests and fuzzing. What the
// pieces say may be wrong.
#pragma once

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "file/crc32.h"
#include "file/sha256.h"
#include "file/trees.h"

namespace bl {

struct Pieces {
  uint16_t major = 2, minor = 0;
  uint32_t flags = 0;
  std::string network;              // the text of the network header
  std::vector<std::string> layers;  // the texts of the layer headers
  std::string segments;             // all of them
};

template <class T>
void put(std::string& out, T x) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(uint64_t{x} >> (8 * i));
}

inline void put_varint(std::string& out, uint64_t x) {
  for (; x > 127; x >>= 7) out += static_cast<char>(x | 128);
  out += static_cast<char>(x);
}

inline std::string file_of(const Pieces& p) {
  std::string network("\0", 1), table, records;
  network += p.network;
  for (size_t i = 0; i < p.layers.size(); ++i) {
    std::string record = "NQ";
    put(record, static_cast<uint16_t>(i));
    put_varint(record, p.layers[i].size());
    record += '\0';
    record += p.layers[i];
    put(record, crc32(record));
    put_varint(table, record.size());
    records += record;
  }
  std::string out("\x89LAD\r\n\x1a\n", 8);
  put(out, p.major);
  put(out, p.minor);
  put(out, p.flags);
  for (const size_t n : {network.size(), p.network.size(), p.layers.size(), table.size(), records.size()}) {
    put(out, static_cast<uint32_t>(n));
  }
  put(out, uint64_t{88 + network.size() + table.size() + records.size() + p.segments.size()});
  put(out, crc32(network));
  put(out, crc32(table));
  Sha256 hash;
  for (const std::string& piece : {out, network, table, records}) hash.update(piece);
  for (const uint8_t byte : hash.digest()) out += static_cast<char>(byte);
  put(out, crc32(out));
  return out + network + table + records + p.segments;
}

// ------------------------------------------------------------------------------------------------------------- trees

inline void collect(const Tree& x, Strings& out) {
  if (x.text()) out.push_back(*x.text());
  if (x.list()) {
    for (const Tree& item : *x.list()) collect(item, out);
  }
  if (!x.map()) return;
  for (const auto& [key, entry] : *x.map()) {
    out.push_back(key);
    collect(entry, out);
  }
}

inline std::string spelt_strings(Strings& strings) {
  std::sort(strings.begin(), strings.end());
  strings.erase(std::unique(strings.begin(), strings.end()), strings.end());
  std::string out, last;
  put_varint(out, strings.size());
  for (const std::string& s : strings) {
    const auto shared = static_cast<size_t>(std::mismatch(s.begin(), s.end(), last.begin(), last.end()).first - s.begin());
    put_varint(out, shared);
    put_varint(out, s.size() - shared);
    out += s.substr(shared);
    last = s;
  }
  return out;
}

inline void spell(const Tree& x, const Strings& strings, std::string& out) {
  const auto number = [&](const std::string& s) {
    return static_cast<uint64_t>(std::lower_bound(strings.begin(), strings.end(), s) - strings.begin());
  };
  if (x.is_null()) out += '\0';
  if (x.flag()) out += *x.flag() ? '\2' : '\1';
  if (x.whole()) {
    out += '\3';
    put_varint(out, static_cast<uint64_t>(*x.whole()) << 1 ^ static_cast<uint64_t>(*x.whole() >> 63));
  }
  if (x.real()) {
    out += '\4';
    put(out, std::bit_cast<uint64_t>(*x.real()));
  }
  if (x.text()) {
    out += '\5';
    put_varint(out, number(*x.text()));
  }
  if (x.list()) {
    out += '\6';
    put_varint(out, x.list()->size());
    for (const Tree& item : *x.list()) spell(item, strings, out);
  }
  if (x.map()) {
    std::vector<const Tree::Entry*> entries;
    for (const Tree::Entry& entry : *x.map()) entries.push_back(&entry);
    std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
    out += '\7';
    put_varint(out, entries.size());
    for (const Tree::Entry* entry : entries) {
      put_varint(out, number(entry->first));
      spell(entry->second, strings, out);
    }
  }
  if (x.bytes()) {
    out += '\10';
    put_varint(out, x.bytes()->size());
    out.append(x.bytes()->begin(), x.bytes()->end());
  }
}

// Sets the texts of the headers to these trees.
inline void write_trees(const Tree& network, const std::vector<Tree>& layers, Pieces& out) {
  Strings strings;
  collect(network, strings);
  for (const Tree& layer : layers) collect(layer, strings);
  out.network = spelt_strings(strings);
  spell(network, strings, out.network);
  out.layers.clear();
  for (const Tree& layer : layers) spell(layer, strings, out.layers.emplace_back());
}

// Trees written in C++.
inline Tree tree(int64_t x) { return {x}; }
inline Tree tree(const char* x) { return {std::string(x)}; }
inline Tree tree(Tree::Bytes x) { return {std::move(x)}; }
inline Tree list(Tree::List x = {}) { return {std::move(x)}; }
inline Tree map(Tree::Map x = {}) { return {std::move(x)}; }

}  // namespace bl
