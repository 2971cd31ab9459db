#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

namespace bl {

namespace {

int64_t bytes_of(const Value& v) {
  const int64_t count = v.image ? image_of(v).elements : v.count();
  return count * v.element();
}

int root_of(const std::vector<Value>& values, int number) {
  while (values[number].shares >= 0) number = values[number].shares;
  return number;
}

// From the first step that writes a value to the last that reads it.
struct Life {
  int from = -1, to = -1;
  int64_t bytes = 0;
};

std::vector<Life> lives_of(const std::vector<Value>& values, const std::vector<Step>& steps) {
  std::vector<Life> out(values.size());
  const auto touch = [&](int number, int step) {
    Life& life = out[static_cast<size_t>(root_of(values, number))];
    if (life.from < 0) life.from = step;
    life.to = step;
  };
  for (size_t s = 0; s < steps.size(); ++s) {
    for (int number : steps[s].writes) touch(number, static_cast<int>(s));
    for (int number : steps[s].reads) touch(number, static_cast<int>(s));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    Life& life = out[static_cast<size_t>(root_of(values, static_cast<int>(i)))];
    life.bytes = std::max(life.bytes, bytes_of(values[i]));
  }
  return out;
}

// Offsets such that no two values alive together overlap: largest first, each at the lowest free place.
int64_t place_all(const std::vector<Life>& lives, std::vector<int64_t>& offsets) {
  std::vector<size_t> order;
  for (size_t i = 0; i < lives.size(); ++i)
    if (offsets[i] == 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].bytes > lives[b].bytes; });
  std::vector<size_t> placed;
  int64_t whole = 0;
  for (size_t i : order) {
    const int64_t size = (lives[i].bytes + slack + 63) / 64 * 64;
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t j : placed)
      if (lives[j].from <= lives[i].to && lives[i].from <= lives[j].to)
        taken.push_back({offsets[j], offsets[j] + (lives[j].bytes + slack + 63) / 64 * 64});
    std::sort(taken.begin(), taken.end());
    int64_t at = 0;
    for (const auto& [begin, end] : taken) {
      if (begin - at >= size) break;
      at = std::max(at, end);
    }
    offsets[i] = at;
    whole = std::max(whole, at + size);
    placed.push_back(i);
  }
  return whole;
}

}  // namespace

Problem Program::make(const Graph& graph, const std::vector<Layer>& layers, const Options& options,
                      const std::vector<Shape>& inputs, std::shared_ptr<Program>& out) {
  Lowering lowering(graph, layers, options);
  if (Problem problem = lowering.all(inputs)) return problem;
  out = std::make_shared<Program>();
  out->inputs_ = inputs;
  out->place(lowering);
  out->known_ = std::move(lowering.known_);  // moving a map leaves its entries where values point to them
  return {};
}

void Program::place(const Lowering& lowering) {
  values_ = lowering.values_;
  steps_ = lowering.steps_;
  input_values_ = lowering.input_values_;
  output_values_ = lowering.output_values_;
  const std::vector<Life> lives = lives_of(values_, steps_);
  offsets_.assign(values_.size(), -1);
  for (size_t i = 0; i < values_.size(); ++i)
    if (values_[i].shares < 0 && values_[i].constant == nullptr && lives[i].from >= 0) offsets_[i] = 0;
  for (int number : input_values_) offsets_[static_cast<size_t>(number)] = -1;
  for (int number : output_values_) {
    const Value& v = values_[static_cast<size_t>(number)];
    const bool first = std::count(output_values_.begin(), output_values_.end(), number) == 1;
    const bool made = v.shares < 0 && v.constant == nullptr && std::find(input_values_.begin(), input_values_.end(), number) == input_values_.end();
    direct_.push_back(first && made);
    if (direct_.back()) offsets_[static_cast<size_t>(number)] = -1;
    outputs_.push_back({v.type, v.shape, nullptr});
  }
  arena_bytes_ = place_all(lives, offsets_);
}

std::unique_ptr<Context> Program::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto out = std::move(free_.back());
      free_.pop_back();
      return out;
    }
    ++made_;
    free_.reserve(static_cast<size_t>(made_));
  }
  auto out = std::make_unique<Context>(arena_bytes_);
  if (!out->arena.there()) return nullptr;
  out->place.assign(values_.size(), nullptr);
  for (size_t i = 0; i < values_.size(); ++i)
    if (offsets_[i] >= 0) out->place[i] = out->arena.data() + offsets_[i];
    else if (values_[i].constant != nullptr) out->place[i] = static_cast<uint8_t*>(const_cast<void*>(values_[i].constant));
  return out;
}

int64_t Program::held_bytes() {
  const std::lock_guard lock(mutex_);
  return made_ * arena_bytes_;
}

Problem Program::run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs, Pool& pool,
                     const Kernels& kernels, const Level* levels, std::vector<StepTime>* times) {
  std::unique_ptr<Context> context = take();
  if (context == nullptr) return {Status::no_memory, "run: no memory for an arena of " + std::to_string(arena_bytes_) + " bytes", 0};
  std::vector<uint8_t*>& place = context->place;
  for (size_t i = 0; i < input_values_.size(); ++i) place[static_cast<size_t>(input_values_[i])] = static_cast<uint8_t*>(inputs[i].data);
  for (size_t i = 0; i < output_values_.size(); ++i)
    if (direct_[i]) place[static_cast<size_t>(output_values_[i])] = static_cast<uint8_t*>(outputs[i].data);
  for (size_t i = 0; i < values_.size(); ++i)
    if (values_[i].shares >= 0) place[i] = place[static_cast<size_t>(root_of(values_, static_cast<int>(i)))];
  std::atomic<const char*> fault{nullptr};
  const Frame frame{place.data(), &pool, &kernels, levels, &fault};
  for (const Step& step : steps_) {
    if (times == nullptr) {
      step.work(frame);
    } else {
      const auto start = std::chrono::steady_clock::now();
      step.work(frame);
      const auto took = std::chrono::steady_clock::now() - start;
      times->push_back({step.name, step.kernel, std::chrono::duration_cast<std::chrono::nanoseconds>(took).count(), step.macs, step.bytes});
    }
    if (fault.load(std::memory_order_relaxed) != nullptr) break;
  }
  for (size_t i = 0; i < output_values_.size(); ++i) {
    const Value& v = values_[static_cast<size_t>(output_values_[i])];
    if (direct_[i] || bytes_of(v) == 0) continue;  // what is empty may lie nowhere
    std::memcpy(outputs[i].data, place[static_cast<size_t>(output_values_[i])], static_cast<size_t>(bytes_of(v)));
  }
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(context));
  }
  if (const char* what = fault.load()) return {Status::wrong_input, std::string("run: ") + what, 0};
  return {};
}

}  // namespace bl
