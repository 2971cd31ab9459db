// Kernels on bit planes, microseconds for a whole weight by width: from the last cache and from memory. One thread.
//
//   bench_planes [columns inputs megabytes]        ONLY=TEXT in the environment: only lines with TEXT in their name
//
// cache: one weight again and again, the best of many. memory: weights in turn, `megabytes` of them held with all eight
// planes; the best mean of a few rounds, in which the widths take turns. It cannot show what other threads leave of a
// memory's bandwidth: judge the lines from memory by their ratios.
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"
#include "layers/planes.h"

using namespace bl;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Work {
  int columns, inputs, count;
  int64_t stride;
  uint8_t* memory;
  std::vector<uint8_t> x;
  std::vector<int32_t> bias;
  std::vector<float> one, low, high, y, real, scale;
  std::vector<int8_t> table, panel;

  Work(int columns, int inputs, int count)
    : columns(columns), inputs(inputs), count(count), stride(plane_stride(columns, inputs)),
      x(static_cast<size_t>(inputs) * 4, 3), bias(columns + 64), one(columns + 64, 1.0f), low(columns + 64, -1e30f),
      high(columns + 64, 1e30f), y(4 * static_cast<size_t>(columns)),
      real(inputs, 0.5f), scale(static_cast<size_t>(inputs / 64 + 1) * columns, 0.01f), table(256),
      panel(64 * static_cast<size_t>(inputs) + 64) {
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

  Planes weight(int which) const {
    return {memory + static_cast<int64_t>(which % count) * 8 * stride, stride, columns, inputs};
  }

  Finish finish() const {
    Finish f{bias.data(), one.data(), low.data(), high.data()};
    f.codes = false;
    return f;
  }
};

using Run = void (*)(Work&, const PlaneKernels&, const Prefix&, const Planes&);

void rows(Work& work, const PlaneKernels& k, const Prefix& prefix, const Planes& w, int n) {
  const PlaneCall call{work.x.data(), w.inputs, work.y.data(), w.columns, nullptr, 0, nullptr, n, 0, w.columns};
  k.matvec(w, prefix, work.finish(), call);
}
void one_row(Work& work, const PlaneKernels& k, const Prefix& prefix, const Planes& w) { rows(work, k, prefix, w, 1); }
void four_rows(Work& work, const PlaneKernels& k, const Prefix& prefix, const Planes& w) { rows(work, k, prefix, w, 4); }

void panels(Work& work, const PlaneKernels& k, const Prefix& prefix, const Planes& w) {
  for (int panel = 0; panel < w.columns / 64; ++panel) k.decode(w, prefix, panel, w.inputs / 4, nullptr, work.panel.data());
}

void table_bytes(Work& work, const PlaneKernels& k, const Prefix&, const Planes& w) {
  const int64_t n = 64 * static_cast<int64_t>(w.inputs);
  for (int panel = 0; panel < w.columns / 64; ++panel) {
    k.decode_bytes(w.data + panel * n / 8, work.table.data(), n, work.panel.data());
  }
}

void groups(Work& work, const PlaneKernels& k, const Prefix& prefix, const Planes& w) {
  const GroupCall call{work.real.data(), w.inputs, work.y.data(), w.columns, work.scale.data(), w.columns, 64,
                       nullptr, 1, 0, w.columns};
  k.matvec_groups(w, prefix, call);
}

struct Line {
  const char* name;
  Run run;
  bool table = false, rotate = false;
};

double once(Work& work, const PlaneKernels& k, const Line& line, int bits, int which) {
  const double t = now();
  line.run(work, k, {bits, line.table ? work.table.data() : nullptr}, work.weight(which));
  return (now() - t) * 1e6;
}

// Microseconds at 1 to 8 bits.
std::vector<double> measured(Work& work, const PlaneKernels& k, const Line& line) {
  std::vector<double> best(9, 1e30);
  for (int round = 0; round < (line.rotate ? 6 : 3); ++round) {
    for (int bits = 1; bits <= 8; ++bits) {
      double total = 0;
      for (int i = 0; line.rotate && i < work.count; ++i) total += once(work, k, line, bits, i);
      if (line.rotate) best[bits] = std::min(best[bits], total / work.count);
      for (int i = 0; !line.rotate && i < 20; ++i) best[bits] = std::min(best[bits], once(work, k, line, bits, 0));
    }
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int columns = argc > 1 ? std::atoi(argv[1]) : 4096, inputs = argc > 2 ? std::atoi(argv[2]) : 4096;
  const double megabytes = argc > 3 ? std::atof(argv[3]) : 640;
  Work work(columns, inputs, std::max(1, static_cast<int>(megabytes * 1e6 / (8.0 * plane_bytes(columns, inputs)))));
  const Line lines[] = {{"matvec cache", one_row},        {"matvec cache table", one_row, true},
                        {"matvec cache 4 rows", four_rows}, {"matvec memory", one_row, false, true},
                        {"panels cache", panels},         {"panels cache table", panels, true},
                        {"bytes to panels", table_bytes}, {"groups cache", groups}};
  std::printf("%-28s", (std::to_string(columns) + " x " + std::to_string(inputs) + ", bits:").c_str());
  for (int bits = 1; bits <= 8; ++bits) std::printf("%8d", bits);
  std::printf("\n");
  const char* only = std::getenv("ONLY");
  for (auto kernels = available_kernels(); *kernels; ++kernels) {
    for (const Line& line : lines) {
      const std::string name = std::string((*kernels)->name) + " " + line.name;
      if (only && name.find(only) == std::string::npos) continue;
      std::printf("%-28s", name.c_str());
      const auto best = measured(work, (*kernels)->planes, line);
      for (int bits = 1; bits <= 8; ++bits) std::printf("%8.1f", best[bits]);
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
