// Axes that disappear, or are run along: sums, means, extremes, where they are, partial sums.
#include <algorithm>
#include <cmath>

#include "fold.h"
#include "run/pool.h"
#include "sequence.h"
#include "view.h"

namespace bl {

namespace {

// A value as lines along the axes that are reduced: what lies so already, or a copy.
struct Lines {
  int value = -1;
  int64_t rows = 0, width = 0;
  Shape kept;  // the shape of what comes out, reduced axes of length 1 if they stay
};

Lines lines_of(Lowering& lower, const Node& node, int x, const Shape& axes, bool keepdims) {
  const Value v = lower.value(x);
  Shape order, last;
  Lines out;
  out.width = 1;
  for (size_t a = 0; a < v.shape.size(); ++a) {
    if (std::count(axes.begin(), axes.end(), static_cast<int64_t>(a)) == 0) {
      order.push_back(static_cast<int64_t>(a));
      out.kept.push_back(v.shape[a]);
    } else {
      last.push_back(static_cast<int64_t>(a));
      out.width *= v.shape[a];
      if (keepdims) out.kept.push_back(1);
    }
  }
  order.insert(order.end(), last.begin(), last.end());
  out.rows = elements(out.kept);
  out.value = x;
  const View view = permuted(view_of(v.shape), order);
  if (is_dense(view)) return out;
  out.value = lower.scratch(v.count() * v.element());
  const Copy copy = copy_of(view, view_of(view.shape), v.element());
  const int to = out.value;
  lower.emit({node.name(), "copy", {x}, {to}, [=](const Frame& f) { run_copy(copy, f.at<uint8_t>(x), f.at<uint8_t>(to), *f.pool); }});
  return out;
}

template <class T>
struct Fold {
  const char* op;
  T (*f)(const T*, int64_t);
};

template <class T, class Sum>
T sum_of(const T* x, int64_t n) {
  Sum s = 0;
  for (int64_t i = 0; i < n; ++i) s += static_cast<Sum>(x[i]);
  return static_cast<T>(s);
}
template <class T, class Product>
T product_of(const T* x, int64_t n) {
  Product p = 1;
  for (int64_t i = 0; i < n; ++i) p *= static_cast<Product>(x[i]);
  return static_cast<T>(p);
}
template <class T>
T most_of(const T* x, int64_t n) {
  T m = x[0];
  for (int64_t i = 1; i < n; ++i) m = x[i] > m || x[i] != x[i] ? x[i] : m;
  return m;
}
template <class T>
T least_of(const T* x, int64_t n) {
  T m = x[0];
  for (int64_t i = 1; i < n; ++i) m = x[i] < m || x[i] != x[i] ? x[i] : m;
  return m;
}
float mean_of(const float* x, int64_t n) { return sum_of<float, double>(x, n) / static_cast<float>(n); }
float norm_of(const float* x, int64_t n) {
  double s = 0;
  for (int64_t i = 0; i < n; ++i) s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return static_cast<float>(std::sqrt(s));
}
float log_sum_exp_of(const float* x, int64_t n) {
  const float top = most_of(x, n), from = std::isfinite(top) ? top : 0.0f;
  double s = 0;
  for (int64_t i = 0; i < n; ++i) s += std::exp(static_cast<double>(x[i]) - static_cast<double>(from));
  return static_cast<float>(std::log(s) + static_cast<double>(from));
}

const Fold<float> float_folds[] = {
    {"reduce_sum", sum_of<float, double>}, {"reduce_mean", mean_of},         {"reduce_prod", product_of<float, float>},
    {"reduce_max", most_of<float>},        {"reduce_min", least_of<float>},  {"reduce_l2", norm_of},
    {"reduce_log_sum_exp", log_sum_exp_of},
};
const Fold<int64_t> whole_folds[] = {  // sums and products wrap around
    {"reduce_sum", sum_of<int64_t, uint64_t>}, {"reduce_prod", product_of<int64_t, uint64_t>},
    {"reduce_max", most_of<int64_t>},         {"reduce_min", least_of<int64_t>},
};

template <class T, size_t N>
bool emit_fold(Lowering& lower, const Node& node, const Fold<T> (&folds)[N], const Lines& in, Type type) {
  const auto fold = std::find_if(folds, folds + N, [&](const Fold<T>& f) { return node.op == f.op; });
  if (fold == folds + N) return lower.refuse(node, "it has no kernel for this type");
  const int x = in.value, y = lower.temporary(type, in.kept, false);
  const auto f1 = fold->f;
  const int64_t rows = in.rows, width = in.width;
  lower.emit({node.name(), "reduce", {x}, {y}, [=](const Frame& f) {
                const int64_t workers = rows * width < 50000 ? 1 : std::min<int64_t>(rows, f.pool->threads());
                f.pool->run(static_cast<int>(workers), [&](int worker) {
                  for (int64_t r = rows * worker / workers; r < rows * (worker + 1) / workers; ++r)
                    f.at<T>(y)[r] = f1(f.at<const T>(x) + r * width, width);
                });
              }});
  lower.settle(node, 0, y);
  return true;
}

// The mean of codes as codes, in integers (docs/numerics.md, "Averages").
bool emit_mean(Lowering& lower, const Node& node, const Coding& from, const Coding& to, const Lines& in) {
  const int x = in.value, y = lower.output(node, 0, Type::f32, in.kept, false, true);
  const float multiplier = from.step() / (to.step() * static_cast<float>(in.width));
  const auto code = [&](double limit) {
    return std::clamp(std::nearbyint(static_cast<float>(limit) / to.step()) + static_cast<float>(to.zero), 0.0f, static_cast<float>(to.high));
  };
  const float low = node.low ? code(*node.low) : 0.0f, high = node.high ? code(*node.high) : static_cast<float>(to.high);
  const int64_t rows = in.rows, width = in.width, zero = from.zero;
  const float out_zero = static_cast<float>(to.zero);
  lower.emit({node.name(), "reduce", {x}, {y}, [=](const Frame& f) {
                for (int64_t r = 0; r < rows; ++r) {
                  int64_t sum = 0;
                  for (int64_t i = 0; i < width; ++i) sum += f.at<const uint8_t>(x)[r * width + i];
                  const float c = std::nearbyint(static_cast<float>(sum - zero * width) * multiplier) + out_zero;
                  f.at<uint8_t>(y)[r] = static_cast<uint8_t>(std::min(std::max(c, low), high));
                }
              }});
  return true;
}

// The axes of a reduction: all where none is given, or none if the node says so.
bool axes_of(const Lowering& lower, const Node& node, size_t rank, Shape& out) {
  out.clear();
  if (node.inputs.size() > 1 && !node.inputs[1].empty() && !known_integers(lower, node, 1, out)) return false;
  for (int64_t& a : out) a = axis_of(a, rank);
  if (!out.empty() || attr(node, "noop_with_empty_axes", int64_t{0}) != 0) return true;
  for (size_t a = 0; a < rank; ++a) out.push_back(static_cast<int64_t>(a));
  return true;
}

bool keeps_axes(const Node& node) { return attr(node, "keepdims", int64_t{1}) != 0; }

}  // namespace

bool lower_reduce(Lowering& lower, const Node& node) {
  const int given = lower.input(node, 0);
  if (given < 0) return lower.refuse(node, "its input is made by nothing that has a kernel");
  const Value v = lower.value(given);
  Shape axes;
  if (!axes_of(lower, node, v.shape.size(), axes)) return lower.refuse(node, "its axes must be known when the network is loaded");
  Coding to;
  if (node.op == "reduce_mean" && v.codes && v.coding.uniform() && lower.coding(node, 0, to) && to.uniform()) {
    const Lines in = lines_of(lower, node, lower.rows(given), axes, keeps_axes(node));
    if (in.width == 0) return lower.refuse(node, "it reduces nothing");
    return emit_mean(lower, node, v.coding, to, in);
  }
  const Lines in = lines_of(lower, node, lower.rows(lower.reals(given)), axes, keeps_axes(node));
  if (in.width == 0) return lower.refuse(node, "it reduces nothing");
  if (v.type == Type::f32) return emit_fold(lower, node, float_folds, in, v.type);
  if (v.type == Type::i64) return emit_fold(lower, node, whole_folds, in, v.type);
  return lower.refuse(node, "its input must be float32 or int64");
}

bool lower_arg(Lowering& lower, const Node& node) {
  const int x = real_rows(lower, node, 0);
  if (x < 0) return false;
  const Value v = lower.value(x);
  if (v.type != Type::f32) return lower.refuse(node, "its input must be float32");
  const Lines in = lines_of(lower, node, x, {axis_of(attr(node, "axis", int64_t{0}), v.shape.size())}, keeps_axes(node));
  if (in.width == 0) return lower.refuse(node, "it reduces nothing");
  const bool last = attr(node, "select_last_index", int64_t{0}) != 0;
  const float sign = node.op == "arg_min" ? -1.0f : 1.0f;
  const int from = in.value, y = lower.output(node, 0, Type::i64, in.kept, false, false);
  const int64_t rows = in.rows, width = in.width;
  lower.emit({node.name(), "arg", {from}, {y}, [=](const Frame& f) {
                for (int64_t r = 0; r < rows; ++r) {
                  const float* line = f.at<const float>(from) + r * width;
                  int64_t best = 0;
                  for (int64_t i = 1; i < width; ++i) {
                    const float a = line[i] * sign, b = line[best] * sign;
                    if (last ? a >= b || a != a : a > b || (a != a && b == b)) best = i;
                  }
                  f.at<int64_t>(y)[r] = best;
                }
              }});
  return true;
}

bool lower_running(Lowering& lower, const Node& node) {
  const int x = real_rows(lower, node, 0);
  Shape axis;
  if (x < 0) return false;
  if (!known_integers(lower, node, 1, axis) || axis.size() != 1) return lower.refuse(node, "its axis must be known when the network is loaded");
  const Value v = lower.value(x);
  if (v.type != Type::f32 && v.type != Type::i64) return lower.refuse(node, "its input must be float32 or int64");
  const size_t a = static_cast<size_t>(axis_of(axis[0], v.shape.size()));
  if (a >= v.shape.size()) return lower.refuse(node, "it has no such axis");
  const int64_t n = v.shape[a], inner = elements(Shape(v.shape.begin() + static_cast<int64_t>(a) + 1, v.shape.end()));
  const int64_t outer = v.count() == 0 ? 0 : v.count() / (n * inner);
  const bool exclusive = attr(node, "exclusive", int64_t{0}) != 0, reverse = attr(node, "reverse", int64_t{0}) != 0, sums = node.op == "cum_sum";
  const int y = lower.temporary(v.type, v.shape, false);
  const auto run = [=](const auto* from, auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    using Sum = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;  // whole numbers wrap around
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i) {
        Sum so_far = sums ? 0 : 1;
        for (int64_t k = 0; k < n; ++k) {
          const int64_t at = (o * n + (reverse ? n - 1 - k : k)) * inner + i;
          const Sum next = sums ? so_far + static_cast<Sum>(from[at]) : so_far * static_cast<Sum>(from[at]);
          to[at] = static_cast<T>(exclusive ? so_far : next);
          so_far = next;
        }
      }
  };
  lower.emit({node.name(), "running", {x}, {y}, [=](const Frame& f) {
                if (v.type == Type::f32) run(f.at<const float>(x), f.at<float>(y));
                else run(f.at<const int64_t>(x), f.at<int64_t>(y));
              }});
  lower.settle(node, 0, y);
  return true;
}

}  // namespace bl
