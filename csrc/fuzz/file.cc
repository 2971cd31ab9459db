// Whatever bytes come in, the reader gives a graph that holds together or a problem. The input is a byte of flags, then
// sections' worth of a file: with the lowest bit of the flags set, a prelude with good lengths and checksum is put before
// the header, so that mutations reach what lies behind the checksum.
#include "file/file.h"

#include <cstdlib>
#include <string>

#include "file/container.h"

namespace {

using namespace bl;

void expect(bool holds) {
  if (!holds) std::abort();
}

size_t bytes_of(const Array& a) { return static_cast<size_t>(elements(a.shape)) * size_of(a.type); }

void check(const Graph& graph, int bits) {
  for (const auto& [name, c] : graph.constants) {
    if (const auto* a = std::get_if<Array>(&c)) expect(a->bytes.size() == bytes_of(*a));
    if (const auto* p = std::get_if<PerWidth>(&c)) {
      expect(p->versions.bytes.size() == bytes_of(p->versions) && graph.constant<Codes>(p->of));
      for (const int b : {1, 4, 99}) expect(p->row(b) >= 0 && p->row(b) < p->versions.shape[0]);
    }
    const auto* q = std::get_if<Codes>(&c);
    if (!q) continue;
    const Format& format = q->encoding.format;
    const int64_t count = elements(q->shape);
    expect(q->bytes.size() == static_cast<size_t>(count * q->width));
    for (int64_t i = 0; i < count; ++i) expect(format.low() <= q->code(i) && q->code(i) <= format.high());
    if (format.nested()) expect(format.bits >= graph.least_bits(name) || bits == 0);
  }
}

// The text up to the first zero byte as the header of a file, the rest as its sections.
std::string with_prelude(const std::string& text) {
  const size_t length = std::min(text.find('\0'), text.size());
  const std::string header = text.substr(0, length);
  std::string out("\x89LADDER\n\1\0\0\0", 12);
  for (const uint32_t x : {static_cast<uint32_t>(length), crc32(header)}) {
    for (int i = 0; i < 4; ++i) out += static_cast<char>(x >> (8 * i));
  }
  out += header;
  if (length + 1 >= text.size()) return out;
  out.resize((out.size() + 63) / 64 * 64);
  return out + text.substr(length + 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const int bits = data[0] >> 1 & 15;
  std::string file(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 1) file = with_prelude(file);
  const std::vector<uint8_t> copy(file.begin(), file.end());  // of just this size, so that reads past its end are seen
  Graph graph;
  const Problem problem = read_file(copy.data(), copy.size(), bits, graph);
  if (!problem) check(graph, bits);
  if (problem.status == Status::truncated) expect(problem.needed > copy.size());
  if (problem) expect(!problem.message.empty() && problem.message.find('\n') == std::string::npos);
  return 0;
}
