// Operators of two or more inputs, element by element, with broadcasting.
//
// The output is cut into lines: those of an image, or stretches of rows. In a line an operand has as many entries as the
// output, or fewer that repeat (one, or one for each channel). What fits neither is spread out first.

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "elementwise.h"
#include "lower.h"
#include "run/pool.h"
#include "take.h"
#include "target.h"

namespace bl {

namespace {

Shape broadcast(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t p = i < a.size() ? a[a.size() - 1 - i] : 1, q = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (p != q && p != 1 && q != 1) return {};
    out[out.size() - 1 - i] = p == 1 ? q : p;
  }
  return out;
}

Shape padded(const Shape& shape, size_t rank) {
  Shape out(rank - std::min(rank, shape.size()), 1);
  out.insert(out.end(), shape.begin(), shape.end());
  return out;
}

// Where an operand's entries for line i lie: first + i / height * image + i % height * line, `count` of them.
struct Operand {
  int value = -1;
  int64_t first = 0, image = 0, line = 0, count = 1;
};

struct Lines {
  int64_t height = 1, lines = 1, length = 1, total = 1;
  int64_t at(const Operand& o, int64_t i) const { return o.first + i / height * o.image + i % height * o.line; }
  int64_t size(int64_t i) const { return std::min(length, total - i * length); }
};

// `value` spread out to `shape`, in the layout asked for.
int spread(Lowering& lower, const Node& node, int value, const Shape& shape, bool image) {
  value = lower.rows(value);
  const Value from = lower.value(value);
  const int to = lower.temporary(from.type, shape, image);
  const Axes into = axes_of(lower.value(to));
  const Shape have = padded(from.shape, shape.size());
  Shape strides(shape.size(), 0);
  int64_t stride = from.element();
  for (size_t a = shape.size(); a-- > 0; stride *= have[a]) strides[a] = have[a] == 1 ? 0 : stride;
  Take what;
  for (size_t i = 0; i < into.axes.size(); ++i) {
    const size_t a = into.axes[i];
    what.axes.push_back({shape[a], strides[a], into.strides[i], {}});
  }
  if (what.axes.empty()) what.axes.push_back({1, 0, 0, {}});
  what.run = from.element();
  emit_take(lower, node, "spread", value, to, std::move(what), 0, into.first);
  return to;
}

// An operand over the lines of an image of `shape`.
Operand over_image(Lowering& lower, const Node& node, int value, const Shape& shape) {
  const Shape have = padded(lower.value(value).shape, shape.size());
  const int64_t channels = have[1], spatial = elements(have) / (have[0] * channels);
  Operand out;
  if (have != shape) {
    const bool dots = spatial == 1 && (channels == 1 || channels == shape[1]) && (have[0] == 1 || have[0] == shape[0]);
    if (dots) {
      out.value = value;
      out.count = channels;
      out.image = have[0] == 1 ? 0 : channels;
      if (lower.value(value).image) {
        const Image i = image_of(lower.value(value));
        out.first = i.first;
        out.image = have[0] == 1 ? 0 : i.image;
      }
      return out;
    }
    value = spread(lower, node, value, shape, true);
  }
  const bool padded_only = lower.value(value).shape != shape;  // the same elements with leading axes of one
  if (padded_only) value = spread(lower, node, value, shape, true);
  out.value = lower.image(value);
  const Image i = image_of(lower.value(out.value));
  out.first = i.first;
  out.image = i.image;
  out.line = i.line;
  out.count = i.width * i.channels;
  return out;
}

// The same over rows of `total` elements; `length` is set later, where `count` is `total`.
Operand over_rows(Lowering& lower, const Node& node, int value, const Shape& shape) {
  const Shape& have = lower.value(value).shape;
  size_t ones = 0;
  while (ones < have.size() && have[ones] == 1) ++ones;
  const size_t rest = have.size() - ones;
  const bool suffix = rest <= shape.size() && std::equal(have.begin() + static_cast<int64_t>(ones), have.end(), shape.end() - static_cast<int64_t>(rest));
  Operand out;
  out.value = suffix ? lower.rows(value) : spread(lower, node, value, shape, false);
  out.count = lower.value(out.value).count();
  return out;
}

// Operands of one output: their lines, and whether they lie as an image.
struct Plan {
  Lines lines;
  std::vector<Operand> operands;
  Shape shape;
  bool image = false;
};

constexpr int64_t stretch = 1 << 14;  // elements of a line of rows, at least

bool plan_of(Lowering& lower, const Node& node, const std::vector<int>& values, Plan& p) {
  bool image = false;
  for (int v : values) {
    p.shape = v == values[0] ? lower.value(v).shape : broadcast(p.shape, lower.value(v).shape);
    image = image || lower.value(v).image;
    if (p.shape.empty() && !lower.value(v).shape.empty()) return lower.refuse(node, "its inputs do not fit together");
  }
  p.lines.total = elements(p.shape);
  if (p.lines.total == 0) return lower.refuse(node, "its output is empty");
  p.image = image && (p.shape.size() == 3 || p.shape.size() == 4);
  if (p.image) {
    for (int v : values) p.operands.push_back(over_image(lower, node, v, p.shape));
    p.lines.height = p.shape.size() == 4 ? p.shape[2] : 1;
    p.lines.lines = p.shape[0] * p.lines.height;
    p.lines.length = p.shape[1] * p.shape.back();
    return true;
  }
  for (int v : values) p.operands.push_back(over_rows(lower, node, v, p.shape));
  int64_t period = 1;
  for (const Operand& o : p.operands)
    if (o.count < p.lines.total) period = std::max(period, o.count);
  for (Operand& o : p.operands)  // two that repeat in different ways
    if (o.count < period && o.count > 1 && period % o.count != 0) o = over_rows(lower, node, spread(lower, node, o.value, p.shape, false), p.shape);
  p.lines.length = std::min(p.lines.total, (stretch + period - 1) / period * period);
  p.lines.lines = (p.lines.total + p.lines.length - 1) / p.lines.length;
  p.lines.height = p.lines.lines;
  for (Operand& o : p.operands)
    if (o.count == p.lines.total) o.line = p.lines.length;
  return true;
}

Operand output_of(const Lowering& lower, const Plan& p, int value) {
  Operand out{value, 0, 0, p.lines.length, p.lines.length};
  if (!p.image) return out;
  const Image i = image_of(lower.value(value));
  return {value, i.first, i.image, i.line, p.lines.length};
}

// How many entries of an operand a line of `n` reads.
int64_t entries(const Operand& o, const Lines& l, int64_t n) { return o.line != 0 || o.count >= l.length ? n : o.count; }

template <class Each>
void emit_lines(Lowering& lower, const Node& node, const std::string& kernel, const Plan& p, int y, Each each) {
  Step step{node.name(), kernel, {}, {y}, nullptr};
  for (const Operand& o : p.operands) step.reads.push_back(o.value);
  const int tasks = tasks_for(lower, p.lines.total, p.lines.lines);
  const Lines l = p.lines;
  step.work = [=](const Frame& f) {
    f.pool->run(tasks, [&](int task) {
      for (int64_t i = share_of(l.lines, tasks, task); i < share_of(l.lines, tasks, task + 1); ++i) each(f, i, l.size(i));
    });
  };
  lower.emit(std::move(step));
}

// ------------------------------------------------------------------------------------------------------------ rules

struct Word {
  const char* op;
  Binary kernel;
};
const Word words[] = {{"add", Binary::add}, {"sub", Binary::sub}, {"mul", Binary::mul},
                      {"div", Binary::div}, {"max", Binary::max}, {"min", Binary::min}};

// The inputs of a node, of codes or float32; false with a refusal if one has no kernel.
bool inputs_of(Lowering& lower, const Node& node, std::vector<int>& out) {
  for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
    const int x = lower.input(node, slot);
    if (x < 0) return lower.refuse(node, "an input is made by nothing that has a kernel");
    if (!lower.value(x).codes && lower.value(x).type != Type::f32) return lower.refuse(node, "its inputs are not float32");
    out.push_back(x);
  }
  return !out.empty() || lower.refuse(node, "it has no inputs");
}

// Two coded values of one shape whose sum is coded, all with one step: one pass.
bool adds_codes(Lowering& lower, const Node& node, const std::vector<int>& x) {
  Coding coding;
  if (node.op != "add" || x.size() != 2 || !lower.coding(node, 0, coding) || !coding.uniform()) return false;
  const Value &a = lower.value(x[0]), &b = lower.value(x[1]);
  if (!a.codes || !b.codes || !a.coding.uniform() || !b.coding.uniform() || a.shape != b.shape) return false;
  const auto limit = [](const std::optional<double>& v, float otherwise) { return v ? static_cast<float>(*v) : otherwise; };
  const AddCodes d{a.coding.step(), b.coding.step(), coding.step(), a.coding.zero, b.coding.zero, coding.zero,
                   limit(node.low, -INFINITY), limit(node.high, INFINITY), 0, coding.high};
  Plan p;
  if (!plan_of(lower, node, x, p)) return false;
  const int y = lower.output(node, 0, Type::f32, p.shape, p.image, true);
  const Operand left = p.operands[0], right = p.operands[1], to = output_of(lower, p, y);
  const Lines l = p.lines;
  emit_lines(lower, node, "add codes", p, y, [=](const Frame& f, int64_t i, int64_t n) {
    f.kernels->pointwise.add_codes(f.at<uint8_t>(left.value) + l.at(left, i), f.at<uint8_t>(right.value) + l.at(right, i),
                                   f.at<uint8_t>(to.value) + l.at(to, i), n, d);
  });
  return true;
}

float apply(Binary op, float a, float b) {
  switch (op) {
    case Binary::add: return a + b;
    case Binary::sub: return a - b;
    case Binary::mul: return a * b;
    case Binary::div: return a / b;
    case Binary::max: return a > b || a != a ? a : b;
    default: return a < b || a != a ? a : b;
  }
}

// One activation with one constant: a function of one code, so a table, in float32 as the operator computes it.
bool looks_up(Lowering& lower, const Node& node, const std::vector<int>& x, Binary op) {
  Coding out;
  if (x.size() != 2 || !lower.coding(node, 0, out)) return false;
  for (size_t slot = 0; slot < 2; ++slot) {
    const Value& a = lower.value(x[slot]);
    const Array* k = lower.constant(node, 1 - slot);
    if (!a.codes || k == nullptr || elements(k->shape) != 1 || k->shape.size() > a.shape.size()) continue;
    const float other = k->as<float>()[0];
    return emit_table(lower, node, x[slot], out, [=](float v) { return slot == 0 ? apply(op, v, other) : apply(op, other, v); });
  }
  return false;
}

}  // namespace

bool lower_binary(Lowering& lower, const Node& node) {
  std::vector<int> x;
  if (!inputs_of(lower, node, x)) return false;
  const Word* word = std::find_if(std::begin(words), std::end(words), [&](const Word& w) { return node.op == w.op; });
  if (x.size() == 1) return lower.settle(node, 0, lower.reals(x[0])), true;
  if (adds_codes(lower, node, x) || looks_up(lower, node, x, word->kernel)) return true;
  for (int& v : x) v = lower.reals(v);
  int last = x[0];
  for (size_t i = 1; i < x.size(); ++i) {
    Plan p;
    if (!plan_of(lower, node, {last, x[i]}, p)) return false;
    Target to{lower.temporary(Type::f32, p.shape, p.image), false};
    if (i + 1 == x.size()) {
      Value like;
      to = target(lower, node, like, p.shape, p.image);
      if (to.number < 0) return false;
    }
    const Operand a = p.operands[0], b = p.operands[1], y = output_of(lower, p, to.number);
    const Lines l = p.lines;
    const int op = static_cast<int>(word->kernel);
    emit_lines(lower, node, node.op, p, to.number, [=](const Frame& f, int64_t line, int64_t n) {
      f.kernels->pointwise.binary[op](f.at<float>(a.value) + l.at(a, line), entries(a, l, n), f.at<float>(b.value) + l.at(b, line),
                                      entries(b, l, n), f.at<float>(y.value) + l.at(y, line), n);
    });
    if (i + 1 == x.size()) land(lower, node, to);
    last = to.number;
  }
  return true;
}

bool lower_power(Lowering& lower, const Node& node) {
  const Array* exponent = lower.constant(node, 1);
  const int x = lower.input(node, 0);
  if (x < 0 || exponent == nullptr || exponent->type != Type::f32 || elements(exponent->shape) != 1 ||
      exponent->shape.size() > lower.value(x).shape.size())
    return lower.refuse(node, "its exponent is no constant number");
  const float e = exponent->as<float>()[0];
  const auto f = [e](float v) { return e == 2 ? v * v : static_cast<float>(std::pow(static_cast<double>(v), static_cast<double>(e))); };
  Coding out;
  if (lower.value(x).codes && lower.coding(node, 0, out) && emit_table(lower, node, x, out, f)) return true;
  return emit_function(lower, node, x, "pow", f);
}

bool lower_comparison(Lowering& lower, const Node& node) {
  std::vector<int> x;
  if (!inputs_of(lower, node, x)) return false;
  for (int& v : x) v = lower.rows(lower.reals(v));
  Plan p;
  if (x.size() != 2 || !plan_of(lower, node, x, p)) return false;
  if (p.image) return lower.refuse(node, "it has no kernel for images");
  const std::pair<const char*, bool (*)(float, float)> tests[] = {
      {"equal", [](float a, float b) { return a == b; }},
      {"greater", [](float a, float b) { return a > b; }},
      {"less", [](float a, float b) { return a < b; }},
      {"greater_or_equal", [](float a, float b) { return a >= b; }},
      {"less_or_equal", [](float a, float b) { return a <= b; }}};
  const auto test = std::find_if(std::begin(tests), std::end(tests), [&](const auto& t) { return node.op == t.first; })->second;
  const int y = lower.output(node, 0, Type::boolean, p.shape, false, false);
  const Operand a = p.operands[0], b = p.operands[1];
  const Lines l = p.lines;
  emit_lines(lower, node, node.op, p, y, [=](const Frame& f, int64_t line, int64_t n) {
    const float *left = f.at<float>(a.value) + l.at(a, line), *right = f.at<float>(b.value) + l.at(b, line);
    const int64_t lefts = entries(a, l, n), rights = entries(b, l, n);
    for (int64_t i = 0; i < n; ++i) f.at<uint8_t>(y)[line * l.length + i] = test(left[i % lefts], right[i % rights]);
  });
  return true;
}

bool lower_where(Lowering& lower, const Node& node) {
  std::vector<int> x;
  for (size_t slot = 0; slot < 3; ++slot) {
    const int v = lower.input(node, slot);
    if (v < 0) return lower.refuse(node, "an input is made by nothing that has a kernel");
    if (slot == 0 ? lower.value(v).type != Type::boolean : !lower.value(v).codes && lower.value(v).type != Type::f32)
      return lower.refuse(node, "it has no kernel for these types");
    x.push_back(lower.rows(lower.reals(v)));
  }
  Plan p;
  if (!plan_of(lower, node, x, p)) return false;
  const Target to = target(lower, node, Value{}, p.shape, false);
  if (to.number < 0) return false;
  const Operand c = p.operands[0], a = p.operands[1], b = p.operands[2];
  const Lines l = p.lines;
  const int y = to.number;
  emit_lines(lower, node, "where", p, y, [=](const Frame& f, int64_t line, int64_t n) {
    const uint8_t* test = f.at<uint8_t>(c.value) + l.at(c, line);
    const float *left = f.at<float>(a.value) + l.at(a, line), *right = f.at<float>(b.value) + l.at(b, line);
    const int64_t tests = entries(c, l, n), lefts = entries(a, l, n), rights = entries(b, l, n);
    float* out = f.at<float>(y) + line * l.length;
    for (int64_t i = 0; i < n; ++i) out[i] = test[i % tests] ? left[i % lefts] : right[i % rights];
  });
  land(lower, node, to);
  return true;
}

}  // namespace bl
