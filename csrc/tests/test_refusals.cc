// Nodes that hold together as a file has them and yet ask for what cannot be: each is refused in a line that names the node or
// the value, before anything runs. Most were found by fuzzing (csrc/fuzz/file.cc).
#include <cstdio>
#include <cstring>
#include <string>

#include "check.h"
#include "run/network.h"
#include "write_file.h"

namespace {

using namespace bl;

constexpr int64_t kHuge = int64_t{1} << 62;

template <class T>
Constant numbers(Type type, Shape shape, const std::vector<T>& values) {
  Array out{type, std::move(shape), std::vector<uint8_t>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(out.bytes.data(), values.data(), out.bytes.size());
  return out;
}

Constant ints(const std::vector<int64_t>& values) { return numbers(Type::i64, {static_cast<int64_t>(values.size())}, values); }
Constant whole(int64_t value) { return numbers(Type::i64, {}, std::vector<int64_t>{value}); }
Constant reals(Shape shape, const std::vector<float>& values) { return numbers(Type::f32, std::move(shape), values); }

// What the core says of a graph of an input x of this shape; nothing if it runs.
std::string said(Graph g, const Shape& shape) {
  Input x;
  x.name = "x";
  x.shape = shape;
  x.free_axes.resize(shape.size());
  g.inputs = {x};
  std::shared_ptr<Network> network;
  std::shared_ptr<Rung> rung;
  std::vector<Tensor> out;
  if (const Problem p = open_network(std::move(g), {}, network)) return p.message;
  CHECK(!network->at({}, rung));
  return rung->prepare({shape}, out).message;
}

// The same of a node of these constants behind x.
std::string said(const char* op, const std::vector<Constant>& rest, const Tree& attrs, const Shape& shape, size_t outputs = 1) {
  Graph g;
  Node node;
  node.op = op;
  node.attrs = attrs;
  node.inputs = {"x"};
  for (size_t i = 0; i < rest.size(); ++i) {
    node.inputs.push_back("c" + std::to_string(i));
    g.constants[node.inputs.back()] = rest[i];
  }
  for (size_t i = 0; i < outputs; ++i) node.outputs.push_back("y" + std::to_string(i));
  g.nodes = {node};
  g.outputs = node.outputs;
  return said(std::move(g), shape);
}

void refuses(const char* op, const std::vector<Constant>& rest, const Tree& attrs, const Shape& shape, size_t outputs = 1) {
  const std::string message = said(op, rest, attrs, shape, outputs);
  if (message.empty()) std::fprintf(stderr, "%s is not refused\n", op);
  CHECK(message.find("'y0'") != std::string::npos || message.find("run: value") == 0 || message.find("run: input 'x'") == 0);
  CHECK(message.find('\n') == std::string::npos);
}

Tree axis(int64_t a) { return map({{"axis", tree(a)}}); }
Tree none() { return map(); }

void moves() {
  refuses("reshape", {ints({kHuge, kHuge, 4})}, none(), {2, 3});
  refuses("reshape", {ints({kHuge, 0, -1})}, none(), {2, 3});
  refuses("expand", {ints({kHuge, 2, 3})}, none(), {2, 3});
  refuses("expand", {ints({-5, 2, 3})}, none(), {2, 3});
  refuses("tile", {ints({kHuge, 4})}, none(), {2, 3});
  refuses("tile", {ints({-1, 1})}, none(), {2, 3});
  refuses("slice", {ints({0, 0}), ints({1}), ints({0, 1})}, none(), {2, 3});
  refuses("slice", {ints({0, 0}), ints({1, 1}), ints({0})}, none(), {2, 3});
  refuses("slice", {ints({0}), ints({1}), ints({7})}, none(), {2, 3});
  refuses("slice", {ints({0, 0, 0}), ints({1, 1, 1})}, none(), {2, 3});
  refuses("concat", {reals({1, 4}, {1, 2, 3, 4})}, axis(0), {2, 3});
  refuses("concat", {reals({}, {1})}, none(), {});
  refuses("split", {ints({kHuge, 1})}, none(), {2, 3}, 2);
  refuses("split", {ints({-1, 3})}, none(), {2, 3}, 2);
  refuses("split", {}, map({{"num_outputs", tree(int64_t{0})}}), {2, 3});
  refuses("gather", {ints({0})}, none(), {});
}

void products() {
  refuses("expand", {ints({2, 3})}, none(), {0, 3});  // nothing runs on an empty input
  refuses("matmul", {reals({1, 0}, {})}, none(), {0, int64_t{1} << 31, 1});
}

void resizes() {
  const Constant none_given = reals({0}, {});  // an axis of so many pixels takes seconds to list
  refuses("resize", {none_given, none_given, ints({1, 1, 2, 12517381})}, map({{"mode", tree("cubic")}}), {1, 1, 2, 2});
}

void windows() {
  const auto pool = [](int64_t before) {
    const Tree ones = list({tree(int64_t{1}), tree(int64_t{1})}), pads = list({tree(before), tree(int64_t{0})});
    return map({{"kernel_shape", ones}, {"pads", list({pads, pads})}});
  };
  refuses("max_pool", {}, pool((int64_t{1} << 32) + 1), {1, 1, 2, 2});
  refuses("max_pool", {}, pool(1), {1, 1, 2, 2});
  refuses("pad", {ints({INT64_MIN, 0, 0, 0})}, none(), {2, 3});
  refuses("pad", {ints({INT64_MAX, 0, INT64_MAX, 0})}, none(), {2, 3});
}

void slices_of_long_steps_are_good() {
  CHECK(said("slice", {ints({0}), ints({INT64_MAX}), ints({1}), ints({INT64_MAX})}, none(), {2, 3}).empty());
  CHECK(said("slice", {ints({-1}), ints({INT64_MIN}), ints({1}), ints({INT64_MIN})}, none(), {2, 3}).empty());
  CHECK(said("cum_sum", {whole(0)}, none(), {2, 3}).empty());
}

// A softmax looks for the product, its factor and its mask in what it reads: an output that no step makes is none of these.
void outputs_that_nothing_makes() {
  for (const char* op : {"softmax", "layer_norm"}) {
    Node relu, reader;
    relu.op = "relu";
    relu.inputs = {"x"};
    relu.outputs = {"y0", "y1"};
    reader.op = op;
    reader.inputs = {"y1", "c"};
    reader.outputs = {"z"};
    Graph g;
    g.constants["c"] = reals({3}, {1, 1, 1});
    g.nodes = {relu, reader};
    g.outputs = {"z"};
    CHECK(!said(g, {2, 3}).empty());
  }
}

}  // namespace

int main() {
  moves();
  products();
  resizes();
  windows();
  outputs_that_nothing_makes();
  slices_of_long_steps_are_good();
  std::puts("what cannot be is refused");
  return 0;
}
