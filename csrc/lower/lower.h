// From a graph to steps: shapes are inferred, values get a layout, each node becomes a step that calls a kernel.
//
// A room of operators is a table of `Rule`s (linear.cc, window.cc, pointwise.cc, sequence.cc,
// moves.cc). A rule reads the values of its node's inputs in the form its kernel wants, makes the outputs, and emits
// steps. What no rule takes is named, and runs on the reference.
//
// Values lie in one of two layouts. In *rows* the elements follow in C order of the graph's shape. An *image*, of a value
// whose shape is (batch, channels, height, width) or (batch, channels, width), has them as (batch, height, width, channels)
// with a ring around it, as wide as its readers' padding asks for; codes in the ring are the zero point, reals are 0.
// Codes are stored in a byte as code minus the smallest code of the format.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "kernels.h"
#include "run/network.h"

namespace bl {

class Pool;
struct Layer;  // layers/layer.h: a weighted node with its packed weights
struct Level;  // layers/layer.h: what of a layer depends on the width

// How the codes of an activation are stored and what they are worth: real = (stored - zero) * step.
struct Coding {
  int zero = 0;
  int high = 255;            // the largest stored code; the smallest is 0
  std::vector<float> steps;  // one, or one for each entry along `axis`
  int axis = -1;
  float step() const { return steps[0]; }
  // Of an entry along the axis. A file may hold fewer than there are entries; `Lowering::add` refuses that, others come before.
  float step(int64_t entry) const { return steps[uniform() ? 0 : std::min(static_cast<size_t>(entry), steps.size() - 1)]; }
  bool uniform() const { return axis < 0; }
  bool operator==(const Coding&) const = default;
};

// False where codes do not fit in a byte, or the parameters differ along more than one axis.
bool coding_of(const Encoding& encoding, Coding& out);

struct Value {
  std::string name;
  Type type = Type::f32;  // of what the graph means; codes lie in bytes whatever it is
  Shape shape;
  bool codes = false;
  Coding coding;
  bool image = false;
  int top = 0, bottom = 0, left = 0, right = 0;  // the ring
  const void* constant = nullptr;                // where it lies, if it is one (rows)
  int shares = -1;                               // the value whose memory this one is, or -1
  int element() const { return codes ? 1 : static_cast<int>(size_of(type)); }
  int64_t count() const { return elements(shape); }
};

// An image as kernels see it, strides in elements; `first` is the element of (0, 0, 0, 0) behind the ring.
struct Image {
  int64_t batch, height, width, channels;
  int64_t image, line, first;  // a pixel's stride is `channels`
  int64_t elements;            // of the whole, ring and all
};
Image image_of(const Value& value);

// What a step sees while it runs.
struct Frame {
  uint8_t* const* place;  // of each value
  Pool* pool;
  const Kernels* kernels;
  const Level* levels;    // of each layer
  std::atomic<const char*>* fault;  // what was wrong with the data, if anything; text that outlives the run
  void fail(const char* what) const { fault->store(what); }
  template <class T>
  T* at(int value) const { return reinterpret_cast<T*>(place[value]); }
};

using Work = std::function<void(const Frame&)>;

struct Step {
  std::string name;    // of the node
  std::string kernel;  // what runs
  std::vector<int> reads, writes;  // values, scratch among the writes
  Work work;
  int64_t macs = 0;
  int64_t bytes = 0;   // of weights
};

class Lowering {
 public:
  Lowering(const Graph& graph, const std::vector<Layer>& layers, const Options& options);

  // Lower the whole graph for inputs of these shapes.
  Problem all(const std::vector<Shape>& inputs);

  const Graph& graph() const { return graph_; }
  const Options& options() const { return options_; }
  const Layer* layer(const Node& node, int& number) const;  // of a weighted node with integer sums, else null

  // The number of the layer that has the width of a weight read as codes, or -1.
  int width_of(const Node& node, size_t slot) const;

  // ---- what a rule reads
  int input(const Node& node, size_t slot) const;            // the value's number, or -1 where it is absent
  const Array* constant(const Node& node, size_t slot) const;  // a constant, or a value that could be computed beforehand
  const Value& value(int number) const { return values_[number]; }
  int rows(int number);   // the same value in rows (a step is emitted if it is not)
  int image(int number);  // as an image with the ring its readers ask for
  int reals(int number);  // decoded, in the same layout; itself if it is no code
  int encoded(int number, const Coding& coding);  // reals as codes, in the same layout

  // ---- what a rule makes
  // The output `slot` of `node`. `as_codes`: as codes, if the graph has an encoding for it (else reals whatever was asked).
  int output(const Node& node, size_t slot, Type type, const Shape& shape, bool image, bool as_codes);
  int share(const Node& node, size_t slot, int from, const Shape& shape);  // an output in the memory of a value in rows
  int scratch(int64_t bytes);                              // memory for one step
  int temporary(Type type, const Shape& shape, bool image);  // a value without a name
  // Output `slot` from the reals `number`: the node's clip, then codes where the graph has an encoding.
  void settle(const Node& node, size_t slot, int number);
  void known(const Node& node, size_t slot, Array array);  // an output that is computed now and never at run time
  void emit(Step step);
  // A rule that cannot lower its node says why and returns what this returns.
  bool refuse(const Node& node, const std::string& why);
  void refuse(const Value& value, const std::string& why);
  // The encoding of output `slot` as a coding; false if it has none.
  bool coding(const Node& node, size_t slot, Coding& out) const;
  bool is_output(const std::string& name) const;
  // The only reader of an output, if it is read once and is no output of the graph: for fusion. Null otherwise.
  const Node* only_reader(const std::string& name) const;
  void fuse(const Node& node) { fused_.insert({node.name(), true}); }  // `node` is done already by the rule of another
  const Node* waiting(const std::string& name) const;  // the node that makes `name` if it was left to its reader, else null

  // ---- what came out
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<int> input_values_, output_values_;

 private:
  friend class Program;
  bool lower(const Node& node);
  const Shape* shape_of(const std::string& name) const;
  bool ready_for_sum(const Node& node) const;
  int add(Value value);
  int laid_out(int number, Value as, bool same);
  void ring_readers();
  const Graph& graph_;
  const std::vector<Layer>& layers_;
  const Options& options_;
  std::map<std::string, int> number_;            // of a name
  std::map<std::string, Array> known_;
  std::map<std::string, std::array<int, 4>> rings_;
  std::map<std::string, std::vector<const Node*>> readers_;
  std::map<std::string, bool> fused_;
  std::map<std::string, const Node*> left_;  // by their outputs, the nodes that were left to their readers
  std::map<int, int> in_rows_, in_image_, in_reals_;  // conversions made
  Problem problem_;
};

// One operator. `check` says what is wrong with a node without knowing shapes (empty text: nothing); may be null.
struct Rule {
  const char* op;
  bool (*lower)(Lowering&, const Node&);
  std::string (*check)(const Graph&, const Node&);
};
struct Room {
  const Rule* rules;
  size_t count;
};
extern const Room linear_room, window_room, pointwise_room, sequence_room, moves_room;
const Rule* rule_of(const std::string& op);

}  // namespace bl
