// Dense kernels of every instruction set against the literal sum and the literal finish: equal in every byte, also in
// those that must not be touched. Arguments: number of cases for each set, a seed (1).
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels.h"

using namespace bl;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int usual_cases = 7000;
#else
constexpr int usual_cases = 70000;
#endif

std::mt19937 generator;

int upto(int n) { return static_cast<int>(generator() % static_cast<unsigned>(n + 1)); }  // 0 .. n
int between(int low, int high) { return low + upto(high - low); }
bool rarely() { return upto(3) == 0; }

struct Case {
  Dense d;
  DenseCall call = {};
  int64_t rows = 0;
  std::vector<Run> runs;
  std::vector<uint8_t> x, other, before;     // before: what y holds before the call
  std::vector<int8_t> weights;               // [column][4 * quads], for the literal sum
  std::vector<int8_t> packed;                // in panels
  std::vector<int32_t> bias, weight_sums, row_sums;
  std::vector<float> scale, low, high;
  std::vector<uint8_t> table;
};

int64_t place(const Grid& g, int64_t row) {
  return row / g.columns / g.lines * g.image + row / g.columns % g.lines * g.line + row % g.columns * g.column;
}

// A grid of at least `rows` places, `size` elements each, that do not overlap; returns the elements it takes.
int64_t lay(Grid& g, int64_t rows, int size) {
  g.columns = rarely() ? static_cast<int>(rows) : between(1, 7);
  g.lines = between(1, 5);
  g.column = size + (rarely() ? upto(20) : 0);
  g.line = g.columns * g.column + upto(9);
  g.image = g.lines * g.line + upto(9);
  return place(g, rows - 1) + size;
}

void fill(std::vector<uint8_t>& bytes, bool extreme) {
  for (auto& b : bytes) b = static_cast<uint8_t>(extreme ? upto(1) * 255 : upto(255));
}

void pick_weights(Case& c, bool extreme) {
  const int depth = 4 * c.d.quads, columns = c.d.columns;
  c.d.mask = static_cast<uint8_t>(rarely() ? 0xff << between(1, 7) : 0xff);
  c.weights.resize(static_cast<size_t>(columns) * depth);
  for (auto& w : c.weights) w = static_cast<int8_t>(extreme ? (upto(3) ? -128 : 127) : between(-128, 127));
  c.weight_sums.assign(static_cast<size_t>(columns) + 16, 77);
  for (int p = 0; p < columns; p += panel_columns) {
    const int left = columns - p, width = left < panel_columns ? (left + 15) / 16 * 16 : panel_columns;
    for (int q = 0; q < c.d.quads; ++q)
      for (int n = 0; n < width; ++n)
        for (int i = 0; i < 4; ++i)
          c.packed.push_back(p + n < columns ? c.weights[static_cast<size_t>(p + n) * depth + 4 * q + i] : int8_t{0});
  }
  c.packed.resize(c.packed.size() + slack);
  for (int n = 0; n < columns; ++n) {
    int32_t sum = 0;
    for (int k = 0; k < depth; ++k) sum += static_cast<int8_t>(c.weights[static_cast<size_t>(n) * depth + k] & c.d.mask);
    c.weight_sums[static_cast<size_t>(n)] = sum;
  }
}

float pick_step() {
  switch (upto(3)) {
    case 0: return std::ldexp(1.0f, between(-9, -1));
    case 1: return 0.25f * static_cast<float>(between(1, 12));
    case 2: return static_cast<float>(between(1, 1000)) / 65536.0f;
    default: return std::ldexp(static_cast<float>(between(1 << 20, 1 << 24)), between(-32, -24));
  }
}

void pick_finish(Case& c) {
  Finish& f = c.d.finish;
  const auto padded = static_cast<size_t>((c.d.columns + 63) / 64 * 64);
  f.codes = upto(4) > 0;
  f.zero = rarely() ? 0 : upto(255);
  const bool any_code = upto(1), one_scale = upto(1);
  const float scale = pick_step(), large = rarely() ? 1.0f : 1.0f / 64;
  int lost = 0;
  while (lost < 7 && !(c.d.mask >> lost & 1)) ++lost;
  f.shift = rarely() ? between(-lost, 2) : 0;
  for (size_t n = 0; n < padded; ++n) {
    c.bias.push_back(upto(2) ? between(-3000, 3000) : static_cast<int32_t>(generator()));
    c.scale.push_back(large * (one_scale ? scale : pick_step()));
    if (f.codes) {
      const int a = upto(255), b = upto(255);
      c.low.push_back(static_cast<float>((any_code ? 0 : a < b ? a : b) - f.zero));
      c.high.push_back(static_cast<float>((any_code ? 255 : a < b ? b : a) - f.zero));
    } else {
      c.low.push_back(rarely() ? 0.0f : -std::numeric_limits<float>::infinity());
      c.high.push_back(rarely() ? 6.0f : std::numeric_limits<float>::infinity());
    }
  }
  f.bias = c.bias.data(), f.scale = c.scale.data(), f.low = c.low.data(), f.high = c.high.data();
  if (f.codes && rarely()) {
    c.table.resize(256);
    fill(c.table, false);
    f.table = c.table.data();
  }
  f.step = pick_step(), f.out_step = pick_step();
  if (upto(15) == 0) f.out_step = std::ldexp(1.0f, upto(1) ? 127 : -140);
  f.other_step = upto(1) ? pick_step() : f.step;
  const bool ends = upto(1);
  f.sum_low = ends ? 0.0f : -std::numeric_limits<float>::infinity();
  f.sum_high = ends ? 6.0f : std::numeric_limits<float>::infinity();
  f.other_zero = upto(255), f.out_zero = upto(255);
  if (rarely()) f.out_low = f.out_zero, f.out_high = between(f.out_zero, 255);
}

// A case that points into itself, so it is made in place.
void pick(Case& c) {
  const bool extreme = rarely();
  c.rows = rarely() ? between(1, 60) : between(1, 14);
  c.d.columns = rarely() ? between(1, 150) : between(1, 40);
  int64_t reach = 0;
  c.d.quads = 0;
  for (int i = between(1, 4); i > 0; --i) {
    c.runs.push_back({upto(50), between(1, rarely() ? 9 : 3)});
    c.d.quads += c.runs.back().quads;
    const int64_t end = c.runs.back().offset + 4 * c.runs.back().quads;
    reach = end > reach ? end : reach;
  }
  c.d.runs = c.runs.data();
  c.d.n_runs = static_cast<int>(c.runs.size());
  c.x.resize(static_cast<size_t>(lay(c.d.from, c.rows, between(1, 8)) + reach + slack));
  fill(c.x, extreme);
  pick_weights(c, extreme);
  pick_finish(c);
  c.before.resize(static_cast<size_t>(lay(c.d.to, c.rows, c.d.columns)) * (c.d.finish.codes ? 1 : 4) + 3);
  fill(c.before, false);
  c.other.resize(static_cast<size_t>(lay(c.d.beside, c.rows, c.d.columns)) + slack);
  fill(c.other, extreme);
  for (int64_t r = 0; r < c.rows; ++r) c.row_sums.push_back(between(-100000, 100000));
  c.call.x = c.x.data();
  c.call.other = c.d.finish.codes && rarely() ? c.other.data() : nullptr;
  c.call.weight_sums = c.weight_sums.data();
  c.call.row_sums = rarely() ? c.row_sums.data() : nullptr;
}

float limited(float v, float low, float high) {
  const float a = v > low ? v : low;
  return a < high ? a : high;
}

// What the sum of one output becomes, step by step as kernels/finish.h has it.
void finish_literally(const Case& c, int64_t row, int column, int32_t acc, std::vector<uint8_t>& y) {
  const Finish& f = c.d.finish;
  const auto n = static_cast<size_t>(column);
  const uint32_t shifted = f.shift >= 0 ? static_cast<uint32_t>(acc) << f.shift : static_cast<uint32_t>(acc >> -f.shift);
  const uint32_t row_sum = c.call.row_sums ? static_cast<uint32_t>(c.row_sums[static_cast<size_t>(row)]) : 0;
  const auto sum = static_cast<int32_t>(shifted + row_sum + static_cast<uint32_t>(c.bias[n]));
  const float real = limited(static_cast<float>(sum) * c.scale[n], c.low[n], c.high[n]);
  const int64_t at = place(c.d.to, row) + column;
  if (!f.codes) {
    std::memcpy(y.data() + 4 * at, &real, 4);
    return;
  }
  int code = static_cast<int>(std::nearbyint(real)) + f.zero;
  if (c.call.other) {
    const int other = c.other[static_cast<size_t>(place(c.d.beside, row) + column)];
    const float own = static_cast<float>(code - f.zero) * f.step, theirs = static_cast<float>(other - f.other_zero) * f.other_step;
    const float r = limited(own + theirs, f.sum_low, f.sum_high);
    const double out = static_cast<double>(std::nearbyint(r / f.out_step)) + f.out_zero;
    code = static_cast<int>(out < f.out_low ? f.out_low : out > f.out_high ? f.out_high : out);
  }
  y[static_cast<size_t>(at)] = f.table ? f.table[code] : static_cast<uint8_t>(code);
}

std::vector<uint8_t> literally(const Case& c) {
  std::vector<uint8_t> y = c.before;
  for (int64_t row = 0; row < c.rows; ++row)
    for (int n = 0; n < c.d.columns; ++n) {
      int64_t sum = 0;
      const int8_t* w = c.weights.data() + static_cast<size_t>(n) * 4 * c.d.quads;
      for (const Run& run : c.runs)
        for (int i = 0; i < 4 * run.quads; ++i)
          sum += int64_t{c.x[static_cast<size_t>(place(c.d.from, row) + run.offset + i)]} * static_cast<int8_t>(*w++ & c.d.mask);
      finish_literally(c, row, n, static_cast<int32_t>(sum), y);
    }
  return y;
}

// The rows in up to three pieces, the panels from last to first.
std::vector<uint8_t> by(const Kernels& kernels, Case& c) {
  std::vector<uint8_t> y = c.before;
  c.call.y = y.data();
  const int64_t cut = upto(static_cast<int>(c.rows)), second = between(static_cast<int>(cut), static_cast<int>(c.rows));
  const int64_t cuts[4] = {0, cut, second, c.rows};
  for (int panel = (c.d.columns - 1) / panel_columns; panel >= 0; --panel)
    for (int i = 0; i < 3; ++i) {
      c.call.panel = panel;
      c.call.w = c.packed.data() + int64_t{panel} * panel_columns * 4 * c.d.quads;
      c.call.row = cuts[i], c.call.row_end = cuts[i + 1];
      kernels.dense.run(c.d, c.call);
    }
  return y;
}

bool sums_are_equal(const Kernels& kernels) {
  const int channels = between(1, 200), pixels = between(1, 20), stride = channels + upto(9), zero = upto(255);
  std::vector<uint8_t> x(static_cast<size_t>(pixels * stride + slack));
  fill(x, rarely());
  std::vector<int32_t> sums(static_cast<size_t>(pixels) + 1, 7), expected(sums);
  for (int p = 0; p < pixels; ++p) {
    expected[static_cast<size_t>(p)] = 0;
    for (int i = 0; i < channels; ++i) expected[static_cast<size_t>(p)] += x[static_cast<size_t>(p * stride + i)] - zero;
  }
  kernels.dense.column_sums(x.data(), pixels, stride, channels, zero, sums.data());
  return sums == expected;
}

int fail(const Kernels& kernels, const Case& c, int number, const std::vector<uint8_t>& y, const std::vector<uint8_t>& expected) {
  size_t i = 0;
  while (y[i] == expected[i]) ++i;
  std::printf("%s:%d: %s, case %d: byte %zu is %d, must be %d (%d rows, %d columns, %d quads, mask %x, shift %d, %s%s%s)\n", __FILE__,
              __LINE__, kernels.name, number, i, y[i], expected[i], static_cast<int>(c.rows), c.d.columns, c.d.quads, c.d.mask,
              c.d.finish.shift, c.d.finish.codes ? "codes" : "reals", c.call.other ? ", residual" : "", c.d.finish.table ? ", table" : "");
  return 1;
}

int check(const Kernels& kernels, int cases) {
  for (int i = 0; i < cases; ++i) {
    Case c;
    pick(c);
    const std::vector<uint8_t> expected = literally(c), y = by(kernels, c);
    if (y != expected) return fail(kernels, c, i, y, expected);
    if (i % 8 == 0 && !sums_are_equal(kernels)) return std::printf("%s:%d: %s: column sums\n", __FILE__, __LINE__, kernels.name), 1;
  }
  std::printf("%s: %d cases are equal\n", kernels.name, cases);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : usual_cases;
  int failures = 0;
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels) {
    generator.seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1u);
    failures += check(**kernels, cases);
  }
  return failures ? 1 : 0;
}
