// Fake quantization for Python: dense float32 arrays in, one filled. What is computed does not depend on threads.
#include "bind_straight.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "run/pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace bl;

using Read = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Given = std::tuple<float, float, float, float, float>;

constexpr int64_t task = int64_t{1} << 16;  // values of a task: a whole number of stretches (kernels/straight.inc)

const StraightKernels& kernels(const std::string& isa) {
  const Kernels* const found = isa.empty() ? available_kernels()[0] : kernels_named(isa.c_str());
  if (!found) throw nb::value_error(("straight: this machine has no instruction set " + isa).c_str());
  return found->straight;
}

Levels levels_of(const Given& given) {
  return {std::get<0>(given), std::get<1>(given), std::get<2>(given), std::get<3>(given), std::get<4>(given)};
}

void check(size_t n, size_t other) {
  if (n != other) throw nb::value_error("straight: arrays must have the same number of values");
}

// Calls work(from, count, number) for every task of n values, without the interpreter.
template <class Work>
void shared_out(int64_t n, int threads, Work work) {
  const nb::gil_scoped_release quiet;
  const int tasks = static_cast<int>((n + task - 1) / task);
  const auto one = [&](int i) { work(i * task, std::min(task, n - i * task), i); };
  if (threads < 2 || tasks < 2) {
    for (int i = 0; i < tasks; ++i) one(i);
    return;
  }
  static std::mutex only;
  static std::unique_ptr<Pool> pool;
  const std::lock_guard lock(only);
  if (!pool || pool->threads() != threads) pool = std::make_unique<Pool>(threads);
  pool->run(tasks, one);
}

void rounded(const Read& x, const Written& y, const Given& given, int threads, const std::string& isa) {
  check(x.size(), y.size());
  const StraightKernels& k = kernels(isa);
  const Levels levels = levels_of(given);
  const float* const from = x.data();
  float* const to = y.data();
  shared_out(static_cast<int64_t>(x.size()), threads, [&](int64_t at, int64_t n, int) { k.rounded(from + at, to + at, n, levels); });
}

double back(const Read& x, const Read& gradient, const Written& to_x, const Given& given, int threads, const std::string& isa) {
  check(x.size(), gradient.size());
  check(x.size(), to_x.size());
  const StraightKernels& k = kernels(isa);
  const Levels levels = levels_of(given);
  std::vector<double> sums(x.size() / task + 1);
  const float *const from = x.data(), *const upper = gradient.data();
  float* const to = to_x.data();
  shared_out(static_cast<int64_t>(x.size()), threads,
             [&](int64_t at, int64_t n, int i) { sums[i] = k.back(from + at, upper + at, to + at, n, levels); });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void bind_straight(nb::module_& m) {
  m.def("straight_rounded", &rounded, "x"_a, "y"_a, "levels"_a, "threads"_a, "isa"_a,
        nb::sig("def straight_rounded(x: ndarray, y: ndarray, levels: tuple, threads: int, isa: str) -> None"));
  m.def("straight_back", &back, "x"_a, "gradient"_a, "to_x"_a, "levels"_a, "threads"_a, "isa"_a,
        nb::sig("def straight_back(x: ndarray, gradient: ndarray, to_x: ndarray, levels: tuple, threads: int, isa: str) -> float"));
}
