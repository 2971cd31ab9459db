#include "product.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "run/pool.h"

namespace bl {

namespace {

constexpr int64_t longest_sum = 33000;  // products of two codes that surely fit in 32 bits
constexpr int64_t largest = 1 << 24;    // of inputs, columns and batches
constexpr int64_t a_task = 50000;       // multiplications; below, sharing costs more than it saves

int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Parts of a worker's desk, in bytes from its start.
struct Desk {
  int64_t sums, bias, row_sums, end;
};
Desk desk_of(const Product& p) {
  const int64_t columns = padded(p.columns, 64), panels = p.integer ? padded(p.inputs, 4) * columns : 4 * p.inputs * columns;
  Desk d;
  d.sums = padded(panels + slack, 64);
  d.bias = d.sums + 4 * columns;
  d.row_sums = d.bias + 4 * columns;
  d.end = padded(d.row_sums + 4 * p.rows + slack, 64);
  return d;
}

// Where each batch of an operand begins.
std::vector<int64_t> firsts(const View& v, const Shape& batch) {
  const View outer{Shape(v.shape.begin(), v.shape.end() - 2), Shape(v.strides.begin(), v.strides.end() - 2), v.first};
  const View b = broadcast(outer, batch);
  std::vector<int64_t> out;
  Shape at(batch.size(), 0);
  for (int64_t n = elements(batch); n > 0; --n) {
    int64_t from = b.first;
    for (size_t a = 0; a < at.size(); ++a) from += at[a] * b.strides[a];
    out.push_back(from);
    for (size_t a = at.size(); a-- > 0;) {
      if (++at[a] < batch[a]) break;
      at[a] = 0;
    }
  }
  return out;
}

// A copy in rows of an operand whose strides no kernel reads.
void straighten(Lowering& lower, const Node& node, Operand& o) {
  const Value v = lower.value(o.value);
  const int x = o.value, y = lower.temporary(v.type, o.view.shape, false);
  lower.values_[static_cast<size_t>(y)].codes = v.codes;
  lower.values_[static_cast<size_t>(y)].coding = v.coding;
  const Copy copy = copy_of(o.view, view_of(o.view.shape), v.element());
  lower.emit({node.name(), "copy", {x}, {y}, [=](const Frame& f) { run_copy(copy, f.at<uint8_t>(x), f.at<uint8_t>(y), *f.pool); }});
  o = {y, view_of(o.view.shape)};
}

}  // namespace

int64_t Product::desk_bytes() const { return desk_of(*this).end; }

bool read_product(Lowering& lower, const Node& node, Product& out) {
  Operand a, b;
  if (!operand_of(lower, node, 0, a) || !operand_of(lower, node, 1, b)) return lower.refuse(node, "an input is made by nothing that has a kernel");
  const auto coded = [&](const Operand& o) { return lower.value(o.value).codes && lower.value(o.value).coding.uniform(); };
  out.integer = coded(a) && coded(b);
  if (!out.integer) a.value = lower.reals(a.value), b.value = lower.reals(b.value);
  if (lower.value(a.value).type != Type::f32 || lower.value(b.value).type != Type::f32) return lower.refuse(node, "its inputs must be float32");
  if (a.view.shape.size() < 2 || b.view.shape.size() < 2) return lower.refuse(node, "its inputs must have two axes at least");
  if (a.view.strides.back() != 1 && a.view.shape.back() != 1) straighten(lower, node, a);
  const size_t m = a.view.shape.size(), n = b.view.shape.size();
  if (b.view.strides[n - 1] != 1 && b.view.strides[n - 2] != 1) straighten(lower, node, b);
  out.a = a.value;
  out.b = b.value;
  out.rows = a.view.shape[m - 2];
  out.inputs = a.view.shape[m - 1];
  out.columns = b.view.shape[n - 1];
  if (b.view.shape[n - 2] != out.inputs) return lower.refuse(node, "its inputs do not fit each other");
  if (out.integer && out.inputs > longest_sum) return lower.refuse(node, "its sums may not fit in 32 bits");
  if (!broadcast_shape(Shape(a.view.shape.begin(), a.view.shape.end() - 2), Shape(b.view.shape.begin(), b.view.shape.end() - 2), out.batch_shape))
    return lower.refuse(node, "its inputs do not fit each other");
  if (std::max({out.inputs, out.columns, elements(out.batch_shape)}) > largest || out.rows > INT32_MAX)
    return lower.refuse(node, "it is larger than kernels take");
  out.a_row = a.view.strides[m - 2];
  out.b_k = b.view.strides[n - 2];
  out.b_n = b.view.strides[n - 1];
  if (out.b_k != 1 && out.b_n != 1) out.b_n = 1;  // an axis of one
  out.batches = elements(out.batch_shape);
  out.a_first = firsts(a.view, out.batch_shape);
  out.b_first = firsts(b.view, out.batch_shape);
  const Coding& x = lower.value(a.value).coding;
  const Coding& y = lower.value(b.value).coding;
  if (out.integer) {
    out.a_zero = x.zero;
    out.b_zero = y.zero;
    out.unit = x.step() * y.step();
  }
  out.run.quads = static_cast<int32_t>(out.integer ? (out.inputs + 3) / 4 : out.inputs);
  return true;
}

void finish_product(Product& p, const Node& node, const Coding* coding) {
  const size_t columns = static_cast<size_t>(padded(p.columns, 64));
  float low = -INFINITY, high = INFINITY, scale = p.unit;
  p.finish.codes = coding != nullptr;
  if (coding != nullptr) {
    const auto code = [&](double limit) {
      return std::clamp(std::nearbyint(static_cast<float>(limit) / coding->step()) + static_cast<float>(coding->zero), 0.0f, static_cast<float>(coding->high));
    };
    scale = p.unit / coding->step();
    p.finish.zero = coding->zero;
    low = (node.low ? code(*node.low) : 0.0f) - static_cast<float>(coding->zero);
    high = (node.high ? code(*node.high) : static_cast<float>(coding->high)) - static_cast<float>(coding->zero);
  } else {
    if (node.low) low = static_cast<float>(*node.low);
    if (node.high) high = static_cast<float>(*node.high);
  }
  p.scale.assign(columns, scale);
  if (!p.integer && !node.low && !node.high) return;  // no limits, so that NaN stays
  p.low.assign(columns, low);
  p.high.assign(columns, high);
}

void pack_second(const Product& p, const Frame& f, int64_t batch, uint8_t* desk) {
  const Desk d = desk_of(p);
  const int64_t first = p.b_first[static_cast<size_t>(batch)];
  if (!p.integer) {
    const float* b = f.at<const float>(p.b) + first;
    float* panel = reinterpret_cast<float*>(desk);
    for (int64_t c = 0; c < p.columns; c += panel_columns) {
      const int64_t n = std::min<int64_t>(panel_columns, p.columns - c), width = padded(n, 16);
      for (int64_t k = 0; k < p.inputs; ++k, panel += width) {
        for (int64_t i = 0; i < n; ++i) panel[i] = b[k * p.b_k + (c + i) * p.b_n];
        std::fill(panel + n, panel + width, 0.0f);
      }
    }
    return;
  }
  int32_t* sums = reinterpret_cast<int32_t*>(desk + d.sums);
  int32_t* bias = reinterpret_cast<int32_t*>(desk + d.bias);
  f.kernels->sequence.pack({f.at<const uint8_t>(p.b) + first, p.inputs, p.columns, p.b_k, p.b_n, reinterpret_cast<int8_t*>(desk), sums});
  // sum of (a - za)(b - zb), b = b' + 128: sum of a b', plus (128 - zb) times the sum of a, minus za times the sum of (b - zb)
  const int32_t rest = static_cast<int32_t>(p.inputs) * (128 - p.b_zero);
  for (int64_t c = 0; c < p.columns; ++c) bias[c] = -p.a_zero * (sums[c] + rest);
}

void run_rows(const Product& p, const Frame& f, int64_t batch, int64_t row, int64_t row_end, uint8_t* desk, void* y, int64_t stride) {
  const Desk d = desk_of(p);
  const int64_t count = row_end - row, from = p.a_first[static_cast<size_t>(batch)] + row * p.a_row;
  Dense dense{};
  dense.from = {1, static_cast<int32_t>(count), 0, 0, p.a_row};
  dense.to = {1, static_cast<int32_t>(count), 0, 0, stride};
  dense.runs = &p.run;
  dense.n_runs = 1;
  dense.quads = p.run.quads;
  dense.columns = static_cast<int>(p.columns);
  dense.finish = p.finish;
  dense.finish.scale = p.scale.data();
  dense.finish.low = p.low.empty() ? nullptr : p.low.data();
  dense.finish.high = p.low.empty() ? nullptr : p.high.data();
  const int panels = static_cast<int>((p.columns + panel_columns - 1) / panel_columns);
  if (!p.integer) {
    for (int i = 0; i < panels; ++i) {
      const float* w = reinterpret_cast<const float*>(desk) + i * panel_columns * p.inputs;
      f.kernels->sequence.real_dense(dense, {f.at<const float>(p.a) + from, w, static_cast<float*>(y), nullptr, 0, count, i});
    }
    return;
  }
  dense.finish.bias = reinterpret_cast<const int32_t*>(desk + d.bias);
  const uint8_t* a = f.at<const uint8_t>(p.a) + from;
  int32_t* row_sums = nullptr;
  if (p.b_zero != 128) {
    row_sums = reinterpret_cast<int32_t*>(desk + d.row_sums);
    f.kernels->dense.column_sums(a, count, p.a_row, static_cast<int>(p.inputs), 0, row_sums);
    for (int64_t r = 0; r < count; ++r) row_sums[r] *= 128 - p.b_zero;
  }
  for (int i = 0; i < panels; ++i) {
    const int8_t* w = reinterpret_cast<const int8_t*>(desk) + static_cast<int64_t>(i) * panel_columns * 4 * p.run.quads;
    f.kernels->dense.run(dense, {a, w, y, nullptr, reinterpret_cast<const int32_t*>(desk + d.sums), row_sums, 0, count, i});
  }
}

void join_batches(Product& p) {
  for (size_t i = 0; i < p.a_first.size(); ++i)
    if (p.b_first[i] != p.b_first[0] || p.a_first[i] != p.a_first[0] + static_cast<int64_t>(i) * p.rows * p.a_row) return;
  p.rows *= p.batches;
  p.batches = 1;
  p.a_first.resize(1);
  p.b_first.resize(1);
}

void each_block(const Product& p, const Frame& f, int64_t block, uint8_t* desks, int64_t desk_bytes,
                FunctionRef<void(int64_t, int64_t, int64_t, uint8_t*)> work) {
  const int64_t multiplications = p.batches * p.rows * p.inputs * p.columns;
  const int64_t workers = std::clamp<int64_t>(multiplications / a_task, 1, f.pool->threads());
  const int64_t parts = p.batches >= workers ? 1 : workers;  // of the rows of a batch
  f.pool->run(static_cast<int>(workers), [&](int worker) {
    uint8_t* desk = desks + worker * desk_bytes;
    int64_t packed = -1;
    for (int64_t item = worker; item < p.batches * parts; item += workers) {
      const int64_t batch = item / parts, part = item % parts, end = p.rows * (part + 1) / parts;
      if (batch != packed) pack_second(p, f, batch, desk);
      packed = batch;
      for (int64_t row = p.rows * part / parts; row < end; row += block) work(batch, row, std::min(row + block, end), desk);
    }
  });
}

}  // namespace bl
