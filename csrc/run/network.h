// A network that is loaded and can be run: the door to the core for C (bitladder.h) and for Python (bind.cc).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "file/file.h"
#include "graph/graph.h"

namespace bl {

struct Kernels;
class Program;
class Packing;

struct Options {
  int threads = 1;               // of the private pool, the caller's among them
  int64_t batch = 1;             // a hint: whether layers are memory-bound (planes) or compute-bound (bytes)
  const Kernels* kernels = nullptr;  // an instruction set; null takes the best
};

// Widths of nested weights: `all` for each that `each` does not name; 0 is as many as there are.
struct Widths {
  int all = 0;
  std::map<std::string, int> each;
};

// An array of the caller's, in C order.
struct Tensor {
  Type type = Type::f32;
  Shape shape;
  void* data = nullptr;
};

struct StepTime {
  std::string name;    // of the node, the first of those that were fused
  std::string kernel;  // what ran
  int64_t nanoseconds = 0;
  int64_t macs = 0;    // multiply-accumulates
  int64_t bytes = 0;   // of weights read
};

// A network at chosen widths. It shares the weights of its `Network` and holds only small tables (biases, multipliers).
// Any number of threads may run it at once; results do not depend on threads, batch or each other.
class Rung {
 public:
  virtual ~Rung() = default;
  // Shapes and types of the outputs for inputs of these shapes; makes and keeps the program for them.
  virtual Problem prepare(const std::vector<Shape>& inputs, std::vector<Tensor>& outputs) = 0;
  // Run. `outputs` have the shapes that `prepare` gave and memory of the caller's. `times` may be null.
  virtual Problem run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, std::vector<StepTime>* times) = 0;
  virtual int64_t arena_bytes() const = 0;  // of all programs kept so far
};

class Network {
 public:
  virtual ~Network() = default;
  virtual Problem at(const Widths& widths, std::shared_ptr<Rung>& out) = 0;
  virtual int64_t weight_bytes() const = 0;  // packed weights with their tables
  virtual const Graph& graph() const = 0;    // without the weights' codes
};

// Packs the weights of `graph` once. Fails with `unsupported` and the names of nodes that have no kernel.
Problem open_network(Graph graph, const Options& options, std::shared_ptr<Network>& out);

// The names of the nodes of `graph` that the core cannot run, with the reason for each.
std::vector<std::pair<std::string, std::string>> without_kernel(const Graph& graph);

}  // namespace bl
