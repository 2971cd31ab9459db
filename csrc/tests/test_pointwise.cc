// The kernels of kernels/pointwise.h against literal loops and the functions of <cmath>, on every instruction set.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "check.h"
#include "kernels.h"

using namespace bl;

namespace {

std::mt19937 dice(11);
int roll(int low, int high) { return std::uniform_int_distribution<int>(low, high)(dice); }
float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(dice); }

template <class Use>
void each_isa(const Use& use) {
  for (const Kernels* const* k = available_kernels(); *k; k++) use((*k)->pointwise, (*k)->name);
}

uint8_t code_of(float x, float step, int zero, int low, int high) {
  if (std::isnan(x)) return static_cast<uint8_t>(low);
  const float code = std::nearbyint(x / step) + static_cast<float>(zero);
  return static_cast<uint8_t>(std::fmin(std::fmax(code, static_cast<float>(low)), static_cast<float>(high)));
}

// A real that is often on a tie, or next to one, or far away.
float tricky(float step) {
  const float tie = (static_cast<float>(roll(-300, 300)) + 0.5f) * step;
  switch (roll(0, 9)) {
    case 0: return tie;
    case 1: return std::nextafter(tie, 1e30f);
    case 2: return std::nextafter(tie, -1e30f);
    case 3: return roll(0, 1) ? INFINITY : -INFINITY;
    case 4: return roll(0, 5) ? real(-1e30f, 1e30f) : NAN;
    default: return real(-300 * step, 300 * step);
  }
}

void codes_case() {
  const int channels = roll(0, 3) ? roll(1, 40) : 3, pixels = roll(0, 9) ? roll(1, 70) : roll(250, 400), n = channels * pixels;
  const bool many = roll(0, 1) == 0;
  std::vector<float> steps(many ? channels : 1), x(n);
  for (float& s : steps) s = roll(0, 2) ? real(1e-3f, 2) : std::ldexp(1.0f, roll(-90, 20));
  const int zero = roll(0, 255), low = roll(0, 3) ? 0 : roll(0, 100), high = roll(0, 3) ? 255 : roll(100, 255);
  const Steps s = {steps.data(), static_cast<int64_t>(steps.size()), zero, low, high};
  std::vector<uint8_t> expected(n), by_pixels(n), codes(n);
  std::vector<float> decoded(n);
  for (int i = 0; i < n; i++) {
    const float step = steps[many ? i % channels : 0];
    x[i] = tricky(step);
    expected[i] = code_of(x[i], step, zero, low, high);
    codes[i] = static_cast<uint8_t>(roll(0, 255));
    decoded[i] = static_cast<float>(codes[i] - zero) * step;
  }
  std::vector<float> planes(n);
  for (int p = 0; p < pixels; p++) {
    for (int c = 0; c < channels; c++) planes[c * pixels + p] = x[p * channels + c];
  }
  each_isa([&](const PointwiseKernels& k, const char* name) {
    std::vector<uint8_t> y(n + 1, 7);
    k.encode(x.data(), y.data(), n, s);
    for (int i = 0; i < n; i++) CHECK(y[i] == expected[i], "%s: encode %g by %g: %d, not %d", name, x[i], steps[many ? i % channels : 0], y[i], expected[i]);
    CHECK(y[n] == 7, "%s: encode wrote too much", name);
    k.encode_pixels(planes.data(), pixels, y.data(), pixels, channels, s);
    CHECK(std::memcmp(y.data(), expected.data(), n) == 0 && y[n] == 7, "%s: encode_pixels", name);
    std::vector<float> back(n);
    k.decode(codes.data(), back.data(), n, s);
    CHECK(back == decoded, "%s: decode", name);
    std::vector<uint32_t> a(n), b(n), c(n);
    for (int i = 0; i < n; i++) a[i] = static_cast<uint32_t>(i);
    k.planes32(a.data(), b.data(), pixels, pixels, channels);
    k.pixels32(b.data(), pixels, c.data(), pixels, channels);
    for (int i = 0; i < n; i++) CHECK(b[i % channels * pixels + i / channels] == a[i], "%s: planes32", name);
    CHECK(a == c, "%s: pixels32", name);
    std::vector<uint8_t> d(n), e(n);
    k.planes8(codes.data(), d.data(), pixels, pixels, channels);
    k.pixels8(d.data(), pixels, e.data(), pixels, channels);
    for (int i = 0; i < n; i++) CHECK(d[i % channels * pixels + i / channels] == codes[i], "%s: planes8", name);
    CHECK(e == codes, "%s: pixels8", name);
  });
}

// Every small shape, and those around the edges of tiles, between planes that have gaps, which must stay as they are.
void shape_case(int pixels, int channels) {
  const int plane = pixels + roll(0, 20), n = pixels * channels;
  const bool many = roll(0, 1) == 0;
  std::vector<float> steps(many ? channels : 1), reals(plane * channels, NAN);
  for (float& s : steps) s = roll(0, 2) ? real(1e-3f, 2) : std::ldexp(1.0f, roll(-20, 20));
  const int zero = roll(0, 255);
  const Steps s = {steps.data(), static_cast<int64_t>(steps.size()), zero, 0, 255};
  std::vector<uint8_t> planes(plane * channels, 9), codes(n), expected(n);
  for (int p = 0; p < pixels; p++) {
    for (int c = 0; c < channels; c++) {
      const float step = steps[many ? c : 0], x = tricky(step);
      reals[c * plane + p] = x;
      expected[p * channels + c] = code_of(x, step, zero, 0, 255);
      codes[p * channels + c] = planes[c * plane + p] = static_cast<uint8_t>(roll(0, 255));
    }
  }
  each_isa([&](const PointwiseKernels& k, const char* name) {
    std::vector<uint8_t> y(n), z(plane * channels, 9);
    k.encode_pixels(reals.data(), plane, y.data(), pixels, channels, s);
    CHECK(y == expected, "%s: encode_pixels, %d x %d", name, pixels, channels);
    k.pixels8(planes.data(), plane, y.data(), pixels, channels);
    CHECK(y == codes, "%s: pixels8, %d x %d", name, pixels, channels);
    k.planes8(codes.data(), z.data(), plane, pixels, channels);
    CHECK(z == planes, "%s: planes8, %d x %d", name, pixels, channels);
  });
}

void shapes() {
  const int edges[] = {63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257, 271, 272, 273};
  for (int pixels = 1; pixels <= 50; pixels++) {
    for (int channels = 1; channels <= 50; channels++) shape_case(pixels, channels);
    for (const int edge : edges) shape_case(pixels, edge), shape_case(edge, pixels);
  }
}

// Lines of every short length, whose values lie within a few units of the last place of a tie.
void ties() {
  for (int n = 1; n <= 300; n++) {
    const float step = n % 4 ? real(1e-3f, 2) : std::ldexp(1.0f, roll(-100, 20));
    const int zero = roll(0, 255), low = roll(0, 1) ? 0 : roll(0, 100), high = roll(0, 1) ? 255 : roll(100, 255);
    std::vector<float> x(n);
    std::vector<uint8_t> expected(n);
    for (int i = 0; i < n; i++) {
      x[i] = (static_cast<float>(roll(-zero - 2, 257 - zero)) + 0.5f) * step;
      for (int far = roll(-3, 3); far != 0; far -= far > 0 ? 1 : -1) x[i] = std::nextafter(x[i], far > 0 ? 1e30f : -1e30f);
      expected[i] = code_of(x[i], step, zero, low, high);
    }
    each_isa([&](const PointwiseKernels& k, const char* name) {
      std::vector<uint8_t> y(n);
      k.encode(x.data(), y.data(), n, {&step, 1, zero, low, high});
      for (int i = 0; i < n; i++) CHECK(y[i] == expected[i], "%s: encode %.9g by %.9g: %d, not %d", name, x[i], step, y[i], expected[i]);
    });
  }
}

void add_case() {
  const int n = roll(1, 200);
  const bool binary = roll(0, 1) == 0;
  const auto step = [&] { return binary ? std::ldexp(1.0f, -roll(2, 6)) : real(0.01f, 0.3f); };
  const bool held = roll(0, 1) == 0;
  const AddCodes d = {step(), step(), step(), roll(0, 255), roll(0, 255), roll(0, 255), held ? 0 : -INFINITY, held ? 6 : INFINITY,
                      roll(0, 20), roll(200, 255)};
  std::vector<uint8_t> a(n), b(n), expected(n), table(256), found(n);
  for (auto& t : table) t = static_cast<uint8_t>(roll(0, 255));
  for (int i = 0; i < n; i++) {
    a[i] = static_cast<uint8_t>(roll(0, 255));
    b[i] = static_cast<uint8_t>(roll(0, 255));
    const float left = static_cast<float>(a[i] - d.a_zero) * d.a_step, right = static_cast<float>(b[i] - d.b_zero) * d.b_step;
    expected[i] = code_of(std::fmin(std::fmax(left + right, d.floor), d.ceiling), d.step, d.zero, d.low, d.high);
    found[i] = table[a[i]];
  }
  each_isa([&](const PointwiseKernels& k, const char* name) {
    std::vector<uint8_t> y(n);
    k.add_codes(a.data(), b.data(), y.data(), n, d);
    CHECK(y == expected, "%s: add_codes", name);
    k.lookup(a.data(), y.data(), n, table.data());
    CHECK(y == found, "%s: lookup", name);
  });
}

void binary_case() {
  const int m = roll(1, 30), n = m * roll(1, 10);
  const int counts[3] = {1, m, n};
  const int p = counts[roll(0, 2)], q = counts[roll(0, 2)];
  std::vector<float> a(p), b(q);
  for (float& v : a) v = static_cast<float>(roll(-9, 9));
  for (float& v : b) v = static_cast<float>(roll(1, 9));
  const std::function<float(float, float)> f[] = {std::plus<float>(), std::minus<float>(), std::multiplies<float>(), std::divides<float>(),
                                                  [](float x, float y) { return std::fmax(x, y); }, [](float x, float y) { return std::fmin(x, y); }};
  each_isa([&](const PointwiseKernels& k, const char* name) {
    for (int op = 0; op < static_cast<int>(Binary::count); op++) {
      std::vector<float> y(n + 1, 77);
      k.binary[op](a.data(), p, b.data(), q, y.data(), n);
      for (int i = 0; i < n; i++) CHECK(y[i] == f[op](a[i % p], b[i % q]), "%s: operation %d of %d and %d in %d", name, op, p, q, n);
      CHECK(y[n] == 77, "%s: operation %d wrote too much", name, op);
    }
    std::vector<float> x(n), slope(m), mean(m), deviation(m), y(n), z(n);
    for (float& v : x) v = real(-9, 9);
    for (int c = 0; c < m; c++) slope[c] = real(-1, 1), mean[c] = real(-1, 1), deviation[c] = real(0.5f, 2);
    k.prelu(x.data(), y.data(), n, slope.data(), m);
    k.normalize(x.data(), z.data(), n, m, mean.data(), deviation.data(), slope.data(), mean.data());
    for (int i = 0; i < n; i++) {
      const int c = i % m;
      CHECK(y[i] == (x[i] < 0 ? slope[c] * x[i] : x[i]), "%s: prelu", name);
      CHECK(z[i] == (x[i] - mean[c]) / deviation[c] * slope[c] + mean[c], "%s: normalize", name);
    }
  });
}

struct Function {
  Unary op;
  const char* name;
  double (*f)(double);
  float low, high;
  float a = 0, b = 0;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::log1p(std::exp(-std::fabs(x))) + std::fmax(x, 0); }
double between(double x, double low, double high) { return std::fmin(std::fmax(x, low), high); }

const Function functions[] = {
    {Unary::abs, "abs", [](double x) { return std::fabs(x); }, -9, 9},
    {Unary::neg, "neg", [](double x) { return -x; }, -9, 9},
    {Unary::relu, "relu", [](double x) { return std::fmax(x, 0.0); }, -9, 9},
    {Unary::clip, "clip", [](double x) { return between(x, -1, 6); }, -9, 9, -1, 6},
    {Unary::sqrt, "sqrt", [](double x) { return std::sqrt(x); }, 0, 99},
    {Unary::reciprocal, "reciprocal", [](double x) { return 1 / x; }, 0.1f, 9},
    {Unary::floor, "floor", [](double x) { return std::floor(x); }, -9, 9},
    {Unary::ceil, "ceil", [](double x) { return std::ceil(x); }, -9, 9},
    {Unary::round, "round", [](double x) { return std::nearbyint(x); }, -9, 9},
    {Unary::sign, "sign", [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; }, -9, 9},
    {Unary::exp, "exp", [](double x) { return std::exp(x); }, -110, 88.7f},
    {Unary::log, "log", [](double x) { return std::log(x); }, 0, 1e10f},
    {Unary::log, "log", [](double x) { return std::log(x); }, 0, 2},
    {Unary::log, "log", [](double x) { return std::log(x); }, 0, 1e-37f},
    {Unary::sigmoid, "sigmoid", sigmoid, -100, 100},
    {Unary::tanh, "tanh", [](double x) { return std::tanh(x); }, -20, 20},
    {Unary::tanh, "tanh", [](double x) { return std::tanh(x); }, -0.2f, 0.2f},
    {Unary::erf, "erf", [](double x) { return std::erf(x); }, -5, 5},
    {Unary::gelu, "gelu", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }, -9, 9},
    {Unary::gelu_tanh, "gelu_tanh", [](double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }, -9, 9},
    {Unary::swish, "swish", [](double x) { return x * sigmoid(1.5 * x); }, -30, 30, 1.5f},
    {Unary::mish, "mish", [](double x) { return x * std::tanh(softplus(x)); }, -30, 30},
    {Unary::softplus, "softplus", softplus, -30, 30},
    {Unary::softsign, "softsign", [](double x) { return x / (1 + std::fabs(x)); }, -30, 30},
    {Unary::elu, "elu", [](double x) { return x < 0 ? 2 * std::expm1(x) : x; }, -30, 30, 2},
    {Unary::hard_sigmoid, "hard_sigmoid", [](double x) { return between(0.25 * x + 0.5, 0, 1); }, -9, 9, 0.25f, 0.5f},
    {Unary::hard_swish, "hard_swish", [](double x) { return x * between(x / 6 + 0.5, 0, 1); }, -9, 9},
    {Unary::leaky_relu, "leaky_relu", [](double x) { return x < 0 ? 0.125 * x : x; }, -9, 9, 0.125f},
};

void unary_case(const Function& f) {
  const int n = 4099;
  std::vector<float> x(n);
  for (float& v : x) v = real(f.low, f.high);
  x[0] = f.low;
  x[1] = f.high;
  if (f.low < 0) x[2] = 0;
  each_isa([&](const PointwiseKernels& k, const char* name) {
    std::vector<float> y(n + 1, 7), z = x;
    k.unary[static_cast<int>(f.op)](x.data(), y.data(), n, f.a, f.b);
    k.unary[static_cast<int>(f.op)](z.data(), z.data(), n, f.a, f.b);
    CHECK(y[n] == 7, "%s: %s wrote too much", name, f.name);
    for (int i = 0; i < n; i++) {
      const double exact = f.f(x[i]);
      CHECK(y[i] == z[i] || (std::isnan(y[i]) && std::isnan(z[i])), "%s: %s in place", name, f.name);
      if (y[i] == static_cast<float>(exact)) continue;  // infinities too
      CHECK(std::fabs(y[i] - exact) <= 1e-6 * (1 + std::fabs(exact)), "%s: %s of %.9g: %.9g, not %.9g", name, f.name, x[i], y[i], exact);
    }
  });
}

void edges() {
  each_isa([&](const PointwiseKernels& k, const char* name) {
    const float x[] = {INFINITY, -INFINITY, NAN, 0, 200, -200};
    float y[6];
    k.unary[static_cast<int>(Unary::exp)](x, y, 6, 0, 0);
    CHECK(std::isinf(y[0]) && y[1] == 0 && std::isnan(y[2]) && y[3] == 1 && std::isinf(y[4]) && y[5] == 0, "%s: exp at the edges", name);
    k.unary[static_cast<int>(Unary::log)](x, y, 6, 0, 0);
    CHECK(std::isinf(y[0]) && std::isnan(y[1]) && std::isnan(y[2]) && y[3] == -INFINITY && std::isnan(y[5]), "%s: log at the edges", name);
    k.unary[static_cast<int>(Unary::tanh)](x, y, 6, 0, 0);
    CHECK(y[0] == 1 && y[1] == -1 && std::isnan(y[2]) && y[4] == 1 && y[5] == -1, "%s: tanh at the edges", name);
    k.unary[static_cast<int>(Unary::sigmoid)](x, y, 6, 0, 0);
    CHECK(y[0] == 1 && y[1] == 0 && std::isnan(y[2]) && y[3] == 0.5f && y[4] == 1, "%s: sigmoid at the edges", name);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 5000;
  for (int i = 0; i < count; i++) codes_case(), add_case(), binary_case();
  shapes();
  for (int i = 0; i < count / 100; i++) ties();
  for (const Function& f : functions) unary_case(f);
  edges();
  return 0;
}
