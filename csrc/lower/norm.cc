// Normalization of rows and of channels. An addition that waits for a layer normalization is done on the way.
#include <algorithm>

#include "run/pool.h"
#include "sequence.h"
#include "view.h"
#include "wait.h"

namespace bl {

namespace {

// What is normalized: one value, or the sum of two.
struct Terms {
  int x = -1, other = -1;
  bool coded = false;  // whether `other` is codes
};

bool read_terms(Lowering& lower, const Node& node, Terms& out) {
  const Node* add = lower.waiting(node.inputs[0]);
  if (add == nullptr || add->op != "add") return (out.x = real_rows(lower, node, 0)) >= 0;
  const auto coded = [&](size_t slot) {
    const Value& v = lower.value(lower.input(*add, slot));
    return v.codes && v.coding.uniform();
  };
  const size_t slot = coded(0) ? 0 : 1;
  out.coded = coded(slot);
  out.x = real_rows(lower, *add, 1 - slot);
  out.other = out.coded ? lower.rows(lower.input(*add, slot)) : real_rows(lower, *add, slot);
  return out.x >= 0 && out.other >= 0;
}

// A parameter of one entry for each of `width` neighbours, or -1 where the slot is empty; -2 where it does not fit.
int read_param(Lowering& lower, const Node& node, size_t slot, int64_t width) {
  if (slot >= node.inputs.size() || node.inputs[slot].empty()) return -1;
  const int p = lower.input(node, slot);
  if (p < 0 || lower.value(p).codes || lower.value(p).type != Type::f32 || lower.value(p).count() != width) {
    lower.refuse(node, "its scale and shift must be float32 and as long as what is normalized");
    return -2;
  }
  return lower.rows(p);
}

constexpr int64_t worth_sharing = 50000;  // elements

// Rows of a NormCall, shared out; `desk` is scratch of `each` bytes a worker.
template <class Fill>
void run_norm(const Frame& f, const NormCall& call, int64_t rows, int desk, int64_t each, Fill fill) {
  const int64_t workers = rows * call.width < worth_sharing ? 1 : std::min<int64_t>(rows, f.pool->threads());
  f.pool->run(static_cast<int>(workers), [&](int worker) {
    NormCall c = call;
    const int64_t first = rows * worker / workers;
    c.rows = rows * (worker + 1) / workers - first;
    c.desk = reinterpret_cast<float*>(f.at<uint8_t>(desk) + worker * each);
    fill(c, first);
    f.kernels->sequence.norm(c);
  });
}

int64_t desk_bytes(int64_t width) { return 4 * rows_together * ((width + 15) / 16 * 16); }

bool lower_norm(Lowering& lower, const Node& node, bool root_mean_square) {
  Terms t;
  if (!read_terms(lower, node, t)) return false;
  const Shape shape = lower.value(t.x).shape;
  const int64_t axis = axis_of(attr(node, "axis", int64_t{-1}), shape.size());
  if (lower.value(t.x).type != Type::f32 || axis < 0 || axis >= static_cast<int64_t>(shape.size())) return lower.refuse(node, "its input must be float32 and have its axis");
  const int64_t width = elements(Shape(shape.begin() + axis, shape.end())), rows = elements(Shape(shape.begin(), shape.begin() + axis));
  const int scale = read_param(lower, node, 1, width), shift = root_mean_square ? -1 : read_param(lower, node, 2, width);
  if (scale < -1 || shift < -1) return false;
  NormCall call{};
  call.width = call.stride = width;
  call.epsilon = static_cast<float>(attr(node, "epsilon", 1e-5));
  call.root_mean_square = root_mean_square;
  if (t.coded) {
    call.step = lower.value(t.other).coding.step();
    call.zero = lower.value(t.other).coding.zero;
  }
  const int y = leaving(lower, node, 0, shape, call.leave);
  const int64_t each = desk_bytes(width);
  const int desk = lower.scratch(each * lower.options().threads);
  Step step{node.name(), t.other >= 0 ? "add + norm" : "norm", {t.x}, {y, desk}, nullptr};
  for (int v : {t.other, scale, shift})
    if (v >= 0) step.reads.push_back(v);
  Shape outer(shape.begin(), shape.begin() + axis);
  outer.resize(shape.size(), 1);
  int moments[2] = {-1, -1};
  for (size_t slot = 1; slot < node.outputs.size() && slot < 3; ++slot) {
    if (node.outputs[slot].empty()) continue;
    moments[slot - 1] = lower.output(node, slot, Type::f32, outer, false, false);
    step.writes.push_back(moments[slot - 1]);
  }
  const int mean = moments[0], inverse = moments[1], element = call.leave.codes ? 1 : 4;
  step.work = [=](const Frame& f) {
    run_norm(f, call, rows, desk, each, [&](NormCall& c, int64_t first) {
      const int64_t at = first * width;
      c.x = f.at<const float>(t.x) + at;
      if (t.coded) c.codes = f.at<const uint8_t>(t.other) + at;
      else if (t.other >= 0) c.other = f.at<const float>(t.other) + at;
      c.y = f.at<uint8_t>(y) + at * element;
      if (scale >= 0) c.scale = f.at<const float>(scale);
      if (shift >= 0) c.shift = f.at<const float>(shift);
      if (mean >= 0) c.mean = f.at<float>(mean) + first;
      if (inverse >= 0) c.inverse = f.at<float>(inverse) + first;
    });
  };
  lower.emit(std::move(step));
  if (!call.leave.codes) lower.settle(node, 0, y);
  return true;
}

}  // namespace

bool lower_layer_norm(Lowering& lower, const Node& node) { return lower_norm(lower, node, false); }
bool lower_rms_norm(Lowering& lower, const Node& node) { return lower_norm(lower, node, true); }

// Groups of channels (each its own: instances) are rows of neighbours; then every channel is scaled and shifted.
bool lower_channel_norm(Lowering& lower, const Node& node) {
  const int x = real_rows(lower, node, 0);
  if (x < 0) return false;
  const Shape shape = lower.value(x).shape;
  if (shape.size() < 2 || lower.value(x).type != Type::f32) return lower.refuse(node, "its input must be float32 and have channels");
  const int64_t channels = shape[1], groups = node.op == "group_norm" ? attr(node, "num_groups", int64_t{1}) : channels;
  if (groups < 1 || channels % groups != 0) return lower.refuse(node, "its channels do not fit its groups");
  const int64_t rows = shape[0] * groups, space = elements(Shape(shape.begin() + 2, shape.end())), width = channels / groups * space;
  const int scale = read_param(lower, node, 1, channels), shift = read_param(lower, node, 2, channels);
  if (scale < 0 || shift < 0) return lower.refuse(node, "its scale and shift must be there");
  NormCall call{};
  call.width = call.stride = width;
  call.epsilon = static_cast<float>(attr(node, "epsilon", 1e-5));
  const int y = lower.temporary(Type::f32, shape, false);
  const int64_t each = desk_bytes(width);
  const int desk = lower.scratch(each * lower.options().threads);
  lower.emit({node.name(), "norm", {x, scale, shift}, {y, desk}, [=](const Frame& f) {
                run_norm(f, call, rows, desk, each, [&](NormCall& c, int64_t first) {
                  c.x = f.at<const float>(x) + first * width;
                  c.y = f.at<float>(y) + first * width;
                });
                const float *a = f.at<const float>(scale), *b = f.at<const float>(shift);
                for (int64_t i = 0; i < shape[0] * channels; ++i) {
                  float* plane = f.at<float>(y) + i * space;
                  f.kernels->sequence.scale_shift(plane, space, a[i % channels], b[i % channels], plane);
                }
              }});
  lower.settle(node, 0, y);
  return true;
}

}  // namespace bl
