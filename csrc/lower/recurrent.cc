// Recurrent networks: the inputs of all times in one product, then step by step.
#include <algorithm>
#include <cctype>
#include <cmath>

#include "run/pool.h"
#include "reading.h"
#include "sequence.h"

namespace bl {

namespace {

int64_t gates_of(const std::string& op) { return op == "lstm" ? 4 : op == "gru" ? 3 : 1; }
int64_t rounded(int64_t n) { return (n + 15) / 16 * 16; }

// A matrix (columns, inputs) as float32 panels.
struct Panels {
  float* data;
  int64_t inputs, columns;
  static int64_t size(int64_t inputs, int64_t columns) { return inputs * (columns + 63) / 64 * 64 + inputs * 64; }
};

// Rows [first, first + columns) of a weight as panels; `line` has room for a row.
void fill(const Panels& p, const Reading& weight, const Frame& f, int64_t first, float* line) {
  float* panel = p.data;
  for (int64_t c = 0; c < p.columns; c += panel_columns) {
    const int64_t n = std::min<int64_t>(panel_columns, p.columns - c), width = rounded(n);
    std::fill(panel, panel + p.inputs * width, 0.0f);
    for (int64_t o = 0; o < n; ++o) {
      weight.row(f, first + c + o, line);
      for (int64_t i = 0; i < p.inputs; ++i) panel[i * width + o] = line[i];
    }
    panel += p.inputs * width;
  }
}

// y = x * weights + bias for rows that lie `x_row` and `y_row` apart.
void multiply(const Panels& p, const Frame& f, const float* x, int64_t x_row, float* y, int64_t y_row, int64_t rows, const float* bias) {
  const Run run{0, static_cast<int32_t>(p.inputs)};
  Dense d{};
  d.from = {1, static_cast<int32_t>(rows), 0, 0, x_row};
  d.to = {1, static_cast<int32_t>(rows), 0, 0, y_row};
  d.runs = &run;
  d.n_runs = 1;
  d.quads = run.quads;
  d.columns = static_cast<int>(p.columns);
  const int panels = static_cast<int>((p.columns + panel_columns - 1) / panel_columns);
  const auto one = [&](int i) { f.kernels->sequence.real_dense(d, {x, p.data + i * panel_columns * p.inputs, y, bias, 0, rows, i}); };
  if (rows * p.inputs * p.columns < 200000) {
    for (int i = 0; i < panels; ++i) one(i);
  } else {
    f.pool->run(panels, one);
  }
}

// Everything about a recurrent node but where its values lie while running.
struct Cells {
  std::string op;
  Reading w, r;
  int x = -1, bias = -1, lengths = -1, hidden0 = -1, cell0 = -1, peephole = -1;
  int y = -1, last = -1, last_cell = -1, scratch = -1;
  int64_t time = 0, batch = 0, inputs = 0, hidden = 0, directions = 1, gates = 1;
  bool backwards = false, batch_first = false, reset_after = false, relu = false, wide_lengths = false;
  float limit = INFINITY;
};

// Parts of the scratch, in floats.
struct Desk {
  float *w, *r, *r_new, *line, *before, *step, *h, *c, *u, *reset, *bias, *bias_h;
};

// Gives the parts their places behind `base`, and how many floats they take; with a null `base` it only counts.
int64_t lay_out(const Cells& n, float* base, Desk& d) {
  const int64_t H = n.hidden, G = n.gates * H, first = n.op == "gru" ? 2 * H : G;
  int64_t end = 0;
  const auto take = [&](int64_t count) {
    float* out = base ? base + end : nullptr;
    end += rounded(count + 16);
    return out;
  };
  d.w = take(Panels::size(n.inputs, G));
  d.r = take(Panels::size(H, first));
  d.r_new = take(n.op == "gru" ? Panels::size(H, H) : 0);
  d.line = take(std::max(n.inputs, H));
  d.before = take(n.time * n.batch * G);
  d.step = take(n.batch * G);
  d.h = take(n.batch * H);
  d.c = take(n.batch * H);
  d.u = take(n.batch * H);
  d.reset = take(n.batch * H);
  d.bias = take(G);
  d.bias_h = take(G);
  return end;
}

int64_t length_of(const Cells& n, const Frame& f, int64_t b) {
  if (n.lengths < 0) return n.time;
  const int64_t given = n.wide_lengths ? f.at<int64_t>(n.lengths)[b] : f.at<int32_t>(n.lengths)[b];
  return std::clamp<int64_t>(given, 0, n.time);
}

// Biases of a direction: of the input, and (gru) of the state, which is not added to the other.
void read_bias(const Cells& n, const Frame& f, int64_t direction, const Desk& d) {
  const int64_t G = n.gates * n.hidden;
  std::fill(d.bias, d.bias + G, 0.0f);
  std::fill(d.bias_h, d.bias_h + G, 0.0f);
  if (n.bias < 0) return;
  const float* b = f.at<const float>(n.bias) + direction * 2 * G;
  for (int64_t i = 0; i < G; ++i) {
    d.bias[i] = n.op == "gru" ? b[i] : b[i] + b[G + i];
    d.bias_h[i] = b[G + i];
  }
}

void read_state(const Cells& n, const Frame& f, int value, int64_t direction, float* out) {
  for (int64_t b = 0; b < n.batch; ++b)
    for (int64_t i = 0; i < n.hidden; ++i) {
      const int64_t row = n.batch_first ? b * n.directions + direction : direction * n.batch + b;
      out[b * n.hidden + i] = value < 0 ? 0.0f : f.at<const float>(value)[row * n.hidden + i];
    }
}

void write_state(const Cells& n, const Frame& f, int value, int64_t direction, const float* from) {
  for (int64_t b = 0; value >= 0 && b < n.batch; ++b) {
    const int64_t row = n.batch_first ? b * n.directions + direction : direction * n.batch + b;
    std::copy_n(from + b * n.hidden, n.hidden, f.at<float>(value) + row * n.hidden);
  }
}

// The state of one sequence after one more step; `before` is what its input contributes, `step` what the state does.
void advance(const Cells& n, const Frame& f, const Desk& d, int64_t direction, int64_t b, const float* before, float* out) {
  const int64_t H = n.hidden;
  CellCall c{before, d.step + b * n.gates * H, nullptr, nullptr, d.h + b * H, out, H, n.limit};
  const SequenceKernels& k = f.kernels->sequence;
  if (n.op == "lstm") {
    if (n.peephole >= 0) c.peephole = f.at<const float>(n.peephole) + direction * 3 * H;
    c.cell = d.c + b * H;
    k.lstm(c);
  } else if (n.op == "gru") {
    c.x = before + 2 * H;
    c.h = d.step + b * 3 * H + 2 * H;
    k.gru_state(c, d.u + b * H);
  } else {
    k.rnn(c, n.relu);
  }
}

void run_direction(const Cells& n, const Frame& f, int64_t direction, bool backwards) {
  const int64_t H = n.hidden, G = n.gates * H, B = n.batch;
  const bool gru = n.op == "gru";
  Desk d;
  lay_out(n, f.at<float>(n.scratch), d);
  read_bias(n, f, direction, d);
  const Panels w{d.w, n.inputs, G}, r{d.r, H, gru ? 2 * H : G}, r_new{d.r_new, H, H};
  fill(w, n.w, f, direction * G, d.line);
  fill(r, n.r, f, direction * G, d.line);
  if (gru) fill(r_new, n.r, f, direction * G + 2 * H, d.line);
  multiply(w, f, f.at<const float>(n.x), n.inputs, d.before, G, n.time * B, d.bias);
  read_state(n, f, n.hidden0, direction, d.h);
  read_state(n, f, n.cell0, direction, d.c);
  for (int64_t t = 0; t < n.time; ++t) {
    const auto place = [&](int64_t length) { return t < length && backwards ? length - 1 - t : t; };
    const auto before = [&](int64_t b, int64_t at) { return d.before + (n.batch_first ? b * n.time + at : at * B + b) * G; };
    multiply(r, f, d.h, H, d.step, G, B, gru ? d.bias_h : nullptr);
    if (gru) {
      for (int64_t b = 0; b < B; ++b) {
        const float* x = before(b, place(length_of(n, f, b)));
        f.kernels->sequence.gru_gates({x, d.step + b * G, nullptr, nullptr, nullptr, nullptr, H, n.limit}, d.u + b * H, d.reset + b * H);
        for (int64_t i = 0; !n.reset_after && i < H; ++i) d.reset[b * H + i] *= d.h[b * H + i];
      }
      multiply(r_new, f, n.reset_after ? d.h : d.reset, H, d.step + 2 * H, G, B, d.bias_h + 2 * H);
      for (int64_t b = 0; n.reset_after && b < B; ++b)
        for (int64_t i = 0; i < H; ++i) d.step[b * G + 2 * H + i] *= d.reset[b * H + i];
    }
    for (int64_t b = 0; b < B; ++b) {
      const int64_t length = length_of(n, f, b), at = place(length);
      const int64_t row = n.batch_first ? (b * n.time + at) * n.directions + direction : (at * n.directions + direction) * B + b;
      float* y = f.at<float>(n.y) + row * H;
      if (t >= length) {
        std::fill(y, y + H, 0.0f);
        continue;
      }
      advance(n, f, d, direction, b, before(b, at), y);
      std::copy_n(y, H, d.h + b * H);
    }
  }
  write_state(n, f, n.last, direction, d.h);
  write_state(n, f, n.last_cell, direction, d.c);
}

std::string lowered(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The activations of a node in small letters, empty where it says nothing.
std::vector<std::string> activations_of(const Node& node) {
  std::vector<std::string> out;
  for (const auto& [key, value] : *node.attrs.map())
    if (key == "activations" && value.list() != nullptr)
      for (const Tree& name : *value.list()) out.push_back(name.text() != nullptr ? lowered(*name.text()) : "");
  return out;
}

// A float32 input in rows, -1 where the slot is empty; false (refused) where it does not fit.
bool take(Lowering& lower, const Node& node, size_t slot, int64_t count, int& out) {
  if (slot >= node.inputs.size() || node.inputs[slot].empty()) return true;
  out = real_rows(lower, node, slot);
  if (out < 0) return false;
  if (lower.value(out).type == Type::f32 && lower.value(out).count() == count) return true;
  return lower.refuse(node, "input " + std::to_string(slot) + " must be float32 with " + std::to_string(count) + " elements");
}

}  // namespace

std::string check_recurrent(const Graph& graph, const Node& node) {
  const auto names = activations_of(node);
  const std::vector<std::string> usual = node.op == "lstm" ? std::vector<std::string>{"sigmoid", "tanh", "tanh"}
                                         : node.op == "gru" ? std::vector<std::string>{"sigmoid", "tanh"}
                                                            : std::vector<std::string>{"tanh"};
  for (size_t i = 0; i < names.size(); ++i) {
    const bool all_relu = node.op == "rnn" && names[0] == "relu" && names[i] == "relu";
    if (names[i] != usual[i % usual.size()] && !all_relu) return "its activation " + names[i];
  }
  if (attr(node, "input_forget", int64_t{0}) != 0) return "its coupled gates";
  for (size_t slot : {size_t{1}, size_t{2}})
    if (const std::string why = check_weight(graph, node, slot); !why.empty()) return why;
  return "";
}

bool lower_recurrent(Lowering& lower, const Node& node) {
  auto n = std::make_shared<Cells>();
  n->op = node.op;
  if (const std::string why = check_recurrent(lower.graph(), node); !why.empty()) return lower.refuse(node, why);
  for (size_t slot : {size_t{1}, size_t{2}})
    if (const std::string why = read_weight(lower, node, slot, slot == 1 ? n->w : n->r); !why.empty()) return lower.refuse(node, why);
  n->x = real_rows(lower, node, 0);
  if (n->x < 0) return false;
  const Shape x = lower.value(n->x).shape;
  n->gates = gates_of(node.op);
  n->hidden = n->r.width;
  n->inputs = n->w.width;
  n->batch_first = attr(node, "layout", int64_t{0}) != 0;
  const std::string direction = attr(node, "direction", "forward");
  n->directions = direction == "bidirectional" ? 2 : 1;
  n->backwards = direction == "reverse";
  n->reset_after = attr(node, "linear_before_reset", int64_t{0}) != 0;
  const auto names = activations_of(node);
  n->relu = !names.empty() && names[0] == "relu";
  n->limit = static_cast<float>(attr(node, "clip", static_cast<double>(INFINITY)));
  const int64_t H = n->hidden, G = n->gates * H;
  const bool fits = x.size() == 3 && x[2] == n->inputs && n->w.rows == n->directions * G && n->r.rows == n->directions * G;
  if (!fits || lower.value(n->x).type != Type::f32) return lower.refuse(node, "its input does not fit its weights");
  n->time = x[n->batch_first ? 1 : 0];
  n->batch = x[n->batch_first ? 0 : 1];
  const int64_t states = n->directions * n->batch * H;
  if (!take(lower, node, 3, n->directions * 2 * G, n->bias) || !take(lower, node, 5, states, n->hidden0) ||
      !take(lower, node, 6, states, n->cell0) || !take(lower, node, 7, n->directions * 3 * H, n->peephole))
    return false;
  if (node.inputs.size() > 4 && !node.inputs[4].empty()) {
    n->lengths = real_rows(lower, node, 4);
    if (n->lengths < 0) return false;
    const Value& v = lower.value(n->lengths);
    n->wide_lengths = v.type == Type::i64;
    if ((v.type != Type::i64 && v.type != Type::i32) || v.count() != n->batch) return lower.refuse(node, "its lengths must be whole numbers, one a sequence");
  }
  const Shape all = n->batch_first ? Shape{n->batch, n->time, n->directions, H} : Shape{n->time, n->directions, n->batch, H};
  const Shape one = n->batch_first ? Shape{n->batch, n->directions, H} : Shape{n->directions, n->batch, H};
  Step step{node.name(), node.op, {n->x}, {}, nullptr};
  for (int v : {n->bias, n->lengths, n->hidden0, n->cell0, n->peephole})
    if (v >= 0) step.reads.push_back(v);
  n->y = lower.temporary(Type::f32, all, false);
  n->last = lower.temporary(Type::f32, one, false);
  if (node.op == "lstm") n->last_cell = lower.temporary(Type::f32, one, false);
  Desk unused;
  n->scratch = lower.scratch(4 * lay_out(*n, nullptr, unused));
  step.writes = {n->y, n->last, n->scratch};
  if (n->last_cell >= 0) step.writes.push_back(n->last_cell);
  step.macs = n->directions * n->time * n->batch * G * (n->inputs + H);
  step.work = [n](const Frame& f) {
    for (int64_t d = 0; d < n->directions; ++d) run_direction(*n, f, d, n->backwards || d == 1);
  };
  lower.emit(std::move(step));
  const int outs[3] = {n->y, n->last, n->last_cell};
  for (size_t slot = 0; slot < node.outputs.size() && slot < 3; ++slot)
    if (!node.outputs[slot].empty() && outs[slot] >= 0) lower.settle(node, slot, outs[slot]);
  return true;
}

}  // namespace bl
