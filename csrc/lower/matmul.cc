// Products of activations and the softmax behind them.
#include <algorithm>

#include "run/pool.h"
#include "product.h"
#include "sequence.h"

namespace bl {

namespace {

constexpr int64_t near_bytes = 24 << 10;  // of scores that a worker holds at a time
constexpr int64_t whole_batch = int64_t{1} << 40;

const char* kernel_of(const Product& p) { return p.integer ? "product" : "float product"; }

Shape shape_of(const Product& p) {
  Shape out = p.batch_shape;
  out.insert(out.end(), {p.rows, p.columns});
  return out;
}

// A transpose that reads a product alone and leaves its columns next to each other: it says where rows go.
const Node* transpose_after(const Lowering& lower, const Node& node, size_t rank, Shape& order) {
  const Node* t = lower.only_reader(node.outputs[0]);
  if (t == nullptr || t->op != "transpose" || t->low || t->high || node.low || node.high) return nullptr;
  order = attr(*t, "perm", Shape{});
  Coding a, b;
  const bool coded = lower.coding(node, 0, a);
  if (order.size() != rank || order.back() != static_cast<int64_t>(rank) - 1 || coded != lower.coding(*t, 0, b)) return nullptr;
  if (lower.graph().encoding(node.outputs[0]) != nullptr && !(coded && a == b)) return nullptr;
  return t;
}

// Where the rows of a product go: the first of each batch, and from one to the next.
struct Rows {
  std::vector<int64_t> first;
  int64_t stride = 0;
};

Rows rows_in(const Product& p, const View& y) {
  Rows out;
  out.stride = y.strides[y.strides.size() - 2];
  Shape at(p.batch_shape.size(), 0);
  for (int64_t n = 0; n < elements(p.batch_shape); ++n) {
    int64_t from = 0;
    for (size_t a = 0; a < at.size(); ++a) from += at[a] * y.strides[a];
    out.first.push_back(from);
    for (size_t a = at.size(); a-- > 0;) {
      if (++at[a] < p.batch_shape[a]) break;
      at[a] = 0;
    }
  }
  return out;
}

// The chain of nodes from a product to a softmax, as `left_to_reader` allows it.
struct Scores {
  const Node* product = nullptr;
  float factor = 1;
  const Node* mask_node = nullptr;
  size_t mask_slot = 0;
};

Scores scores_before(const Lowering& lower, const Node& softmax) {
  Scores s;
  const Node* at = &softmax;
  size_t slot = 0;
  for (;;) {
    const Node* maker = lower.waiting(at->inputs[slot]);
    if (maker == nullptr) return s;
    if (maker->op == "matmul") {
      s.product = maker;
      return s;
    }
    slot = lower.waiting(maker->inputs[0]) != nullptr ? 0 : 1;
    if (maker->op == "add") {
      s.mask_node = maker;
      s.mask_slot = 1 - slot;
    } else {
      const float c = lower.constant(*maker, 1 - slot)->as<float>()[0];
      s.factor *= maker->op == "mul" ? c : 1.0f / c;
    }
    at = maker;
  }
}

// The mask of each batch: its first element, and from row to row.
struct Mask {
  int value = -1;
  std::vector<int64_t> first;
  int64_t stride = 0;
};

bool read_mask(Lowering& lower, const Product& p, const Scores& s, Mask& out) {
  if (s.mask_node == nullptr) return true;
  out.value = real_rows(lower, *s.mask_node, s.mask_slot);
  if (out.value < 0) return false;
  const Value v = lower.value(out.value);
  Shape shape;
  if (v.type != Type::f32 || !broadcast_shape(shape_of(p), v.shape, shape) || shape != shape_of(p))
    return lower.refuse(*s.mask_node, "a mask must be float32 and fit its scores");
  View view = broadcast(view_of(v.shape), shape);
  if (view.strides.back() != 1 && p.columns > 1) {  // the same for all columns
    const int x = out.value, y = out.value = lower.temporary(Type::f32, shape, false);
    const Copy copy = copy_of(view, view_of(shape), 4);
    lower.emit({s.mask_node->name(), "copy", {x}, {y}, [=](const Frame& f) { run_copy(copy, f.at<uint8_t>(x), f.at<uint8_t>(y), *f.pool); }});
    view = view_of(shape);
  }
  const Rows rows = rows_in(p, view);
  out.first = rows.first;
  out.stride = rows.stride;
  return true;
}

// Scores in blocks that stay in the nearest cache, and their softmax from there.
bool lower_attention(Lowering& lower, const Node& softmax, const Scores& s) {
  auto p = std::make_shared<Product>();
  Mask mask;
  if (!read_product(lower, *s.product, *p) || !read_mask(lower, *p, s, mask)) return false;
  finish_product(*p, *s.product, nullptr);
  SoftmaxCall call{};
  call.factor = s.factor;
  const int y = leaving(lower, softmax, 0, shape_of(*p), call.leave);
  const int64_t wide = (p->columns + 15) / 16 * 16, block = std::clamp<int64_t>(near_bytes / (4 * wide) / 12 * 12, 12, 96);
  const int64_t scores = p->desk_bytes(), desk = scores + 4 * block * wide;
  const int desks = lower.scratch(desk * lower.options().threads);
  call.width = p->columns;
  call.x_stride = wide;
  call.y_stride = p->columns;
  call.mask_stride = mask.stride;
  const int element = call.leave.codes ? 1 : 4;
  Step step{softmax.name(), std::string(kernel_of(*p)) + " + softmax", {p->a, p->b}, {y, desks}, nullptr};
  if (mask.value >= 0) step.reads.push_back(mask.value);
  step.macs = p->batches * p->rows * p->inputs * p->columns;
  step.work = [=](const Frame& f) {
    each_block(*p, f, block, f.at<uint8_t>(desks), desk, [&](int64_t batch, int64_t first, int64_t end, uint8_t* own) {
      SoftmaxCall c = call;
      float* x = reinterpret_cast<float*>(own + scores);
      run_rows(*p, f, batch, first, end, own, x, wide);
      c.x = x;
      c.rows = end - first;
      if (mask.value >= 0) c.mask = f.at<const float>(mask.value) + mask.first[static_cast<size_t>(batch)] + first * mask.stride;
      c.y = f.at<uint8_t>(y) + (batch * p->rows + first) * p->columns * element;
      f.kernels->sequence.softmax(c);
    });
  };
  lower.emit(std::move(step));
  if (!call.leave.codes) lower.settle(softmax, 0, y);
  return true;
}

// Softmax along any axis: rows where it is the last one, else columns copied into rows and back.
bool lower_rows(Lowering& lower, const Node& node, bool logarithm) {
  const int x = real_rows(lower, node, 0);
  if (x < 0) return false;
  const Shape shape = lower.value(x).shape;
  const size_t rank = shape.size(), axis = static_cast<size_t>(axis_of(attr(node, "axis", int64_t{-1}), rank));
  if (lower.value(x).type != Type::f32) return lower.refuse(node, "its input must be float32");
  if (rank == 0 || axis >= rank) return lower.refuse(node, "its axis does not fit its input");
  const int64_t width = shape[axis], rows = width == 0 ? 0 : elements(shape) / width;
  const bool last = elements(Shape(shape.begin() + static_cast<int64_t>(axis) + 1, shape.end())) == 1;
  SoftmaxCall call{};
  const int y = last ? leaving(lower, node, 0, shape, call.leave) : lower.temporary(Type::f32, shape, false);
  call.logarithm = logarithm;
  call.width = call.x_stride = call.y_stride = width;
  Step step{node.name(), logarithm ? "log softmax" : "softmax", {x}, {y}, nullptr};
  const int64_t row = 4 * rows_together * ((width + 15) / 16 * 16), threads = lower.options().threads;
  const int own = lower.scratch(row * threads), swapped = last ? x : lower.scratch(4 * rows * width);
  step.writes.push_back(own);
  if (!last) step.writes.push_back(swapped);
  Shape order;
  for (size_t a = 0; a < rank; ++a)
    if (a != axis) order.push_back(static_cast<int64_t>(a));
  order.push_back(static_cast<int64_t>(axis));
  const View turned = permuted(view_of(shape), order);
  const Copy in = copy_of(turned, view_of(turned.shape), 4), back = copy_of(view_of(turned.shape), turned, 4);
  const int element = call.leave.codes ? 1 : 4;
  step.work = [=](const Frame& f) {
    if (!last) run_copy(in, f.at<uint8_t>(x), f.at<uint8_t>(swapped), *f.pool);
    uint8_t* to = f.at<uint8_t>(last ? y : swapped);
    const int64_t workers = rows * width < 50000 ? 1 : std::min<int64_t>(rows, f.pool->threads());
    f.pool->run(static_cast<int>(workers), [&](int worker) {
      SoftmaxCall c = call;
      const int64_t first = rows * worker / workers;
      c.rows = rows * (worker + 1) / workers - first;
      c.x = f.at<const float>(swapped) + first * width;
      c.y = to + first * width * element;
      c.desk = reinterpret_cast<float*>(f.at<uint8_t>(own) + worker * row);
      f.kernels->sequence.softmax(c);
    });
    if (!last) run_copy(back, f.at<uint8_t>(swapped), f.at<uint8_t>(y), *f.pool);
  };
  lower.emit(std::move(step));
  if (!call.leave.codes) lower.settle(node, 0, y);
  return true;
}

}  // namespace

bool lower_matmul(Lowering& lower, const Node& node) {
  auto p = std::make_shared<Product>();
  if (!read_product(lower, node, *p)) return false;
  const Shape shape = shape_of(*p);
  Coding coding;
  const bool codes = p->integer && lower.coding(node, 0, coding) && coding.uniform();
  finish_product(*p, node, codes ? &coding : nullptr);
  const bool direct = codes || lower.graph().encoding(node.outputs[0]) == nullptr;  // else what is left is settled after
  Shape order;
  const Node* after = direct ? transpose_after(lower, node, shape.size(), order) : nullptr;
  View view = view_of(shape);
  int y = -1;
  if (after != nullptr) {
    const View to = permuted(view, order);
    y = lower.output(*after, 0, Type::f32, to.shape, false, true);
    const Shape strides = dense_strides(to.shape);
    for (size_t a = 0; a < order.size(); ++a) view.strides[static_cast<size_t>(order[a])] = strides[a];
    lower.fuse(*after);
  } else {
    y = direct ? lower.output(node, 0, Type::f32, shape, false, true) : lower.temporary(Type::f32, shape, false);
  }
  const Rows rows = rows_in(*p, view);
  if (after == nullptr) join_batches(*p);
  const int64_t desk = p->desk_bytes();
  const int desks = lower.scratch(desk * lower.options().threads), element = codes ? 1 : 4;
  Step step{node.name(), kernel_of(*p), {p->a, p->b}, {y, desks}, nullptr};
  step.macs = p->batches * p->rows * p->inputs * p->columns;
  step.work = [=](const Frame& f) {
    each_block(*p, f, whole_batch, f.at<uint8_t>(desks), desk, [&](int64_t batch, int64_t first, int64_t end, uint8_t* own) {
      uint8_t* to = f.at<uint8_t>(y) + (rows.first[static_cast<size_t>(batch)] + first * rows.stride) * element;
      run_rows(*p, f, batch, first, end, own, to, rows.stride);
    });
  };
  lower.emit(std::move(step));
  if (!direct) lower.settle(node, 0, y);
  return true;
}

bool lower_softmax(Lowering& lower, const Node& node) {
  if (node.op == "softmax")
    if (const Scores s = scores_before(lower, node); s.product != nullptr) return lower_attention(lower, node, s);
  return lower_rows(lower, node, node.op == "log_softmax");
}

}  // namespace bl
