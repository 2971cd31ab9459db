// The kernels of kernels/sequence.h on every instruction set of this machine, against plain loops in double.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels.h"
#include "check.h"

using namespace bl;

namespace {

std::mt19937 dice(7);
int between(int low, int high) { return low + static_cast<int>(dice() % static_cast<unsigned>(high - low + 1)); }
std::vector<float> reals(size_t n, float size) {
  std::vector<float> out(n);
  for (float& x : out) x = std::normal_distribution<float>(0, size)(dice);
  return out;
}
void near(double got, double want, double tolerance) {
  if (std::isnan(want)) CHECK(std::isnan(got));
  else CHECK(std::fabs(got - want) <= tolerance * (1 + std::fabs(want)));
}

// Windows of a random image, in random runs, times random weights; guards around the outputs stay.
void test_real_dense(const Kernels& k) {
  for (int round = 0; round < 400; ++round) {
    const int lines = between(1, 4), columns_of = between(1, 9), images = between(1, 2), columns = between(1, 150);
    std::vector<Run> runs;
    int inputs = 0;
    const int n_runs = between(1, 3), reach = 40;
    for (int i = 0; i < n_runs; ++i) {
      runs.push_back({between(0, 10), between(1, 9)});
      inputs += runs.back().quads;
    }
    Dense d{};
    d.from = {lines, columns_of, 400, 70, between(1, 5)};
    const int wide = columns + between(0, 3);
    d.to = {lines, columns_of, int64_t{wide} * columns_of * lines, int64_t{wide} * columns_of, wide};
    d.runs = runs.data();
    d.n_runs = n_runs;
    d.quads = inputs;
    d.columns = columns;
    const int64_t rows = int64_t{images} * lines * columns_of;
    const std::vector<float> x = reals(400 * images + 400 + reach, 1), bias = reals(columns, 1);
    const std::vector<float> matrix = reals(size_t(inputs) * columns, 1);
    std::vector<float> low(columns, -INFINITY), high(columns, INFINITY);
    const bool limits = between(0, 1), biased = between(0, 1);
    if (limits) {
      low.assign(columns, -0.5f), high.assign(columns, 1.5f);
      d.finish.low = low.data(), d.finish.high = high.data();
    }
    std::vector<float> panels;
    std::vector<size_t> begins;
    for (int first = 0; first < columns; first += 64) {
      const int n = std::min(64, columns - first), width = (n + 15) / 16 * 16;
      begins.push_back(panels.size());
      for (int i = 0; i < inputs; ++i)
        for (int c = 0; c < width; ++c) panels.push_back(c < n ? matrix[size_t(i) * columns + first + c] : 0);
    }
    std::vector<float> y(rows * wide + 32, 77);
    const int64_t cut = between(0, static_cast<int>(rows));
    for (size_t p = 0; p < begins.size(); ++p)
      for (auto [row, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, rows}})
        k.sequence.real_dense(d, {x.data(), panels.data() + begins[p], y.data(), biased ? bias.data() : nullptr, row, end, int(p)});
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t from = row / (lines * columns_of) * 400 + row / columns_of % lines * 70 + row % columns_of * d.from.column;
      for (int c = 0; c < wide; ++c) {
        if (c >= columns) {
          CHECK(y[row * wide + c] == 77);
          continue;
        }
        double sum = biased ? bias[c] : 0;
        int i = 0;
        for (const Run& run : runs)
          for (int j = 0; j < run.quads; ++j, ++i) sum += double(x[from + run.offset + j]) * matrix[size_t(i) * columns + c];
        if (limits) sum = std::fmin(std::fmax(sum, -0.5), 1.5);
        near(y[row * wide + c], sum, 1e-5);
      }
    }
    for (int64_t i = rows * wide; i < rows * wide + 32; ++i) CHECK(y[i] == 77);
  }
}

// Products of codes with zero points, the second operand packed along either axis: exact.
void test_product(const Kernels& k) {
  for (int round = 0; round < 1500; ++round) {
    const int M = between(1, 9), K = between(1, 40), N = between(1, 140), za = between(0, 255), zb = between(0, 255);
    const bool along = between(0, 1), extreme = between(0, 5) == 0;
    std::vector<uint8_t> a(M * K + 64), b(K * N + 64);
    for (auto* v : {&a, &b})
      for (uint8_t& code : *v) code = uint8_t(extreme ? 255 * between(0, 1) : between(0, 255));
    const int64_t stride_k = along ? 1 : N, stride_n = along ? K : 1;
    const int quads = (K + 3) / 4, padded = (N + 63) / 64 * 64;
    std::vector<int8_t> panels(size_t(quads) * 4 * ((N + 15) / 16 * 16) + 64);
    std::vector<int32_t> sums(padded), bias(padded), rows(M);
    k.sequence.pack({b.data(), K, N, stride_k, stride_n, panels.data(), sums.data()});
    for (int n = 0; n < N; ++n) bias[n] = -za * (sums[n] + K * (128 - zb));
    k.dense.column_sums(a.data(), M, K, K, 0, rows.data());
    for (int32_t& s : rows) s *= 128 - zb;
    std::vector<float> scale(padded, 1), low(padded, -INFINITY), high(padded, INFINITY), y(size_t(M) * N);
    const Run run{0, quads};
    Dense d{};
    d.from = {1, M, 0, 0, K};
    d.to = {1, M, 0, 0, N};
    d.runs = &run;
    d.n_runs = 1;
    d.quads = quads;
    d.columns = N;
    d.finish.bias = bias.data(), d.finish.scale = scale.data(), d.finish.low = low.data(), d.finish.high = high.data();
    d.finish.codes = false;
    for (int p = 0; p * 64 < N; ++p)
      k.dense.run(d, {a.data(), panels.data() + size_t(p) * 256 * quads, y.data(), nullptr, sums.data(), rows.data(), 0, M, p});
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < N; ++n) {
        int64_t sum = 0;
        for (int i = 0; i < K; ++i) sum += int64_t{a[m * K + i] - za} * (b[i * stride_k + n * stride_n] - zb);
        CHECK(y[m * N + n] == float(sum));
      }
  }
}

void test_softmax(const Kernels& k) {
  for (int round = 0; round < 600; ++round) {
    const int rows = between(1, 5), width = between(1, 70), wide = width + between(0, 3);
    std::vector<float> x = reals(rows * wide, between(0, 1) ? 3 : 40), mask = reals(rows * width, 2), row(4 * (width + 32));
    if (between(0, 3) == 0) x[between(0, rows * wide - 1)] = -INFINITY;
    if (between(0, 9) == 0) x[between(0, rows * wide - 1)] = NAN;
    const bool masked = between(0, 1), every = between(0, 1), logarithm = between(0, 1), codes = !logarithm && between(0, 1);
    std::vector<float> y(rows * wide, 77);
    std::vector<uint8_t> bytes(rows * wide, 77);
    SoftmaxCall c{.x = x.data(), .y = y.data(), .rows = rows, .width = width, .x_stride = wide, .y_stride = wide};
    if (masked) c.mask = mask.data();
    c.mask_stride = every ? width : 0;
    c.factor = 0.25f;
    c.logarithm = logarithm;
    if (codes) c.y = bytes.data(), c.leave = {true, 255.0f, 3, 255};
    c.desk = row.data();
    k.sequence.softmax(c);
    for (int r = 0; r < rows; ++r) {
      std::vector<double> v(width);
      double top = -INFINITY, sum = 0;
      bool odd = false;
      for (int i = 0; i < width; ++i) {
        v[i] = float(x[r * wide + i] * 0.25f) + (masked ? mask[every ? r * width + i : i] : 0.0);
        odd |= std::isnan(v[i]);
        top = std::fmax(top, v[i]);
      }
      for (double s : v) sum += std::exp(s - top);
      odd |= std::isinf(top);
      for (int i = 0; i < width; ++i) {
        const double want = logarithm ? v[i] - top - std::log(sum) : std::exp(v[i] - top) / sum;
        if (codes && !odd) CHECK(std::fabs(bytes[r * wide + i] - std::fmin(std::nearbyint(want * 255) + 3, 255)) <= 1);
        if (!codes) {
          if (odd) CHECK(std::isnan(y[r * wide + i]));
          else if (std::isinf(want)) CHECK(y[r * wide + i] == want);
          else near(y[r * wide + i], want, 2e-6);
        }
      }
      for (int i = width; i < wide; ++i) CHECK(y[r * wide + i] == 77 && bytes[r * wide + i] == 77);
    }
  }
}

void test_norm(const Kernels& k) {
  for (int round = 0; round < 600; ++round) {
    const int rows = between(1, 4), width = between(2, 90);
    const std::vector<float> x = reals(rows * width, 2), other = reals(rows * width, 1), scale = reals(width, 1), shift = reals(width, 1);
    std::vector<uint8_t> codes(rows * width + 64), bytes(rows * width + 1, 77);
    for (uint8_t& c : codes) c = uint8_t(between(0, 255));
    std::vector<float> y(rows * width + 1, 77), row(4 * (width + 32)), mean(rows), inverse(rows);
    const bool added = between(0, 1), coded = between(0, 1), root = between(0, 1), out = between(0, 1);
    NormCall c{.x = x.data(), .y = y.data(), .rows = rows, .width = width, .stride = width};
    if (added) c.other = other.data();
    if (coded) c.codes = codes.data(), c.step = 0.02f, c.zero = 100;
    c.scale = scale.data(), c.shift = shift.data();
    c.root_mean_square = root;
    c.mean = mean.data(), c.inverse = inverse.data();
    if (out) c.y = bytes.data(), c.leave = {true, 20.0f, 120, 255};
    c.desk = row.data();
    k.sequence.norm(c);
    for (int r = 0; r < rows; ++r) {
      std::vector<double> v(width);
      double sum = 0, power = 0;
      for (int i = 0; i < width; ++i) {
        const int at = r * width + i;
        v[i] = double(x[at]) + (added ? other[at] : 0) + (coded ? (codes[at] - 100) * 0.02 : 0);
        sum += v[i];
      }
      const double m = root ? 0 : sum / width;
      for (double s : v) power += (s - m) * (s - m);
      const double i1 = 1 / std::sqrt(power / width + 1e-5);
      near(mean[r], m, 1e-5);
      if (i1 < 100) near(inverse[r], i1, 1e-4);
      for (int i = 0; i < width && i1 < 100; ++i) {
        const double want = (v[i] - m) * i1 * scale[i] + shift[i];
        if (out) CHECK(std::fabs(bytes[r * width + i] - std::fmin(std::fmax(std::nearbyint(want * 20) + 120, 0), 255)) <= 1);
        else near(y[r * width + i], want, 1e-5);
      }
    }
    CHECK(y[rows * width] == 77 && bytes[rows * width] == 77);
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void test_cells(const Kernels& k) {
  for (int H = 1; H < 40; ++H) {
    for (float size : {0.05f, 1.0f, 20.0f}) {
      const std::vector<float> x = reals(4 * H, size), h = reals(4 * H, size), past = reals(H, 1), peep = reals(3 * H, 1);
      std::vector<float> cell = past, out(H + 1, 77), update(H), reset(H);
      k.sequence.lstm({x.data(), h.data(), peep.data(), cell.data(), nullptr, out.data(), H, INFINITY});
      for (int i = 0; i < H; ++i) {
        const auto gate = [&](int g, double c) { return double(x[g * H + i] + h[g * H + i]) + (g < 3 ? peep[g * H + i] * c : 0); };
        auto at = [&](int g, double c) { return g == 2 ? double(x[2 * H + i]) + h[2 * H + i] + peep[2 * H + i] * c : gate(g, c); };
        const double want = sigmoid(at(2, past[i])) * past[i] + sigmoid(double(x[i]) + h[i] + peep[i] * past[i]) * std::tanh(double(x[3 * H + i]) + h[3 * H + i]);
        near(cell[i], want, 1e-5);
        near(out[i], sigmoid(double(x[H + i]) + h[H + i] + peep[H + i] * want) * std::tanh(want), 1e-5);
      }
      CHECK(out[H] == 77);
      k.sequence.gru_gates({x.data(), h.data(), nullptr, nullptr, nullptr, nullptr, H, INFINITY}, update.data(), reset.data());
      k.sequence.gru_state({x.data(), h.data(), nullptr, nullptr, past.data(), out.data(), H, INFINITY}, update.data());
      for (int i = 0; i < H; ++i) {
        const double u = sigmoid(double(x[i]) + h[i]);
        near(update[i], u, 1e-5);
        near(reset[i], sigmoid(double(x[H + i]) + h[H + i]), 1e-5);
        near(out[i], (1 - u) * std::tanh(double(x[i]) + h[i]) + u * past[i], 1e-5);
      }
      k.sequence.rnn({x.data(), h.data(), nullptr, nullptr, nullptr, out.data(), H, 0.5f}, false);
      for (int i = 0; i < H; ++i) {  // error of tanh relative to itself
        const double want = std::tanh(std::fmin(std::fmax(double(x[i]) + h[i], -0.5), 0.5));
        CHECK(std::fabs(out[i] - want) <= 3e-7 * std::fabs(want) + 3e-7 * std::fabs(x[i]));
      }
    }
  }
}

void test_decode(const Kernels& k) {
  std::vector<uint8_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[i] = uint8_t(i);
  std::vector<float> out(256);
  k.sequence.decode(codes.data(), 256, 0x80, 0, 1, -128, 0.5f, out.data());  // int8
  for (int i = 0; i < 256; ++i) CHECK(out[i] == float(int8_t(i)) * 0.5f);
  k.sequence.decode(codes.data(), 256, 0, 4, 2, 1 - 16, 0.25f, out.data());  // mid-rise of 8 bits at 4
  for (int i = 0; i < 256; ++i) CHECK(out[i] == float(2 * (i >> 4) - 15) * 0.25f);
}

}  // namespace

int main() {
  for (const Kernels* const* k = available_kernels(); *k; ++k) {
    test_real_dense(**k);
    test_product(**k);
    test_softmax(**k);
    test_norm(**k);
    test_cells(**k);
    test_decode(**k);
    std::printf("sequence: %s\n", (*k)->name);
  }
}
