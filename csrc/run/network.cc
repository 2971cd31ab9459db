#include "network.h"

#include <algorithm>
#include <mutex>

#include "graph/words.h"
#include "kernels.h"
#include "pool.h"
#include "program.h"
#include "layers/expand.h"
#include "layers/layer.h"

namespace bl {

namespace {

constexpr size_t programs_kept = 8;      // for shapes that come again
constexpr int64_t rows_of_a_vector = 4;  // up to so many rows a product is bound by memory
constexpr int64_t large = 1 << 16;       // weights below this many stay in the cache anyway

class Loaded;

// The nodes that lack an input, with what to say of each: nothing that looks at inputs may see them.
std::vector<std::pair<std::string, std::string>> without_inputs(const Graph& graph) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Node& node : graph.nodes) {
    const auto least = static_cast<size_t>(least_inputs(node.op));
    const auto end = node.inputs.begin() + static_cast<std::ptrdiff_t>(std::min(least, node.inputs.size()));
    if (node.inputs.size() < least || std::count(node.inputs.begin(), end, "") != 0)
      out.push_back({node.name(), "operator " + node.op + " must have " + std::to_string(least) + " inputs"});
  }
  return out;
}

class Stand final : public Rung {
 public:
  Stand(std::shared_ptr<Loaded> network, std::vector<Level> levels) : network_(std::move(network)), levels_(std::move(levels)) {}
  Problem prepare(const std::vector<Shape>& inputs, std::vector<Tensor>& outputs) override;
  Problem run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, std::vector<StepTime>* times) override;
  int64_t arena_bytes() const override;

 private:
  std::shared_ptr<Loaded> network_;
  std::vector<Level> levels_;
};

class Loaded final : public Network, public std::enable_shared_from_this<Loaded> {
 public:
  Loaded(Graph graph, const Options& options) : graph_(std::move(graph)), options_(options), pool_(options.threads) {
    if (options_.kernels == nullptr) options_.kernels = available_kernels()[0];
  }

  Problem pack();
  Problem at(const Widths& widths, std::shared_ptr<Rung>& out) override;
  Problem program_for(const std::vector<Shape>& inputs, std::shared_ptr<Program>& out);
  std::shared_ptr<Program> program_kept(const std::vector<Tensor>& inputs);  // null where there is none
  int64_t weight_bytes() const override;
  int64_t arena_bytes();
  const Graph& graph() const override { return graph_; }
  Pool& pool() { return pool_; }
  const Kernels& kernels() const { return *options_.kernels; }

 private:
  void rows_per_layer();
  std::map<std::string, int> readers_of_weights() const;
  void drop(const std::string& weight);
  Graph graph_;
  Options options_;
  Pool pool_;
  std::vector<Layer> layers_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Program>> programs_;  // the latest used last
};

// How many rows each layer is likely to have, from a program for inputs of the hinted batch.
void Loaded::rows_per_layer() {
  std::vector<Shape> inputs;
  for (const Input& input : graph_.inputs) {
    if (input.any_shape) return;
    inputs.push_back(input.shape);
    for (int64_t& n : inputs.back())
      if (n < 0) n = options_.batch;
  }
  Lowering lowering(graph_, layers_, options_);
  if (lowering.all(inputs)) return;
  for (Layer& layer : layers_)
    for (const Step& step : lowering.steps_)
      if (step.name == layer.node && layer.flat && !step.writes.empty())
        layer.rows = std::max(layer.rows, lowering.value(step.writes[0]).count() / layer.columns);
}

Problem Loaded::pack() {
  std::vector<std::pair<std::string, std::string>> without = without_inputs(graph_);
  if (without.empty()) find_layers(graph_, layers_, without);
  if (!without.empty())
    return {Status::unsupported, "load: node '" + without[0].first + "' has no kernel: " + without[0].second, 0, without[0].first};
  for (const Node& node : graph_.nodes) {
    const Rule* rule = rule_of(node.op);
    if (rule == nullptr) return {Status::unsupported, "load: node '" + node.name() + "' has no kernel: operator " + node.op, 0, node.name()};
    if (rule->check == nullptr) continue;
    if (const std::string why = rule->check(graph_, node); !why.empty())
      return {Status::unsupported, "load: node '" + node.name() + "' has no kernel: " + why, 0, node.name()};
  }
  rows_per_layer();
  std::map<std::string, int> readers = readers_of_weights();
  for (Layer& layer : layers_) {
    const bool planes = layer.kind == Layer::sums && layer.flat && layer.rows > 0 && layer.rows <= rows_of_a_vector &&
                        layer.inputs * layer.columns >= large;
    if (Problem problem = pack_layer(graph_, layer, planes)) return problem;
    if (--readers[layer.weight] == 0) drop(layer.weight);
  }
  return {};
}

// How often each constant is read. A layer that is packed is done with its weight; all others stay.
std::map<std::string, int> Loaded::readers_of_weights() const {
  std::map<std::string, int> out;
  for (const Node& node : graph_.nodes)
    for (size_t slot = 0; slot < node.inputs.size(); ++slot)
      if (!(is_weighted(node) && slot == 1)) ++out[node.inputs[slot]];
  for (const Layer& layer : layers_) ++out[layer.weight];
  return out;
}

// Forgets the numbers of a weight, not what they are; a vector that is cleared would keep its memory.
void Loaded::drop(const std::string& weight) {
  Constant& c = graph_.constants.at(weight);
  if (auto* codes = std::get_if<Codes>(&c)) codes->bytes = std::vector<uint8_t>();
  if (auto* array = std::get_if<Array>(&c)) array->bytes = std::vector<uint8_t>();
}

Problem Loaded::at(const Widths& widths, std::shared_ptr<Rung>& out) {
  std::vector<Level> levels;
  levels.reserve(layers_.size());
  for (const Layer& layer : layers_) {
    const auto own = widths.each.find(layer.weight);
    levels.push_back(level_of(layer, own != widths.each.end() ? own->second : widths.all));
  }
  out = std::make_shared<Stand>(shared_from_this(), std::move(levels));
  return {};
}

Problem Loaded::program_for(const std::vector<Shape>& inputs, std::shared_ptr<Program>& out) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < programs_.size(); ++i) {
    if (programs_[i]->inputs() != inputs) continue;
    out = programs_[i];
    std::rotate(programs_.begin() + static_cast<std::ptrdiff_t>(i), programs_.begin() + static_cast<std::ptrdiff_t>(i) + 1, programs_.end());
    return {};
  }
  if (Problem problem = Program::make(graph_, layers_, options_, inputs, out)) return problem;
  if (programs_.size() == programs_kept) programs_.erase(programs_.begin());
  programs_.push_back(out);
  return {};
}

std::shared_ptr<Program> Loaded::program_kept(const std::vector<Tensor>& inputs) {
  const std::lock_guard lock(mutex_);
  for (const auto& program : programs_) {
    bool same = program->inputs().size() == inputs.size();
    for (size_t i = 0; same && i < inputs.size(); ++i) same = program->inputs()[i] == inputs[i].shape;
    if (same) return program;
  }
  return nullptr;
}

int64_t Loaded::weight_bytes() const {
  int64_t out = 0;
  for (const Layer& layer : layers_) out += packed_bytes(layer);
  return out;
}

int64_t Loaded::arena_bytes() {
  const std::lock_guard lock(mutex_);
  int64_t out = 0;
  for (const auto& program : programs_) out += program->held_bytes();
  return out;
}

// Whether `given` fits what the graph says of its input.
Problem fits(const Input& input, const Shape& given) {
  if (std::count(given.begin(), given.end(), 0) != 0)
    return {Status::wrong_input, "run: input '" + input.name + "' is empty; must hold at least one sample", 0};
  if (input.any_shape) return {};
  const auto text = [](const Shape& shape) {
    std::string out = "(";
    for (size_t i = 0; i < shape.size(); ++i) out += (i != 0 ? ", " : "") + (shape[i] < 0 ? std::string("n") : std::to_string(shape[i]));
    return out + ")";
  };
  bool good = given.size() == input.shape.size();
  for (size_t i = 0; good && i < given.size(); ++i) good = given[i] >= 0 && (input.shape[i] < 0 || input.shape[i] == given[i]);
  if (good) return {};
  return {Status::wrong_input, "run: input '" + input.name + "' must have shape " + text(input.shape) + ", got " + text(given), 0};
}

Problem Stand::prepare(const std::vector<Shape>& inputs, std::vector<Tensor>& outputs) {
  const auto& wanted = network_->graph().inputs;
  if (inputs.size() != wanted.size())
    return {Status::wrong_input, "run: must get " + std::to_string(wanted.size()) + " inputs, got " + std::to_string(inputs.size()), 0};
  for (size_t i = 0; i < inputs.size(); ++i)
    if (Problem problem = fits(wanted[i], inputs[i])) return problem;
  std::shared_ptr<Program> program;
  if (Problem problem = network_->program_for(inputs, program)) return problem;
  outputs = program->outputs();
  return {};
}

Problem Stand::run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, std::vector<StepTime>* times) {
  std::shared_ptr<Program> program = network_->program_kept(inputs);  // nothing is allocated where it is there
  if (program == nullptr) {
    std::vector<Shape> shapes;
    for (const Tensor& t : inputs) shapes.push_back(t.shape);
    if (Problem problem = network_->program_for(shapes, program)) return problem;
  }
  return program->run(inputs, outputs, network_->pool(), network_->kernels(), levels_.data(), times);
}

int64_t Stand::arena_bytes() const { return network_->arena_bytes(); }

}  // namespace

Problem open_network(Graph graph, const Options& options, std::shared_ptr<Network>& out) {
  expand(graph);
  auto network = std::make_shared<Loaded>(std::move(graph), options);
  if (Problem problem = network->pack()) return problem;
  out = std::move(network);
  return {};
}

std::vector<std::pair<std::string, std::string>> without_kernel(const Graph& graph) {
  if (has_expandable(graph)) {
    Graph plain = graph;
    expand(plain);
    return without_kernel(plain);
  }
  std::vector<Layer> layers;
  std::vector<std::pair<std::string, std::string>> out = without_inputs(graph);
  if (!out.empty()) return out;
  find_layers(graph, layers, out);
  for (const Node& node : graph.nodes) {
    const Rule* rule = rule_of(node.op);
    if (rule == nullptr) {
      out.push_back({node.name(), "operator " + node.op});
    } else if (rule->check != nullptr) {
      if (const std::string why = rule->check(graph, node); !why.empty()) out.push_back({node.name(), why});
    }
  }
  return out;
}

}  // namespace bl
