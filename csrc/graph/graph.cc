// Names, sizes and look-ups of what a graph is made of.
#include "graph.h"

#include <algorithm>
#include <cstring>

#include "file/checked.h"

namespace bl {

namespace {

struct TypeWord {
  const char* name;
  size_t size;
};

constexpr TypeWord kTypes[] = {  // in the order of Type
    {"bool", 1},  {"int8", 1},   {"uint8", 1}, {"int16", 2},  {"uint16", 2},  {"int32", 4},
    {"uint32", 4}, {"int64", 8}, {"uint64", 8}, {"float16", 2}, {"float32", 4}, {"float64", 8},
};

}  // namespace

size_t size_of(Type type) { return kTypes[static_cast<size_t>(type)].size; }

const char* name_of(Type type) { return kTypes[static_cast<size_t>(type)].name; }

bool type_named(const std::string& name, Type& out) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeWord& t) { return name == t.name; });
  if (found == std::end(kTypes)) return false;
  out = static_cast<Type>(found - kTypes);
  return true;
}

int64_t elements(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n = capped_mul(n, size);
  return n;
}

int Format::low() const {
  if (kind == ternary) return -1;
  return nested() || is_unsigned || levels > 0 ? 0 : -(1 << (bits - 1));
}

int Format::high() const {
  if (kind == ternary) return 1;
  if (levels > 0) return levels - 1;
  return nested() || is_unsigned ? (1 << bits) - 1 : (1 << (bits - 1)) - 1;
}

const Array* Encoding::param(const std::string& name) const {
  const auto it = params.find(name);
  return it == params.end() ? nullptr : &it->second;
}

int64_t Codes::code(int64_t i) const {
  const uint8_t* at = bytes.data() + i * width;
  uint32_t word = 0;
  std::memcpy(&word, at, static_cast<size_t>(width));
  if (encoding.format.low() == 0) return word;
  const int unused = 32 - 8 * width;
  return static_cast<int32_t>(word << unused) >> unused;
}

int PerWidth::row(int width) const {
  const auto wider = std::lower_bound(bits.begin(), bits.end(), width);
  return static_cast<int>((wider == bits.end() ? wider - 1 : wider) - bits.begin());
}

const Encoding* Graph::encoding(const std::string& name) const {
  const auto it = encodings.find(name);
  return it == encodings.end() ? nullptr : &it->second;
}

int Graph::least_bits(const std::string& weight) const {
  const Tree* floors = meta.find("min_bits");
  const Tree* floor = floors ? floors->find(weight) : nullptr;
  const int64_t asked = floor && floor->whole() ? *floor->whole() : 1;
  const Codes* codes = constant<Codes>(weight);
  if (!codes) return static_cast<int>(asked);
  const Format& format = codes->encoding.format;
  if (!format.nested()) return format.bits;
  return static_cast<int>(std::min<int64_t>(std::max<int64_t>(asked, format.least_bits()), format.bits));
}

int64_t attr(const Node& node, const char* key, int64_t otherwise) {
  const Tree* x = node.attrs.find(key);
  if (x && x->whole()) return *x->whole();
  return x && x->flag() ? *x->flag() : otherwise;
}

double attr(const Node& node, const char* key, double otherwise) {
  const Tree* x = node.attrs.find(key);
  if (x && x->whole()) return static_cast<double>(*x->whole());
  return x && x->real() ? *x->real() : otherwise;
}

std::string attr(const Node& node, const char* key, const char* otherwise) {
  const Tree* x = node.attrs.find(key);
  return x && x->text() ? *x->text() : otherwise;
}

Shape attr(const Node& node, const char* key, const Shape& otherwise) {
  const Tree* x = node.attrs.find(key);
  if (!x || !x->list()) return otherwise;
  Shape out;
  for (const Tree& item : *x->list()) {
    if (!item.whole()) return otherwise;
    out.push_back(*item.whole());
  }
  return out;
}

}  // namespace bl
