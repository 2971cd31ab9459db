#include "lower.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "fold.h"
#include "layout.h"
#include "view.h"
#include "wait.h"
#include "layers/layer.h"

namespace bl {

bool coding_of(const Encoding& e, Coding& out) {
  const Format& f = e.format;
  const bool plain = f.kind == Format::integer || f.kind == Format::fixed || f.kind == Format::ternary;
  if (!plain || f.bits > 8 || f.group > 0 || f.high() - f.low() > 255 || e.axes.size() > 1) return false;
  if (e.axes.size() == 1 && e.axes[0] != 1) return false;
  out = Coding{};
  out.high = f.high() - f.low();
  const Array* zero = e.param("zero_point");
  out.zero = -f.low();
  if (zero != nullptr) {
    const int64_t n = elements(zero->shape);
    for (int64_t i = 1; i < n; ++i)
      if (zero->as<float>()[i] != zero->as<float>()[0]) return false;
    out.zero += static_cast<int>(zero->as<float>()[0]);
    if (out.zero < 0 || out.zero > out.high) return false;
  }
  const Array* p = e.param(f.kind == Format::fixed ? "fl" : "scale");
  if (p == nullptr) return false;
  for (int64_t i = 0; i < elements(p->shape); ++i) {
    const float v = p->as<float>()[i];
    out.steps.push_back(f.kind == Format::fixed ? std::ldexp(1.0f, -static_cast<int>(v)) : v);
  }
  if (std::all_of(out.steps.begin(), out.steps.end(), [&](float s) { return s == out.steps[0]; })) out.steps.resize(1);
  out.axis = out.steps.size() > 1 ? 1 : -1;
  return !out.steps.empty();
}

Image image_of(const Value& v) {
  Image out{};
  out.batch = v.shape[0];
  out.channels = v.shape[1];
  out.height = v.shape.size() == 4 ? v.shape[2] : 1;
  out.width = v.shape.back();
  out.line = (out.width + v.left + v.right) * out.channels;
  out.image = (out.height + v.top + v.bottom) * out.line;
  out.first = v.top * out.line + v.left * out.channels;
  out.elements = out.batch * out.image;
  return out;
}

Lowering::Lowering(const Graph& graph, const std::vector<Layer>& layers, const Options& options)
    : graph_(graph), layers_(layers), options_(options) {
  for (const Node& node : graph.nodes)
    for (const std::string& name : node.inputs)
      if (!name.empty() && (readers_[name].empty() || readers_[name].back() != &node)) readers_[name].push_back(&node);
  ring_readers();
}

void Lowering::ring_readers() {
  for (const Layer& l : layers_) {
    if (l.flat) continue;
    for (const Node& node : graph_.nodes) {
      if (node.name() != l.node) continue;
      auto& ring = rings_[node.inputs[0]];
      const auto asked = ring_of(l);
      for (size_t i = 0; i < 4; ++i) ring[i] = std::max(ring[i], asked[i]);
    }
  }
}

Problem Lowering::all(const std::vector<Shape>& inputs) {
  for (size_t i = 0; i < graph_.inputs.size(); ++i) {
    Value v;
    v.name = graph_.inputs[i].name;
    v.type = graph_.inputs[i].type;
    v.shape = inputs[i];
    if (v.count() == 0) return {Status::unsupported, "run: input '" + v.name + "' is empty", 0};
    const int given = add(v);
    input_values_.push_back(given);
    Coding coding;
    const Encoding* e = graph_.encoding(v.name);
    if (e != nullptr && !coding_of(*e, coding)) return {Status::unsupported, "run: input '" + v.name + "' has an encoding without a kernel", 0};
    number_[v.name] = given;
    if (e == nullptr) continue;
    const auto ring = rings_.find(v.name);
    const bool image = ring != rings_.end() && (v.shape.size() == 3 || v.shape.size() == 4);
    Value coded = v;
    coded.codes = true;
    coded.coding = coding;
    coded.image = image;
    if (image) coded.top = ring->second[0], coded.bottom = ring->second[1], coded.left = ring->second[2], coded.right = ring->second[3];
    const int to = add(coded);
    emit_conversion(*this, given, to);
    number_[v.name] = to;
  }
  std::map<std::string, const Node*> waiting;  // weighted nodes, by their output, until the sum that they go into is lowered
  for (const Node& node : graph_.nodes) {
    if (is_weighted(node) && !ready_for_sum(node)) {
      waiting[node.name()] = &node;
      continue;
    }
    for (const std::string& name : node.inputs)
      if (const auto it = waiting.find(name); it != waiting.end()) {
        const Node& first = *it->second;
        waiting.erase(it);
        if (!lower(first)) return problem_;
      }
    if (!lower(node)) return problem_;
  }
  for (const std::string& name : graph_.outputs) {
    int number = -1;
    if (const auto it = number_.find(name); it != number_.end()) number = it->second;
    if (number < 0) {
      Node reader;  // a constant
      reader.inputs = {name};
      reader.outputs = {name};
      number = input(reader, 0);
    }
    const bool one_step = number >= 0 && values_[number].codes && values_[number].coding.uniform();  // bytes move quicker
    output_values_.push_back(number < 0 ? -1 : one_step ? reals(rows(number)) : rows(reals(number)));
    if (output_values_.back() < 0) return {Status::unsupported, "run: output '" + name + "' is made by nothing that has a kernel", 0};
  }
  return problem_;
}

namespace {

// Whether the attributes `axis` and `perm` of a node, if it has them, name axes of its first input.
bool names_axes(const Node& node, const Shape& shape) {
  const auto rank = static_cast<int64_t>(shape.size()), more = rank + (node.op == "flatten" || node.op == "one_hot" ? 1 : 0);
  const Tree* axis = node.attrs.find("axis");
  const bool counts = node.op != "quantize_linear" && node.op != "dequantize_linear";  // with one scale they name none
  if (counts && axis && axis->whole() && (*axis->whole() < -more || *axis->whole() >= more)) return false;
  Shape order(shape.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const Shape perm = attr(node, "perm", order);
  return perm.size() == order.size() && std::is_permutation(perm.begin(), perm.end(), order.begin());
}

}  // namespace

// Of what is known before its node is lowered; null for a value that is not.
const Shape* Lowering::shape_of(const std::string& name) const {
  if (const auto it = number_.find(name); it != number_.end()) return &values_[static_cast<size_t>(it->second)].shape;
  if (const auto it = known_.find(name); it != known_.end()) return &it->second.shape;
  if (const auto* array = graph_.constant<Array>(name)) return &array->shape;
  if (const auto* codes = graph_.constant<Codes>(name)) return &codes->shape;
  return nullptr;
}

bool Lowering::lower(const Node& node) {
  if (fused_.count(node.name()) != 0) return true;
  const Shape* first = node.inputs.empty() ? nullptr : shape_of(node.inputs[0]);
  if (first && !names_axes(node, *first)) return refuse(node, "its axes are not those of its input");
  for (const std::string& name : node.outputs) {
    Coding coding;
    const Encoding* e = graph_.encoding(name);
    if (e != nullptr && !coding_of(*e, coding)) return refuse(node, "the codes of '" + name + "' do not fit in a byte");
  }
  if (std::all_of(node.outputs.begin(), node.outputs.end(), [&](const std::string& n) { return known_.count(n) != 0; })) return true;
  if (fold(*this, node)) return true;
  for (const Node* left : left_to_reader(*this, node)) left_[left->outputs[0]] = left;
  if (waiting(node.outputs[0]) != nullptr) return true;
  const Rule* rule = rule_of(node.op);
  if (rule == nullptr) return refuse(node, "operator " + node.op + " has no kernel");
  if (!rule->lower(*this, node)) return refuse(node, "operator " + node.op + " has no kernel for these inputs");
  return !problem_;
}

// A weighted node whose sum with a value that comes later could be fused waits for that value.
bool Lowering::ready_for_sum(const Node& node) const {
  const Node* add = only_reader(node.outputs[0]);
  if (add == nullptr || add->op != "add" || add->inputs.size() != 2) return true;
  const std::string& other = add->inputs[add->inputs[0] == node.outputs[0] ? 1 : 0];
  return number_.count(other) != 0 || graph_.constants.count(other) != 0;
}

const Layer* Lowering::layer(const Node& node, int& number) const {
  for (size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].node == node.name()) {
      number = static_cast<int>(i);
      return &layers_[i];
    }
  return nullptr;
}

const Node* Lowering::waiting(const std::string& name) const {
  const auto it = left_.find(name);
  return it == left_.end() ? nullptr : it->second;
}

int Lowering::width_of(const Node& node, size_t slot) const {
  for (size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].kind == Layer::read && layers_[i].node == node.name() && layers_[i].weight == node.inputs[slot]) return static_cast<int>(i);
  return -1;
}

const Array* Lowering::constant(const Node& node, size_t slot) const {
  if (slot >= node.inputs.size() || node.inputs[slot].empty()) return nullptr;
  if (const auto it = known_.find(node.inputs[slot]); it != known_.end()) return &it->second;
  return graph_.constant<Array>(node.inputs[slot]);
}

int Lowering::input(const Node& node, size_t slot) const {
  if (slot >= node.inputs.size() || node.inputs[slot].empty()) return -1;
  const std::string& name = node.inputs[slot];
  if (const auto it = number_.find(name); it != number_.end()) return it->second;
  const Array* array = constant(node, slot);
  if (array == nullptr) return -1;
  Value v;
  v.name = name;
  v.type = array->type;
  v.shape = array->shape;
  v.constant = array->bytes.data();
  auto* self = const_cast<Lowering*>(this);
  const int number = self->add(v);
  self->number_[name] = number;
  return number;
}

int Lowering::add(Value value) {
  const size_t steps = value.coding.steps.size(), entries = value.shape.size() > 1 ? static_cast<size_t>(value.shape[1]) : 0;
  if (value.codes && !value.coding.uniform() && steps != entries)
    refuse(value, "has " + std::to_string(steps) + " steps along an axis of " + std::to_string(entries));
  if (!can_be_held(value.shape)) {
    refuse(value, "has more elements than can be held");
    value.shape.assign(value.shape.size(), 1);  // so that whatever still counts with it stays small
  }
  values_.push_back(std::move(value));
  return static_cast<int>(values_.size()) - 1;
}

// A value in another layout: in the same memory where that is the `same` bytes, else by a step.
int Lowering::laid_out(int number, Value as, bool same) {
  if (same) as.shares = number;
  const int to = add(std::move(as));
  if (!same) emit_conversion(*this, number, to);
  return to;
}

int Lowering::rows(int number) {
  const Value v = values_[number];
  if (!v.image) return number;
  if (const auto it = in_rows_.find(number); it != in_rows_.end()) return it->second;
  Value as = v;
  as.shares = -1;
  as.constant = nullptr;
  as.image = false;
  as.top = as.bottom = as.left = as.right = 0;
  const Image i = image_of(v);
  const bool same = (v.top | v.bottom | v.left | v.right) == 0 && (i.channels == 1 || i.height * i.width == 1);
  const int to = laid_out(number, std::move(as), same);
  in_rows_[number] = to;
  in_image_[to] = number;
  return to;
}

int Lowering::image(int number) {
  const Value v = values_[number];
  if (v.image) return number;
  if (const auto it = in_image_.find(number); it != in_image_.end()) return it->second;
  Value as = v;
  as.shares = -1;
  as.constant = nullptr;
  as.image = true;
  if (const auto ring = rings_.find(v.name); ring != rings_.end())
    as.top = ring->second[0], as.bottom = ring->second[1], as.left = ring->second[2], as.right = ring->second[3];
  const Image i = image_of(as);
  const bool same = (as.top | as.bottom | as.left | as.right) == 0 && (i.channels == 1 || i.height * i.width == 1) && v.constant == nullptr;
  const int to = laid_out(number, std::move(as), same);
  in_image_[number] = to;
  in_rows_[to] = number;
  return to;
}

int Lowering::reals(int number) {
  const Value v = values_[number];
  if (!v.codes) return number;
  if (const auto it = in_reals_.find(number); it != in_reals_.end()) return it->second;
  Value as = v;
  as.shares = -1;
  as.constant = nullptr;
  as.codes = false;
  as.coding = Coding{};
  as.shares = -1;
  const int to = add(as);
  emit_conversion(*this, number, to);
  in_reals_[number] = to;
  return to;
}

int Lowering::encoded(int number, const Coding& coding) {
  const Value v = values_[number];
  if (v.codes && v.coding == coding) return number;
  Value as = values_[reals(number)];
  as.codes = true;
  as.coding = coding;
  as.constant = nullptr;
  as.shares = -1;
  const int from = reals(number), to = add(as);
  emit_conversion(*this, from, to);
  return to;
}

bool Lowering::coding(const Node& node, size_t slot, Coding& out) const {
  const Encoding* e = graph_.encoding(node.outputs[slot]);
  return e != nullptr && coding_of(*e, out);
}

bool Lowering::is_output(const std::string& name) const {
  return std::find(graph_.outputs.begin(), graph_.outputs.end(), name) != graph_.outputs.end();
}

const Node* Lowering::only_reader(const std::string& name) const {
  const auto it = readers_.find(name);
  return it != readers_.end() && it->second.size() == 1 && !is_output(name) ? it->second[0] : nullptr;
}

int Lowering::output(const Node& node, size_t slot, Type type, const Shape& shape, bool image, bool as_codes) {
  Value v;
  v.name = node.outputs[slot];
  v.type = type;
  v.shape = shape;
  v.image = image;
  v.codes = as_codes && coding(node, slot, v.coding);
  if (image)
    if (const auto ring = rings_.find(v.name); ring != rings_.end())
      v.top = ring->second[0], v.bottom = ring->second[1], v.left = ring->second[2], v.right = ring->second[3];
  const int number = add(v);
  number_[v.name] = number;
  return number;
}

int Lowering::share(const Node& node, size_t slot, int from, const Shape& shape) {
  Value v = values_[from];
  v.name = node.outputs[slot];
  v.shape = shape;
  v.shares = from;
  const int number = add(v);
  number_[v.name] = number;
  return number;
}

int Lowering::scratch(int64_t bytes) {
  Value v;
  v.type = Type::u8;
  v.shape = {bytes};
  return add(v);
}

int Lowering::temporary(Type type, const Shape& shape, bool image) {
  Value v;
  v.type = type;
  v.shape = shape;
  v.image = image;
  return add(v);
}

void Lowering::settle(const Node& node, size_t slot, int number) {
  const Value v = values_[number];
  const bool clipped = slot == 0 && (node.low || node.high);
  Coding coding;
  const bool codes = this->coding(node, slot, coding);
  const auto ring = rings_.find(node.outputs[slot]);
  const bool ringed = v.image && ring != rings_.end() && ring->second != std::array<int, 4>{v.top, v.bottom, v.left, v.right};
  if (!clipped && !codes && !ringed && v.name.empty()) {
    values_[number].name = node.outputs[slot];
    number_[node.outputs[slot]] = number;
    return;
  }
  const int to = output(node, slot, v.type, v.shape, v.image, true);
  const float low = clipped && node.low ? static_cast<float>(*node.low) : -INFINITY;
  const float high = clipped && node.high ? static_cast<float>(*node.high) : INFINITY;
  emit_conversion(*this, number, to, low, high);
}

void Lowering::known(const Node& node, size_t slot, Array array) {
  known_[node.outputs[slot]] = std::move(array);
  number_.erase(node.outputs[slot]);
}

void Lowering::emit(Step step) {
  std::vector<int> ringed;
  for (int number : step.writes) {
    const Value& v = values_[number];
    if (v.image && (v.top | v.bottom | v.left | v.right) != 0 && v.shares < 0) ringed.push_back(number);
  }
  steps_.push_back(std::move(step));
  for (int number : ringed) {
    bool filled = false;
    for (const Step& s : steps_) filled = filled || (s.kernel == "ring" && s.writes[0] == number);
    if (!filled) emit_ring(*this, number);
  }
}

bool Lowering::refuse(const Node& node, const std::string& why) {
  if (!problem_) problem_ = {Status::unsupported, "run: node '" + node.name() + "' (" + node.op + "): " + why, 0, node.name()};
  return false;
}

void Lowering::refuse(const Value& value, const std::string& why) {
  if (!problem_) problem_ = {Status::unsupported, "run: value '" + value.name + "' " + why, 0};
}

const Rule* rule_of(const std::string& op) {
  for (const Room* room : {&linear_room, &window_room, &pointwise_room, &sequence_room, &moves_room})
    for (size_t i = 0; i < room->count; ++i)
      if (op == room->rules[i].op) return &room->rules[i];
  return nullptr;
}

}  // namespace bl
