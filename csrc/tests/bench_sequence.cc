// Times of the kernels of kernels/sequence.h: float products as a share of the measured multiply-add peak, and what stands
// between the products of a transformer layer (12 heads, 128 tokens, 384 wide).
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels.h"

using namespace bl;

namespace {

double best_of(int rounds, const std::function<void()>& f) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::fmin(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double products(const Kernels& k, int rows, int inputs, int columns, int rounds) {
  std::vector<float> x(size_t(rows) * inputs + 64, 0.5f), y(size_t(rows) * columns);
  const int padded = (columns + 63) / 64 * 64;
  std::vector<float> w(size_t(inputs) * padded, 0.25f), bias(padded), low(padded, -INFINITY), high(padded, INFINITY);
  const Run run{0, inputs};
  Dense d{};
  d.from = {1, rows, 0, 0, inputs};
  d.to = {1, rows, 0, 0, columns};
  d.runs = &run, d.n_runs = 1, d.quads = inputs, d.columns = columns;
  d.finish.low = low.data(), d.finish.high = high.data();
  return best_of(rounds, [&] {
    for (int p = 0; p * 64 < columns; ++p)
      k.sequence.real_dense(d, {x.data(), w.data() + size_t(p) * 64 * inputs, y.data(), bias.data(), 0, rows, p});
  });
}

}  // namespace

int main() {
  for (const Kernels* const* each = available_kernels(); *each; ++each) {
    const Kernels& k = **each;
    const int rounds = 30;
    // Weights in the first cache and enough rows: as near to the peak as a product comes.
    const double peak = 480 * 96.0 * 64 / products(k, 480, 96, 64, 200) * 1e-9;
    std::printf("%s: %.1f GMAC/s in the smallest product\n", k.name, peak);
    const int shapes[][3] = {{3136, 64, 64},   {3136, 576, 64},  {3136, 64, 256}, {784, 512, 128}, {784, 1152, 128},
                             {196, 2304, 256}, {196, 256, 1024}, {49, 4608, 512}, {49, 2048, 512}, {1, 2048, 1000},
                             {128, 384, 384},  {128, 1536, 384}};
    for (const auto& s : shapes) {
      const double t = products(k, s[0], s[1], s[2], s[0] * s[1] > 1000000 ? 5 : 20);
      std::printf("  %5d x %5d x %5d  %8.3f ms  %6.1f GMAC/s\n", s[0], s[1], s[2], t * 1e3, 1e-9 * s[0] * s[1] * s[2] / t);
    }
    std::vector<float> x(1536 * 128, 0.5f), mask(128), row(4 * 1536), scale(384, 1);
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 77) * 0.1f;
    std::vector<uint8_t> y(1536 * 128 + 64);
    SoftmaxCall s{.x = x.data(), .y = y.data(), .mask = mask.data(), .rows = 1536, .width = 128, .x_stride = 128, .y_stride = 128};
    s.factor = 0.2f, s.leave = {true, 255, 0, 255}, s.desk = row.data();
    std::printf("  softmax  %7.1f us\n", 1e6 * best_of(rounds, [&] { k.sequence.softmax(s); }));
    NormCall n{.x = x.data(), .codes = y.data(), .y = y.data(), .scale = scale.data(), .shift = scale.data(), .rows = 128, .width = 384, .stride = 384};
    n.leave = s.leave, n.desk = row.data();
    std::printf("  add+norm %7.1f us\n", 1e6 * best_of(rounds, [&] { k.sequence.norm(n); }));
    std::vector<int8_t> panels(128 * 128);
    std::vector<int32_t> sums(128);
    const auto packed = [&](int64_t K, int64_t N, int64_t sk, int64_t sn) {
      return best_of(rounds, [&] { for (int h = 0; h < 12; ++h) k.sequence.pack({y.data() + h * 32, K, N, sk, sn, panels.data(), sums.data()}); });
    };
    std::printf("  pack     %7.1f us keys, %.1f us values\n", 1e6 * packed(32, 128, 1, 384), 1e6 * packed(128, 32, 384, 1));
  }
}
