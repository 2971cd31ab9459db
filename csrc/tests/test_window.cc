// The kernels of kernels/window.h against literal loops, on every instruction set of this machine.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "kernels.h"

using namespace bl;

namespace {

std::mt19937 dice(7);
int roll(int low, int high) { return std::uniform_int_distribution<int>(low, high)(dice); }

float clipped(float v, float low, float high) { return std::fmin(std::fmax(v, low), high); }

constexpr uint8_t guard = 0xa5;

struct DepthwiseCase {
  int batch, channels, ky, kx, sy, sx, dy, dx, lines, columns, bits;
  bool half, reals, table;
};

void depthwise_case(const DepthwiseCase& c) {
  const int height = (c.lines - 1) * c.sy + (c.ky - 1) * c.dy + 1, width = (c.columns - 1) * c.sx + (c.kx - 1) * c.dx + 1;
  const int wide = (c.channels + 63) / 64 * 64, taps = c.ky * c.kx, n = c.channels;
  const bool extreme = roll(0, 9) == 0;
  std::vector<uint8_t> x(static_cast<size_t>(c.batch * height * width * n + slack), 0xff);
  for (int i = 0; i < c.batch * height * width * n; i++) x[i] = static_cast<uint8_t>(extreme ? 255 * roll(0, 1) : roll(0, 255));
  std::vector<int8_t> w(static_cast<size_t>(taps * wide + slack), 77);
  for (int t = 0; t < taps; t++) {
    for (int i = 0; i < n; i++) w[t * wide + i] = static_cast<int8_t>(extreme ? (roll(0, 1) ? 127 : -128) : roll(-128, 127));
  }
  std::vector<int32_t> bias(wide, 1 << 30);
  std::vector<float> scale(wide, 1), low(wide, 0), high(wide, 0);
  const int zero = roll(0, 255), x_zero = roll(0, 255);
  for (int i = 0; i < n; i++) {
    bias[i] = roll(-30000, 30000);
    scale[i] = std::ldexp(static_cast<float>(roll(1000, 9999)), extreme ? roll(-26, 16) : -roll(18, 26));
    low[i] = static_cast<float>(c.reals ? roll(-90, -1) : roll(0, 9) ? -zero : roll(-zero, 0));
    high[i] = static_cast<float>(c.reals ? roll(0, 90) : roll(0, 9) ? 255 - zero : roll(0, 255 - zero));
  }
  std::vector<uint8_t> table(256);
  for (auto& entry : table) entry = static_cast<uint8_t>(roll(0, 255));
  std::vector<int64_t> offsets;
  for (int y = 0; y < c.ky; y++) {
    for (int j = 0; j < c.kx; j++) offsets.push_back((static_cast<int64_t>(y) * c.dy * width + j * c.dx) * n);
  }
  Depthwise d = {};
  d.from = {c.lines, c.columns, static_cast<int64_t>(height) * width * n, static_cast<int64_t>(c.sy) * width * n, static_cast<int64_t>(c.sx) * n};
  const int64_t gap = roll(0, 3) * n;  // a ring of the output
  const int64_t line = c.columns * n + gap, image = line * c.lines + gap;
  d.to = {c.lines, c.columns, image, line, n};
  d.taps = offsets.data();
  d.n_taps = taps;
  d.channels = n;
  d.across = c.kx == 3 && c.dx == 1 ? 3 : 0;
  d.mask = static_cast<uint8_t>(0xff << (8 - c.bits));
  d.half = c.half;
  d.zero = x_zero;
  d.finish.shift = c.half ? c.bits - 7 : roll(0, 4) ? 0 : roll(0, 2);
  d.finish.bias = bias.data();
  d.finish.scale = scale.data();
  d.finish.low = low.data();
  d.finish.high = high.data();
  d.finish.codes = !c.reals;
  d.finish.zero = zero;
  d.finish.table = c.table ? table.data() : nullptr;

  const size_t size = static_cast<size_t>(image * c.batch), element = c.reals ? 4 : 1;
  std::vector<uint8_t> expected(size * element, guard);
  for (int b = 0; b < c.batch; b++) {
    for (int l = 0; l < c.lines; l++) {
      for (int j = 0; j < c.columns; j++) {
        for (int i = 0; i < n; i++) {
          int64_t sum = 0, inputs = 0;
          for (int y = 0; y < c.ky; y++) {
            for (int k = 0; k < c.kx; k++) {
              const int v = x[((static_cast<int64_t>(b) * height + l * c.sy + y * c.dy) * width + j * c.sx + k * c.dx) * n + i];
              sum += v * static_cast<int8_t>(w[(y * c.kx + k) * wide + i] & d.mask);
              inputs += v - x_zero;
            }
          }
          sum = (d.finish.shift >= 0 ? sum * (1 << d.finish.shift) : sum / (1 << -d.finish.shift)) + bias[i] + (c.half ? inputs : 0);
          const float v = clipped(static_cast<float>(static_cast<int32_t>(sum)) * scale[i], low[i], high[i]);
          const size_t at = static_cast<size_t>(b * image + l * line + j * n + i);
          if (c.reals) {
            std::memcpy(expected.data() + at * 4, &v, 4);
          } else {
            const uint8_t code = static_cast<uint8_t>(std::nearbyint(v) + zero);
            expected[at] = c.table ? table[code] : code;
          }
        }
      }
    }
  }
  const int64_t all = static_cast<int64_t>(c.batch) * c.lines, cut = roll(0, static_cast<int>(all));
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    std::vector<uint8_t> y(size * element, guard);
    (*k)->window.depthwise(d, {x.data(), w.data(), y.data(), 0, cut});
    (*k)->window.depthwise(d, {x.data(), w.data(), y.data(), cut, all});
    for (size_t i = 0; i < y.size(); i++) {
      CHECK(y[i] == expected[i], "%s: %zu: %d, not %d (channels %d, %d x %d, stride %d %d, dilation %d %d, %d x %d, bits %d, half %d, reals %d, table %d)",
            (*k)->name, i, y[i], expected[i], n, c.ky, c.kx, c.sy, c.sx, c.dy, c.dx, c.lines, c.columns, c.bits, c.half, c.reals, c.table);
    }
  }
}

void depthwise_cases(int count) {
  for (int i = 0; i < count; i++) {
    DepthwiseCase c = {};
    c.batch = roll(1, 2);
    c.channels = roll(0, 2) ? roll(1, 40) : roll(0, 3) ? roll(41, 100) : roll(101, 200);
    const bool three = roll(0, 1) == 0;
    c.ky = three ? 3 : roll(1, 4);
    c.kx = three ? 3 : roll(1, 4);
    c.sy = roll(0, 1) ? 1 : roll(1, 2);
    c.sx = roll(0, 1) ? 1 : roll(1, 2);
    c.dy = roll(0, 3) ? 1 : roll(1, 2);
    c.dx = roll(0, 3) ? 1 : roll(1, 2);
    c.lines = roll(1, c.channels > 40 ? 3 : 4);
    c.columns = roll(1, c.channels > 40 ? 3 : 5);
    c.half = roll(0, 1) == 0;
    c.bits = c.half || roll(0, 2) == 0 ? roll(1, 8) : 8;
    c.reals = roll(0, 4) == 0;
    c.table = !c.reals && roll(0, 4) == 0;
    depthwise_case(c);
  }
  depthwise_case({1, 70, 16, 16, 1, 1, 1, 1, 2, 3, 8, true, false, false});  // as many taps as there may be
  depthwise_case({1, 5, 7, 7, 1, 1, 1, 1, 9, 31, 8, false, false, false});
}

void pool_case() {
  Pooling p = {};
  p.height = roll(1, 8);
  p.width = roll(1, 8);
  p.channels = roll(0, 3) ? roll(1, 20) : roll(60, 140);
  p.kernel_y = roll(1, 3);
  p.kernel_x = roll(1, 3);
  p.stride_y = roll(1, 3);
  p.stride_x = roll(1, 3);
  p.dilation_y = roll(0, 2) ? 1 : 2;
  p.dilation_x = roll(0, 2) ? 1 : 2;
  const int span_y = (p.kernel_y - 1) * p.dilation_y + 1, span_x = (p.kernel_x - 1) * p.dilation_x + 1;
  p.top = roll(0, p.kernel_y / 2);
  p.bottom = roll(0, p.kernel_y / 2);
  p.left = roll(0, p.kernel_x / 2);
  p.right = roll(0, p.kernel_x / 2);
  p.count_padding = roll(0, 1) == 0;
  if (p.height + p.top + p.bottom < span_y || p.width + p.left + p.right < span_x) return;
  p.lines = (p.height + p.top + p.bottom - span_y) / p.stride_y + 1;
  p.columns = (p.width + p.left + p.right - span_x) / p.stride_x + 1;
  const int batch = roll(1, 2), n = p.channels;
  p.x_line = (p.width + roll(0, 2)) * n;
  p.x_image = p.x_line * p.height;
  p.y_line = (p.columns + roll(0, 2)) * n;
  p.y_image = p.y_line * p.lines;
  std::vector<uint8_t> x(batch * p.x_image);
  std::vector<float> reals(x.size()), x_step(n), y_step(n), low(n), high(n);
  for (size_t i = 0; i < x.size(); i++) reals[i] = static_cast<float>(x[i] = static_cast<uint8_t>(roll(0, 255))) - 128;
  Mean m = {x_step.data(), y_step.data(), low.data(), high.data(), roll(0, 255), roll(0, 255)};
  for (int c = 0; c < n; c++) {
    x_step[c] = static_cast<float>(roll(1, 9999)) / 65536;
    y_step[c] = static_cast<float>(roll(1, 9999)) / 65536;
    low[c] = static_cast<float>(-roll(0, m.y_zero));
    high[c] = static_cast<float>(roll(0, 255 - m.y_zero));
  }
  const size_t size = batch * p.y_image;
  std::vector<uint8_t> most(size, guard), mean(size, guard);
  std::vector<float> most_real(size, 7), mean_real(size, 7);
  for (int b = 0; b < batch; b++) {
    for (int l = 0; l < p.lines; l++) {
      for (int j = 0; j < p.columns; j++) {
        for (int c = 0; c < n; c++) {
          int best = -1, sum = 0, inside = 0, counted = 0;
          for (int y = 0; y < p.kernel_y; y++) {
            for (int k = 0; k < p.kernel_x; k++) {
              const int v = l * p.stride_y - p.top + y * p.dilation_y, h = j * p.stride_x - p.left + k * p.dilation_x;
              counted += v < p.height + p.bottom && h < p.width + p.right;
              if (v < 0 || h < 0 || v >= p.height || h >= p.width) continue;
              const int code = x[b * p.x_image + v * p.x_line + h * n + c];
              best = std::max(best, code);
              sum += code;
              inside++;
            }
          }
          const size_t at = b * p.y_image + l * p.y_line + j * n + c;
          if (!inside) return;  // dilated windows may miss the image; rules refuse them
          const float count = static_cast<float>(p.count_padding ? counted : inside);
          most[at] = static_cast<uint8_t>(best);
          most_real[at] = static_cast<float>(best) - 128;
          const float factor = x_step[c] / (y_step[c] * count);
          const float v = clipped(static_cast<float>(sum - inside * m.x_zero) * factor, low[c], high[c]);
          mean[at] = static_cast<uint8_t>(std::nearbyint(v) + m.y_zero);
          mean_real[at] = static_cast<float>((sum - inside * 128.0) / count);
        }
      }
    }
  }
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    const WindowKernels& w = (*k)->window;
    const int64_t all = static_cast<int64_t>(batch) * p.lines, cut = roll(0, static_cast<int>(all));
    std::vector<uint8_t> a(size, guard), b(size, guard);
    std::vector<float> c(size, 7), d(size, 7);
    for (int half = 0; half < 2; half++) {
      const int64_t from = half ? cut : 0, to = half ? all : cut;
      w.max_codes(p, x.data(), a.data(), from, to);
      w.mean_codes(p, m, x.data(), b.data(), from, to);
      w.max_reals(p, reals.data(), c.data(), from, to);
      w.mean_reals(p, reals.data(), d.data(), from, to);
    }
    CHECK(a == most, "%s: max of codes", (*k)->name);
    CHECK(b == mean, "%s: mean of codes", (*k)->name);
    CHECK(c == most_real, "%s: max of reals", (*k)->name);
    for (size_t i = 0; i < size; i++) CHECK(std::fabs(d[i] - mean_real[i]) < 1e-4, "%s: mean of reals", (*k)->name);
  }
}

void blend_case() {
  const int n = roll(1, 50), taps = roll(1, 5);
  std::vector<float> x(200), weights(taps);
  std::vector<int64_t> from(taps);
  for (auto& v : x) v = static_cast<float>(roll(-99, 99));
  for (int t = 0; t < taps; t++) {
    weights[t] = static_cast<float>(roll(-8, 8)) / 8;
    from[t] = roll(0, 200 - n);
  }
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    std::vector<float> y(n + 1, 7);
    (*k)->window.blend({from.data(), weights.data(), taps, n}, x.data(), y.data());
    CHECK(y[n] == 7, "%s: wrote too much", (*k)->name);
    for (int i = 0; i < n; i++) {
      float sum = 0;
      for (int t = 0; t < taps; t++) sum += weights[t] * x[from[t] + i];
      CHECK(y[i] == sum, "%s: blend", (*k)->name);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 50000;
  depthwise_cases(count);
  for (int i = 0; i < count / 5; i++) pool_case();
  for (int i = 0; i < count / 10; i++) blend_case();
  return 0;
}
