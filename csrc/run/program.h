// A lowered graph for inputs of given shapes: steps in order, and where each value lies in the arena.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lower/lower.h"
#include "memory.h"
#include "layers/layer.h"

namespace bl {

// What one run needs for itself.
struct Context {
  Block arena;
  std::vector<uint8_t*> place;  // of each value; inputs and outputs are set for each run
  explicit Context(int64_t bytes) : arena(bytes) {}
};

class Program {
 public:
  static Problem make(const Graph& graph, const std::vector<Layer>& layers, const Options& options,
                      const std::vector<Shape>& inputs, std::shared_ptr<Program>& out);

  Problem run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, Pool& pool, const Kernels& kernels,
              const Level* levels, std::vector<StepTime>* times);

  const std::vector<Shape>& inputs() const { return inputs_; }
  const std::vector<Tensor>& outputs() const { return outputs_; }  // without memory
  const std::vector<Step>& steps() const { return steps_; }
  int64_t arena_bytes() const { return arena_bytes_; }  // of one run
  int64_t held_bytes();                                 // of all contexts made so far

 private:
  void place(const Lowering& lowering);
  std::unique_ptr<Context> take();
  std::vector<Shape> inputs_;
  std::vector<Tensor> outputs_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::map<std::string, Array> known_;  // what values found out while lowering point to
  std::vector<int64_t> offsets_;    // of each value in the arena, or -1
  std::vector<int> input_values_, output_values_;
  std::vector<bool> direct_;        // outputs written where the caller wants them
  int64_t arena_bytes_ = 0;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_;
  int64_t made_ = 0;
};

}  // namespace bl
