#include "expand.h"

#include <algorithm>

namespace bl {

namespace {

constexpr int kTopPower = 6;  // 2^6 is the largest power that int8 has with either sign; -2^7 has no twin

bool expandable(const Format& f) {
  if (f.kind == Format::product) return true;
  return f.kind == Format::log && f.octave == 1 && f.high() - 1 <= kTopPower;
}

int8_t power(int64_t code) {
  if (code == 0) return 0;
  return static_cast<int8_t>(code > 0 ? 1 << (code - 1) : -(1 << (-code - 1)));
}

// Codes (outputs, blocks, rest) as weights (outputs, blocks * dim, rest).
std::vector<uint8_t> weights_of(const Codes& c) {
  const int64_t dim = c.encoding.format.dim, outer = c.shape[0] * c.shape[1];
  const int64_t inner = outer == 0 ? 0 : elements(c.shape) / outer;
  const Array& table = *c.encoding.param("centroids");
  std::vector<uint8_t> out(static_cast<size_t>(outer * inner * dim));
  for (int64_t block = 0; block < outer; ++block)
    for (int64_t i = 0; i < inner; ++i) {
      const int8_t* centroid = table.as<int8_t>() + c.code(block * inner + i) * dim;
      for (int64_t d = 0; d < dim; ++d) out[static_cast<size_t>((block * dim + d) * inner + i)] = static_cast<uint8_t>(centroid[d]);
    }
  return out;
}

void expand(Codes& c) {
  Encoding& e = c.encoding;
  if (e.format.kind == Format::product) {
    c.bytes = weights_of(c);
    c.shape[1] *= e.format.dim;
    e.params.erase("centroids");
  } else {
    std::vector<uint8_t> bytes(static_cast<size_t>(elements(c.shape)));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(power(c.code(static_cast<int64_t>(i))));
    c.bytes = std::move(bytes);
  }
  c.width = 1;
  e.format = Format{};  // int8
  e.format.per_tensor = e.axes.empty();
}

}  // namespace

bool has_expandable(const Graph& graph) {
  return std::any_of(graph.constants.begin(), graph.constants.end(), [](const auto& named) {
    const auto* codes = std::get_if<Codes>(&named.second);
    return codes != nullptr && expandable(codes->encoding.format);
  });
}

void expand(Graph& graph) {
  for (auto& [name, constant] : graph.constants)
    if (auto* codes = std::get_if<Codes>(&constant); codes != nullptr && expandable(codes->encoding.format)) expand(*codes);
}

}  // namespace bl
