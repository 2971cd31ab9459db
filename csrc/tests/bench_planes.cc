// Matrix times vector on bit planes: microseconds by width, from the last cache and from memory.
//
//   bench_planes [columns inputs megabytes]
//
// "cache": one weight again and again. "memory": weights in turn, of which `megabytes` are read before one comes again at
// 8 bits. Best of many, one thread. It cannot show what other threads leave of a memory's bandwidth.
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../kernels.h"
#include "../planes.h"

using namespace bl;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Work {
  int columns, inputs, count;
  int64_t stride;
  uint8_t* memory;
  std::vector<uint8_t> x;
  std::vector<int32_t> bias;
  std::vector<float> one, low, high, y;
  std::vector<int8_t> table;

  Work(int columns, int inputs, int count) : columns(columns), inputs(inputs), count(count), stride(plane_stride(columns, inputs)),
      x(static_cast<size_t>(inputs) * 4, 3), bias(columns + 64), one(columns + 64, 1.0f), low(columns + 64, -1e30f),
      high(columns + 64, 1e30f), y(4 * static_cast<size_t>(columns)), table(256) {
    const size_t size = static_cast<size_t>(count) * 8 * stride + 4096;
    memory = static_cast<uint8_t*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (!std::getenv("SMALL_PAGES")) madvise(memory, size, MADV_HUGEPAGE);
    std::mt19937_64 random(1);
    for (size_t i = 0; i < size; i += 8) {
      const uint64_t v = random();
      std::memcpy(memory + i, &v, 8);
    }
    for (int i = 0; i < 256; ++i) table[i] = static_cast<int8_t>(i - 128);
  }

  double once(const PlaneKernels& k, int bits, bool tree, int rows, int which) {
    const Planes w{memory + static_cast<int64_t>(which % count) * 8 * stride, stride, columns, inputs};
    Finish f{bias.data(), one.data(), low.data(), high.data()};
    f.codes = false;
    const PlaneCall call{x.data(), inputs, y.data(), columns, nullptr, 0, nullptr, rows, 0, columns};
    const double t = now();
    k.matvec(w, {bits, tree ? table.data() : nullptr}, f, call);
    return (now() - t) * 1e6;
  }

  double best(const PlaneKernels& k, int bits, bool tree, int rows, bool rotate) {
    double best = 1e30;
    if (!rotate) {
      for (int i = 0; i < 40; ++i) best = std::min(best, once(k, bits, tree, rows, 0));
      return best;
    }
    for (int round = 0; round < 4; ++round) {
      double total = 0;
      for (int i = 0; i < count; ++i) total += once(k, bits, tree, rows, i);
      best = std::min(best, total / count);
    }
    return best;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int columns = argc > 1 ? std::atoi(argv[1]) : 4096, inputs = argc > 2 ? std::atoi(argv[2]) : 4096;
  const double megabytes = argc > 3 ? std::atof(argv[3]) : 640;
  const int count = std::max(1, static_cast<int>(megabytes * 1e6 / (8.0 * plane_bytes(columns, inputs))));
  Work work(columns, inputs, count);
  const struct { const char* name; bool tree; int rows; bool rotate; } lines[] = {
      {"cache", false, 1, false}, {"cache, table", true, 1, false}, {"cache, 4 rows", false, 4, false}, {"memory", false, 1, true}};
  std::printf("%d x %d, us; bits:", columns, inputs);
  for (int bits = 1; bits <= 8; ++bits) std::printf("%8d", bits);
  std::printf("\n");
  const char* only = std::getenv("ONLY");
  for (auto kernels = available_kernels(); *kernels; ++kernels) {
    for (const auto& line : lines) {
      const std::string name = std::string((*kernels)->name) + " " + line.name;
      if (only && name.find(only) == std::string::npos) continue;
      std::printf("%-22s", name.c_str());
      for (int bits = 1; bits <= 8; ++bits) {
        std::printf("%8.1f", work.best((*kernels)->planes, bits, line.tree, line.rows, line.rotate));
        std::fflush(stdout);
      }
      std::printf("\n");
    }
  }
}
