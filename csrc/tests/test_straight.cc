// The kernels of kernels/straight.h against literal loops, on every instruction set.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "check.h"
#include "kernels.h"

using namespace bl;

namespace {

std::mt19937 dice(5);
int roll(int low, int high) { return std::uniform_int_distribution<int>(low, high)(dice); }
float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(dice); }

// A real that is often on a tie, or next to one, or far away.
float tricky(float step) {
  const float tie = (static_cast<float>(roll(-300, 300)) + 0.5f) * step;
  switch (roll(0, 9)) {
    case 0: return tie;
    case 1: return std::nextafter(tie, 1e30f);
    case 2: return std::nextafter(tie, -1e30f);
    case 3: return roll(0, 1) ? 1e30f : -1e30f;
    default: return real(-300 * step, 300 * step);
  }
}

void one_case() {
  const int n = roll(0, 9) ? roll(0, 100) : roll(1000, 5000);
  const float step = roll(0, 2) ? real(1e-3f, 2) : std::ldexp(1.0f, roll(-20, 10));
  const auto low = static_cast<float>(roll(-255, 0)), high = low + 255;
  const Levels levels = {step, low, high, (low - 0.5f) * step, (high + 0.5f) * step};
  std::vector<float> x(n), gradient(n), expected(n), cut(n);
  double total = 0, size = 0;
  for (int i = 0; i < n; i++) {
    x[i] = tricky(step);
    gradient[i] = real(-1, 1);
    expected[i] = std::fmin(std::fmax(std::nearbyint(x[i] / step), low), high) * step;
    const bool inside = x[i] >= levels.floor && x[i] <= levels.ceiling;
    cut[i] = inside ? gradient[i] : 0.0f;
    const double part = gradient[i] * static_cast<double>(expected[i] - (inside ? x[i] : 0.0f));
    total += part;
    size += std::fabs(part);
  }
  double first = 0;
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    std::vector<float> y(n + 1, 7.0f), to_x(n + 1, 7.0f);
    (*k)->straight.rounded(x.data(), y.data(), n, levels);
    const double sum = (*k)->straight.back(x.data(), gradient.data(), to_x.data(), n, levels);
    for (int i = 0; i < n; i++) {
      CHECK(y[i] == expected[i], "%s: %g by %g: %g, not %g", (*k)->name, x[i], step, y[i], expected[i]);
      CHECK(to_x[i] == cut[i], "%s: gradient of %g by %g: %g, not %g", (*k)->name, x[i], step, to_x[i], cut[i]);
    }
    CHECK(y[n] == 7.0f && to_x[n] == 7.0f, "%s: wrote too much", (*k)->name);
    CHECK(std::fabs(sum - total) <= 1e-5 * size, "%s: sum %g, not %g", (*k)->name, sum, total);
    if (k == available_kernels()) first = sum;
    CHECK(sum == first, "%s: sum %.17g, of the first set %.17g", (*k)->name, sum, first);
    (*k)->straight.rounded(x.data(), x.data(), 0, levels);  // nothing is nothing
  }
  const float nan[1] = {NAN};
  for (const Kernels* const* k = available_kernels(); *k; k++) {
    float y[1] = {0};
    (*k)->straight.rounded(nan, y, 1, levels);
    CHECK(std::isnan(y[0]), "%s: a NaN became %g", (*k)->name, y[0]);
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 2000; i++) one_case();
}
