#include "border.h"

#include "kernels.h"

namespace bl {
namespace {

constexpr int64_t most_threads = 1024;
constexpr int64_t most_bytes = int64_t{1} << 46;  // of one array

Problem wrong(std::string message) { return {Status::wrong_input, std::move(message), 0}; }

std::string names_of_sets() {
  std::string names;
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels)
    names += (names.empty() ? "" : ", ") + std::string((*kernels)->name);
  return names;
}

bool exists(const Shape& shape, Type type) {
  int64_t bytes = static_cast<int64_t>(size_of(type));
  for (const int64_t size : shape) {
    if (size < 0) return false;
    if (size > 0 && (__builtin_mul_overflow(bytes, size, &bytes) || bytes > most_bytes)) return false;
  }
  return true;
}

bool agrees(const Shape& shape, const Input& input) {
  if (input.any_shape) return true;
  if (shape.size() != input.shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i)
    if (input.shape[i] >= 0 && input.shape[i] != shape[i]) return false;
  return true;
}

}  // namespace

Problem choose(int64_t threads, int64_t batch, const std::string& isa, Options& out) {
  if (threads < 0 || threads > most_threads)
    return wrong("open: threads must be from 1 to " + std::to_string(most_threads) + ", got " + std::to_string(threads));
  if (batch < 0) return wrong("open: batch must be from 1 up, got " + std::to_string(batch));
  out.threads = threads ? static_cast<int>(threads) : 1;
  out.batch = batch ? batch : 1;
  out.kernels = isa.empty() ? available_kernels()[0] : kernels_named(isa.c_str());
  if (!out.kernels) return wrong("open: the instruction set must be one of " + names_of_sets() + ", got '" + isa + "'");
  return {};
}

Problem check_shapes(const Graph& graph, const std::vector<Shape>& shapes) {
  if (shapes.size() != graph.inputs.size())
    return wrong("run: must have " + std::to_string(graph.inputs.size()) + " inputs, got " + std::to_string(shapes.size()));
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Input& input = graph.inputs[i];
    if (!agrees(shapes[i], input))
      return wrong("run: input '" + input.name + "' must have shape " + text_of(input.shape) + ", got " + text_of(shapes[i]));
    if (!exists(shapes[i], input.type))
      return wrong("run: input '" + input.name + "' has an impossible shape " + text_of(shapes[i]));
  }
  return {};
}

Problem check_widths(const Graph& graph, const Widths& widths) {
  const auto bad = [](int bits) { return wrong("bits: must be from 1 up, or 0 for all, got " + std::to_string(bits)); };
  if (widths.all < 0) return bad(widths.all);
  for (const auto& [name, bits] : widths.each) {
    if (bits < 0) return bad(bits);
    if (!graph.constants.count(name)) return wrong("at: '" + name + "' must be the name of a weight");
  }
  return {};
}

std::string text_of(const Shape& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + (size < 0 ? "any" : std::to_string(size));
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace bl
