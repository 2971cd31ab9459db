// Speed of the dense kernels on the layers of four networks, one thread: GMAC/s and the share of the machine's own peak,
// which is measured beside them on registers alone. Arguments: a part of the network's name, the instruction set, how many
// turns (40).
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "peak.h"

using namespace bl;

namespace {

// `size` is the side of the square output, or the rows of a product; `times` how often the network has this layer.
struct Layer {
  const char* net;
  int size, stride, window, inputs, outputs, times;
  bool residual = false, reals = false;
};

const Layer layers[] = {
    {"resnet50", 112, 2, 7, 3, 64, 1},
    {"resnet50", 56, 1, 1, 64, 64, 1},
    {"resnet50", 56, 1, 3, 64, 64, 3},
    {"resnet50", 56, 1, 1, 64, 256, 1},
    {"resnet50", 56, 1, 1, 64, 256, 3, true},
    {"resnet50", 56, 1, 1, 256, 64, 2},
    {"resnet50", 56, 1, 1, 256, 128, 1},
    {"resnet50", 28, 2, 3, 128, 128, 1},
    {"resnet50", 28, 1, 1, 128, 512, 4, true},
    {"resnet50", 28, 2, 1, 256, 512, 1},
    {"resnet50", 28, 1, 1, 512, 128, 3},
    {"resnet50", 28, 1, 3, 128, 128, 3},
    {"resnet50", 28, 1, 1, 512, 256, 1},
    {"resnet50", 14, 2, 3, 256, 256, 1},
    {"resnet50", 14, 1, 1, 256, 1024, 6, true},
    {"resnet50", 14, 2, 1, 512, 1024, 1},
    {"resnet50", 14, 1, 1, 1024, 256, 5},
    {"resnet50", 14, 1, 3, 256, 256, 5},
    {"resnet50", 14, 1, 1, 1024, 512, 1},
    {"resnet50", 7, 2, 3, 512, 512, 1},
    {"resnet50", 7, 1, 1, 512, 2048, 3, true},
    {"resnet50", 7, 2, 1, 1024, 2048, 1},
    {"resnet50", 7, 1, 1, 2048, 512, 2},
    {"resnet50", 7, 1, 3, 512, 512, 2},
    {"mobilenetv2", 112, 1, 1, 32, 16, 1},
    {"mobilenetv2", 112, 1, 1, 16, 96, 1},
    {"mobilenetv2", 56, 1, 1, 96, 24, 1},
    {"mobilenetv2", 56, 1, 1, 24, 144, 2},
    {"mobilenetv2", 56, 1, 1, 144, 24, 1, true},
    {"mobilenetv2", 28, 1, 1, 144, 32, 1},
    {"mobilenetv2", 28, 1, 1, 32, 192, 3},
    {"mobilenetv2", 28, 1, 1, 192, 32, 2, true},
    {"mobilenetv2", 14, 1, 1, 192, 64, 1},
    {"mobilenetv2", 14, 1, 1, 64, 384, 4},
    {"mobilenetv2", 14, 1, 1, 384, 64, 3, true},
    {"mobilenetv2", 14, 1, 1, 384, 96, 1},
    {"mobilenetv2", 14, 1, 1, 96, 576, 3},
    {"mobilenetv2", 14, 1, 1, 576, 96, 2, true},
    {"mobilenetv2", 7, 1, 1, 576, 160, 1},
    {"mobilenetv2", 7, 1, 1, 160, 960, 3},
    {"mobilenetv2", 7, 1, 1, 960, 160, 2, true},
    {"mobilenetv2", 7, 1, 1, 960, 320, 1},
    {"mobilenetv2", 7, 1, 1, 320, 1280, 1},
    {"resnet20", 32, 1, 3, 3, 16, 1},
    {"resnet20", 32, 1, 3, 16, 16, 3},
    {"resnet20", 32, 1, 3, 16, 16, 3, true},
    {"resnet20", 16, 2, 3, 16, 32, 1},
    {"resnet20", 16, 1, 3, 32, 32, 2},
    {"resnet20", 16, 1, 3, 32, 32, 3, true},
    {"resnet20", 8, 2, 3, 32, 64, 1},
    {"resnet20", 8, 1, 3, 64, 64, 2},
    {"resnet20", 8, 1, 3, 64, 64, 3, true},
    {"minilm", 128, 0, 0, 384, 384, 24},
    {"minilm", 128, 0, 0, 384, 1536, 6},
    {"minilm", 128, 0, 0, 1536, 384, 6, false, true},
    {"vector", 1, 0, 0, 512, 1000, 1},
    {"vector", 1, 0, 0, 2048, 1000, 1},
};

// A layer with its memory: images have their ring of padding, weights and inputs are any bytes.
struct Bench {
  Layer layer;
  double least = 1e9;  // seconds
  Dense d;
  DenseCall call = {};
  int64_t rows;
  std::vector<Run> runs;
  std::vector<uint8_t> x, y, other;
  std::vector<int8_t> w;
  std::vector<int32_t> ints;
  std::vector<float> scale, low, high;

  explicit Bench(const Layer& l) : layer(l) {
    const int window = l.window ? l.window : 1, stride = l.stride ? l.stride : 1;
    const int64_t side = l.window ? (l.size - 1) * stride + window : l.size, line = side * l.inputs;
    rows = l.window ? int64_t{l.size} * l.size : l.size;
    d.columns = l.outputs;
    d.quads = 0;
    for (int i = 0; i < window; ++i) {
      runs.push_back({i * line, (window * l.inputs + 3) / 4});
      d.quads += runs.back().quads;
    }
    d.runs = runs.data(), d.n_runs = window;
    if (l.window) {
      d.from = {l.size, l.size, 0, stride * line, stride * l.inputs};
      const int64_t padded = l.size + 2;
      d.to = {l.size, l.size, 0, padded * l.outputs, l.outputs};
    } else {
      d.from = {1, l.size, 0, 0, l.inputs};
      d.to = {1, l.size, 0, 0, l.outputs};
    }
    d.beside = d.to;
    x.resize(static_cast<size_t>(l.window ? side * line : l.size * l.inputs) + 2 * slack);
    y.resize(static_cast<size_t>((l.size + 2) * (l.window ? l.size + 2 : 1)) * l.outputs * (l.reals ? 4 : 1) + slack);
    other.resize(y.size() + slack);
    w.resize(static_cast<size_t>((l.outputs + 15) / 16 * 16) * 4 * d.quads + slack);
    uint32_t state = 1;
    for (auto& v : w) v = static_cast<int8_t>((state = state * 1664525 + 1013904223) >> 24);
    for (auto& v : x) v = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    for (auto& v : other) v = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    const auto padded = static_cast<size_t>((l.outputs + 63) / 64 * 64);
    ints.resize(padded, 1);
    scale.resize(padded, 0.001f);
    low.resize(padded, l.reals ? -__builtin_inff() : 0.0f);
    high.resize(padded, l.reals ? __builtin_inff() : 255.0f);
    d.finish.bias = ints.data(), d.finish.scale = scale.data(), d.finish.low = low.data(), d.finish.high = high.data();
    d.finish.codes = !l.reals;
    d.finish.step = 0.013f, d.finish.other_step = 0.017f, d.finish.out_step = 0.019f;
    d.finish.sum_low = 0, d.finish.sum_high = __builtin_inff();
    call.x = x.data(), call.y = y.data(), call.weight_sums = ints.data();
    call.other = l.residual ? other.data() : nullptr;
  }

  double macs() const { return 1.0 * rows * layer.outputs * layer.inputs * (layer.window ? layer.window * layer.window : 1); }
  Bench(Bench&&) = default;  // its vectors stay where they are

  // All panels for a block of rows, then the next block: outputs of a row are written while they are near, as long as the
  // weights of all panels are near too.
  void run(const Kernels& kernels) {
    const int64_t near = w.size() < (1 << 19) ? (1 << 17) / (d.columns + d.from.column) : rows, block = near < 48 ? 48 : near;
    for (call.row = 0; call.row < rows; call.row = call.row_end) {
      call.row_end = call.row + block < rows ? call.row + block : rows;
      for (call.panel = 0; call.panel * panel_columns < d.columns; ++call.panel) {
        call.w = w.data() + int64_t{call.panel} * panel_columns * 4 * d.quads;
        kernels.dense.run(d, call);
      }
    }
  }
};

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds of one run, of a stretch of a third of a millisecond or of one run if that is longer.
template <class F>
double timed(F run) {
  int times = 0;
  const double begin = seconds();
  double end;
  do {
    run();
    ++times;
    end = seconds();
  } while (end - begin < 0.3e-3);
  return (end - begin) / times;
}

void print_total(const std::vector<Bench>& benches, const char* net, double peak) {
  double time = 0, macs = 0;
  for (const Bench& b : benches)
    if (std::strcmp(b.layer.net, net) == 0) time += b.least * b.layer.times, macs += b.macs() * b.layer.times;
  std::printf("%-12s %40.3f ms %7.1f GMAC/s %5.1f %%\n\n", net, time * 1e3, macs / time * 1e-9, 100 * macs / time / peak);
}

void print(const std::vector<Bench>& benches, double peak) {
  for (size_t i = 0; i < benches.size(); ++i) {
    const Layer& l = benches[i].layer;
    const double t = benches[i].least, m = benches[i].macs();
    std::printf("%-12s %4d %dx%d/%d %5d > %5d x%-2d %s %13.1f us %7.1f GMAC/s %5.1f %%\n", l.net, l.size, l.window, l.window, l.stride, l.inputs,
                l.outputs, l.times, l.residual ? "+" : l.reals ? "r" : " ", t * 1e6, m / t * 1e-9, 100 * m / t / peak);
    if (i + 1 == benches.size() || std::strcmp(benches[i + 1].layer.net, l.net) != 0) print_total(benches, l.net, peak);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int trials = argc > 3 ? std::atoi(argv[3]) : 40;
  for (const Kernels* const* kernels = available_kernels(); *kernels; ++kernels) {
    const char* name = (*kernels)->name;
    if (std::strcmp(name, argc > 2 ? argv[2] : "scalar") == 0 ? argc < 3 : argc > 2) continue;
    std::vector<Bench> benches;
    for (const Layer& l : layers)
      if (argc < 2 || std::strstr(l.net, argv[1])) benches.emplace_back(l);
    double peak = 0;
    for (int i = 0; i < trials; ++i) {  // in turns, so that a busy moment spoils no layer for good
      const double now = measured_peak(name);
      peak = now > peak ? now : peak;
      for (Bench& b : benches) {
        const double t = timed([&] { b.run(**kernels); });
        b.least = t < b.least ? t : b.least;
      }
    }
    std::printf("%s: peak %.0f GMAC/s\n", name, peak * 1e-9);
    print(benches, peak);
  }
  return 0;
}
