// Reads files and prints what they hold, one canonical line per fact, so that another reader can be held to this one.
//
// Standard input has records: two 32-bit little-endian numbers, the widths to read and the length, then a file. For each
// the answer is "STATUS NEEDED", the lines of the graph if there is one, and a line with a single dot.
#include <cstdio>
#include <cstring>
#include <iterator>
#include <iostream>
#include <string>

#include "file/crc32.h"
#include "file/file.h"

namespace {

using namespace bl;

// Text as one word: bytes that are no plain character, quotes and backslashes in hexadecimal.
std::string word(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    char hex[5];
    std::snprintf(hex, sizeof hex, "\\%02x", static_cast<unsigned char>(c));
    if (c > ' ' && c <= '~' && c != '\'' && c != '\\') out += c;
    else out += hex;
  }
  return out + "'";
}

std::string real(double x) {
  uint64_t bits;
  if (x != x) return "fnan";
  std::memcpy(&bits, &x, 8);
  char out[18];
  std::snprintf(out, sizeof out, "f%016llx", static_cast<unsigned long long>(bits));
  return out;
}

std::string tree(const Tree& x) {
  if (x.is_null()) return "null";
  if (x.flag()) return *x.flag() ? "true" : "false";
  if (x.whole()) return std::to_string(*x.whole());
  if (x.real()) return real(*x.real());
  if (x.text()) return word(*x.text());
  std::string out;
  if (x.list()) {
    for (const Tree& item : *x.list()) out += tree(item) + ",";
    return "[" + out + "]";
  }
  std::map<std::string, std::string> sorted;
  for (const auto& [key, entry] : *x.map()) sorted[key] = tree(entry);
  for (const auto& [key, entry] : sorted) out += word(key) + ":" + entry + ",";
  return "{" + out + "}";
}

template <class List>
std::string numbers(const List& list) {
  std::string out = "[";
  for (const auto n : list) out += std::to_string(n) + ",";
  return out + "]";
}

std::string checksum(const std::vector<uint8_t>& bytes) {
  return std::to_string(crc32({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
}

std::string array(const Array& a) { return std::string(name_of(a.type)) + " " + numbers(a.shape) + " " + checksum(a.bytes); }

std::string encoding(const Encoding& e) {
  static constexpr const char* kKinds[] = {"fixed", "integer", "ternary", "midrise", "tree", "sign", "codebook", "log", "product"};
  const Format& f = e.format;
  std::string out = std::string(kKinds[f.kind]) + " " + std::to_string(f.bits) + (f.is_unsigned ? " unsigned" : " signed") +
                    (f.per_tensor ? " tensor " : " channel ") + std::to_string(f.group) + " " + std::to_string(f.low()) + ".." +
                    std::to_string(f.high()) + " " + numbers(e.axes);
  for (const auto& [name, values] : e.params) out += " " + name + "=" + array(values);
  return out;
}

// The sum over all codes of code times (place mod 251 + 1): reads them as the runtime does, by `code`.
int64_t sum_of(const Codes& c) {
  int64_t sum = 0;
  for (int64_t i = 0; i < elements(c.shape); ++i) sum += c.code(i) * (i % 251 + 1);
  return sum;
}

std::string constant(const Graph& graph, const std::string& name, const Constant& c) {
  if (const auto* a = std::get_if<Array>(&c)) return "array " + array(*a);
  if (const auto* p = std::get_if<PerWidth>(&c)) {
    std::string rows;
    for (int b = 1; b <= 65; ++b) rows += std::to_string(p->row(b)) + ",";
    return "widths " + word(p->of) + " " + numbers(p->bits) + " " + array(p->versions) + " " + rows;
  }
  const auto& q = std::get<Codes>(c);
  return "codes " + encoding(q.encoding) + " of " + numbers(q.shape) + " " + std::to_string(q.width) + " " + checksum(q.bytes) +
         " " + std::to_string(sum_of(q)) + " least " + std::to_string(graph.least_bits(name));
}

void print(const Graph& g) {
  for (const Input& v : g.inputs) {
    std::string shape = v.any_shape ? "any" : "[";
    for (size_t i = 0; i < v.shape.size(); ++i) {
      shape += (v.shape[i] < 0 ? word(v.free_axes[i]) : std::to_string(v.shape[i])) + ",";
    }
    std::cout << "input " << word(v.name) << " " << name_of(v.type) << " " << shape << "\n";
  }
  for (const std::string& name : g.outputs) std::cout << "output " << word(name) << "\n";
  for (const Node& n : g.nodes) {
    std::cout << "node " << word(n.op);
    for (const std::string& name : n.inputs) std::cout << " " << word(name);
    std::cout << " ->";
    for (const std::string& name : n.outputs) std::cout << " " << word(name);
    std::cout << " " << tree(n.attrs);
    if (n.clipped) std::cout << " clip " << (n.low ? real(*n.low) : "none") << " " << (n.high ? real(*n.high) : "none");
    std::cout << "\n";
  }
  for (const auto& [name, c] : g.constants) std::cout << "constant " << word(name) << " " << constant(g, name, c) << "\n";
  for (const auto& [name, e] : g.encodings) std::cout << "encoding " << word(name) << " " << encoding(e) << "\n";
  std::cout << "meta " << tree(g.meta) << "\n";
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  const std::string all((std::istreambuf_iterator<char>(std::cin)), {});
  for (size_t at = 0; at + 8 <= all.size();) {
    uint32_t bits, size;
    std::memcpy(&bits, all.data() + at, 4);
    std::memcpy(&size, all.data() + at + 4, 4);
    const std::vector<uint8_t> data(all.begin() + static_cast<long>(at) + 8, all.begin() + static_cast<long>(at + 8 + size));
    at += 8 + size;
    Graph graph;
    const Problem problem = read_file(data.data(), data.size(), static_cast<int>(bits), graph);
    std::cout << static_cast<int>(problem.status) << " " << problem.needed << "\n";
    if (problem) std::cout << problem.message << "\n";
    else print(graph);
    std::cout << ".\n";
  }
}
