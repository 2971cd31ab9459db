// Stands in for the reader, the kernels and the network in tests of the borders: gives y = x * bits for x of (n, 3) floats.
// The text of the "file" says what happens: "net", "slow" (a run takes 0.2 s), "cut", "odd", "huge"; all else is malformed.
#include <unistd.h>

#include <algorithm>
#include <new>

#include "kernels.h"
#include "run/network.h"

namespace bl {

size_t size_of(Type type) { return type == Type::f32 ? 4 : 1; }
const char* name_of(Type) { return "float32"; }

int64_t elements(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

namespace {

struct StubRung final : Rung {
  StubRung(float times, bool sleeps) : factor(times), slow(sleeps) {}

  Problem prepare(const std::vector<Shape>& inputs, std::vector<Tensor>& outputs) override {
    if (inputs.size() != 1 || inputs[0].size() != 2 || inputs[0][1] != 3)
      return {Status::wrong_input, "run: input 'x' must have shape (n, 3)", 0};
    outputs = {{Type::f32, inputs[0], nullptr}};
    return {};
  }

  Problem run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, std::vector<StepTime>* times) override {
    if (slow) usleep(200000);
    const auto* x = static_cast<const float*>(inputs[0].data);
    auto* y = static_cast<float*>(outputs[0].data);
    for (int64_t i = 0; i < elements(inputs[0].shape); ++i) y[i] = x[i] * factor;
    if (times) times->push_back({"y", "stub", 1, 2, 3});
    return {};
  }

  int64_t arena_bytes() const override { return 64; }

  const float factor;
  const bool slow;
};

struct StubNetwork final : Network {
  Problem at(const Widths& widths, std::shared_ptr<Rung>& out) override {
    const int bits = widths.each.count("w") ? widths.each.at("w") : widths.all;
    if (bits < 0 || bits > 8) return {Status::wrong_input, "at: bits must be 0 to 8, got " + std::to_string(bits), 0};
    out = std::make_shared<StubRung>(static_cast<float>(bits ? bits : 8), slow);
    return {};
  }
  int64_t weight_bytes() const override { return 3; }
  const Graph& graph() const override { return held; }

  Graph held;
  bool slow = false;
};

}  // namespace

Problem read_file(const uint8_t* data, size_t size, int, Graph& out, int64_t) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text == "cut") return {Status::truncated, "load: the file ends too early", 100};
  if (text == "huge") throw std::bad_alloc();
  if (text != "net" && text != "slow" && text != "odd") return {Status::malformed, "load: must begin with the magic", 0};
  out.inputs = {{"x", Type::f32, false, {-1, 3}, {"n", ""}}};
  out.outputs = {"y"};
  out.constants["w"] = Array{};
  out.meta.value = text;
  return {};
}

std::vector<std::pair<std::string, std::string>> without_kernel(const Graph& graph) {
  if (*graph.meta.text() != "odd") return {};
  return {{"y", "no kernel for 'odd'"}};
}

Problem open_network(Graph graph, const Options&, std::shared_ptr<Network>& out) {
  if (*graph.meta.text() == "odd") return {Status::unsupported, "open: no kernel for node 'y'", 0};
  auto network = std::make_shared<StubNetwork>();
  network->slow = *graph.meta.text() == "slow";
  network->held = std::move(graph);
  out = std::move(network);
  return {};
}

namespace {
const Kernels stub_kernels = {.name = "scalar", .dense = {}, .planes = {}, .window = {}, .pointwise = {}, .sequence = {}};
const Kernels* const found[] = {&stub_kernels, nullptr};
}  // namespace

const Kernels* const* available_kernels() { return found; }
const Kernels* kernels_named(const char* name) { return std::string(name) == "scalar" ? &stub_kernels : nullptr; }

}  // namespace bl
