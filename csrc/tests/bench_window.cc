// Depthwise layers of MobileNetV2 at 224 x 224: best time of many, on every instruction set of this machine.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels.h"

using namespace bl;

namespace {

struct Shape {
  int size, channels, stride, count;  // of the input; layers of this shape
};
constexpr Shape shapes[] = {{112, 32, 1, 1}, {112, 96, 2, 1}, {56, 144, 1, 1}, {56, 144, 2, 1}, {28, 192, 1, 2}, {28, 192, 2, 1},
                            {14, 384, 1, 4}, {14, 576, 1, 2}, {14, 576, 2, 1}, {7, 960, 1, 3}};

double best_seconds(const Kernels& k, const Shape& s, bool half) {
  const int64_t n = s.channels, width = s.size + 2, out = s.size / s.stride + (s.size % s.stride != 0);
  std::vector<uint8_t> x(static_cast<size_t>(width * width * n + slack), 100), y(static_cast<size_t>(out * out * n + slack));
  const size_t wide = static_cast<size_t>((n + 63) / 64 * 64);
  std::vector<int8_t> w(wide * 9 + slack, 3);
  std::vector<int32_t> bias(wide, 0);
  std::vector<float> scale(wide, 0.01f), low(wide, 0), high(wide, 255);
  std::vector<int64_t> taps;
  for (int i = 0; i < 9; i++) taps.push_back((i / 3 * width + i % 3) * n);
  Depthwise d = {};
  d.from = {static_cast<int32_t>(out), static_cast<int32_t>(out), width * width * n, s.stride * width * n, s.stride * n};
  d.to = {static_cast<int32_t>(out), static_cast<int32_t>(out), out * out * n, out * n, n};
  d.taps = taps.data();
  d.n_taps = 9;
  d.channels = static_cast<int>(n);
  d.across = 3;
  d.half = half;
  d.finish.shift = half;
  d.finish.bias = bias.data();
  d.finish.scale = scale.data();
  d.finish.low = low.data();
  d.finish.high = high.data();
  double best = 1;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20000; i++) {
    const auto before = std::chrono::steady_clock::now();
    k.window.depthwise(d, {x.data(), w.data(), y.data(), 0, out});
    const auto after = std::chrono::steady_clock::now();
    best = std::fmin(best, std::chrono::duration<double>(after - before).count());
    if (std::chrono::duration<double>(after - start).count() > 0.2) break;
  }
  return best;
}

}  // namespace

int main() {
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    for (const bool half : {false, true}) {
      double all = 0, macs = 0;
      std::printf("%s%s\n", (*k)->name, half ? ", mid-rise" : "");
      for (const Shape& s : shapes) {
        const double t = best_seconds(**k, s, half), out = static_cast<double>(s.size) * s.size / (s.stride * s.stride);
        const double m = out * s.channels * 9, bytes = (static_cast<double>(s.size) * s.size + out) * s.channels;
        std::printf("  %3d x %3d x %3d / %d: %7.1f us, %6.1f GMAC/s, %6.1f GB/s\n", s.size, s.size, s.channels, s.stride, t * 1e6, m / t / 1e9, bytes / t / 1e9);
        all += t * s.count;
        macs += m * s.count;
      }
      std::printf("  all: %.1f us, %.1f GMAC/s\n", all * 1e6, macs / all / 1e9);
    }
  }
}
