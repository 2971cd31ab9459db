// The kernels on bit planes against literal loops over integers: every instruction set, scheme and width, odd sizes.
//
//   test_planes [cases [seed]]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "kernels.h"
#include "layers/planes.h"

using namespace bl;

namespace {

struct Set {
  const char* name;
  const PlaneKernels* kernels;
};

std::vector<Set> sets() {
  std::vector<Set> found;
  for (auto kernels = available_kernels(); *kernels; ++kernels) found.push_back({(*kernels)->name, &(*kernels)->planes});
  return found;
}

std::mt19937_64 source;
long checks = 0;

int pick(int low, int high) { return low + static_cast<int>(source() % static_cast<uint64_t>(high - low + 1)); }

void check(bool good, const char* what, const char* set, int columns, int inputs, int bits) {
  ++checks;
  if (good) return;
  std::printf("%s on %s: %d columns, %d inputs, %d bits: not equal\n", what, set, columns, inputs, bits);
  std::exit(1);
}

enum Scheme { plain, midrise, table };

// A weight with its codes: `codes` as planes hold them, of `stored` bits.
struct Case {
  int columns, inputs, stored;
  std::vector<uint8_t> codes, memory;
  Planes planes;

  Case(int columns, int inputs, int stored)
    : columns(columns), inputs(inputs), stored(stored), codes(static_cast<size_t>(columns) * inputs) {
    const int only = pick(0, 5);  // sometimes all codes at one end
    for (auto& c : codes) c = static_cast<uint8_t>(only == 0 ? 0 : only == 1 ? (1 << stored) - 1 : pick(0, (1 << stored) - 1));
    const int64_t stride = plane_stride(columns, inputs);
    memory.resize(stored * stride);
    pack_planes(codes.data(), inputs, columns, inputs, stored, 0, memory.data(), stride);
    planes = {memory.data(), stride, columns, inputs};
  }

  int prefix(int column, int input, int bits) const {
    return codes[static_cast<size_t>(column) * inputs + input] >> (stored - bits);
  }

  // The integer of docs/numerics.md.
  int integer(Scheme scheme, const Prefix& p, int column, int input) const {
    const int v = prefix(column, input, p.bits);
    if (scheme == plain) return v - (1 << (p.bits - 1));
    if (scheme == midrise) return 2 * v + 1 - (1 << p.bits);
    return p.table[v];
  }
};

std::vector<uint8_t> activations(int64_t n) {
  std::vector<uint8_t> x(n);
  const int only = pick(0, 4);
  for (auto& v : x) v = static_cast<uint8_t>(only == 0 ? 255 : only == 1 ? 255 * pick(0, 1) : pick(0, 255));
  return x;
}

std::vector<int8_t> some_table(int bits) {
  std::vector<int8_t> table(1 << bits);
  const int only = pick(0, 3);
  for (auto& t : table) t = static_cast<int8_t>(only == 0 ? -128 : only == 1 ? 127 : pick(-128, 127));
  return table;
}

// A way to finish, with its memory. The numbers are such that every branch is met.
struct Way {
  std::vector<int32_t> bias;
  std::vector<float> scale, low, high;
  std::vector<uint8_t> table;
  Finish finish;

  Way(int columns, int inputs) {
    const size_t n = (columns + 63) / 64 * 64;
    finish.codes = pick(0, 1);
    finish.zero = finish.codes ? pick(0, 255) : 0;
    const float infinity = std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < n; ++i) {
      bias.push_back(pick(-100000, 100000));
      const int exponent = finish.codes ? -28 - pick(0, 4) : -20;
      scale.push_back(std::ldexp(static_cast<float>(pick(1, 1 << 20)), exponent) / static_cast<float>(inputs));
      if (pick(0, 9) == 0) scale.back() = 0.5f;  // ties
      low.push_back(finish.codes ? static_cast<float>(-finish.zero) : pick(0, 1) ? 0.0f : -infinity);
      high.push_back(finish.codes ? static_cast<float>(255 - finish.zero) : infinity);
    }
    if (finish.codes && pick(0, 2) == 0) {
      table.resize(256);
      for (auto& t : table) t = static_cast<uint8_t>(pick(0, 255));
      finish.table = table.data();
    }
    finish.step = 0.125f, finish.other_step = 0.1f, finish.out_step = 0.3f;
    finish.sum_low = pick(0, 1) ? 0.0f : -infinity, finish.sum_high = pick(0, 1) ? 6.0f : infinity;
    finish.other_zero = pick(0, 255), finish.out_zero = pick(0, 255);
    finish.out_low = pick(0, 20), finish.out_high = pick(200, 255);
    finish.bias = bias.data(), finish.scale = scale.data(), finish.low = low.data(), finish.high = high.data();
  }

  // kernels/finish.h, word for word; `sum` has all but the bias.
  float real(int64_t sum, int column) const {
    const auto whole = static_cast<int32_t>(static_cast<uint32_t>(sum + bias[column]));
    return std::min(std::max(static_cast<float>(whole) * scale[column], low[column]), high[column]);
  }
  int code(int64_t sum, int column, const uint8_t* other) const {
    int c = static_cast<int>(std::nearbyint(real(sum, column))) + finish.zero;
    if (other) {
      const float own = static_cast<float>(c - finish.zero) * finish.step;
      const float both = own + static_cast<float>(*other - finish.other_zero) * finish.other_step;
      const float r = std::min(std::max(both, finish.sum_low), finish.sum_high);
      c = static_cast<int>(std::nearbyint(r / finish.out_step)) + finish.out_zero;
      c = std::min(std::max(c, finish.out_low), finish.out_high);
    }
    return finish.table ? finish.table[c] : c;
  }
};

Scheme some_scheme(int& bits, int stored, std::vector<int8_t>& entries, Prefix& prefix) {
  const auto scheme = static_cast<Scheme>(pick(0, 2));
  bits = scheme == plain ? stored : pick(1, stored);
  prefix = {bits, nullptr};
  if (scheme == table) {
    entries = some_table(bits);
    prefix.table = entries.data();
  }
  return scheme;
}

void test_matvec(const Set& set, const Case& c, int rows) {
  int bits = 0;
  std::vector<int8_t> entries;
  Prefix prefix;
  const Scheme scheme = some_scheme(bits, c.stored, entries, prefix);
  Way way(c.columns, c.inputs);
  way.finish.shift = scheme == plain ? bits - 8 : scheme == midrise ? bits - 7 : 0;
  const int x_row = c.inputs + pick(0, 3), y_row = c.columns + pick(0, 3);
  const auto x = activations(static_cast<int64_t>(rows - 1) * x_row + c.inputs);  // not a byte more
  const auto other = activations(static_cast<int64_t>(rows) * y_row);
  const bool residual = way.finish.codes && pick(0, 1);
  std::vector<int32_t> row_sums(rows, 0);
  for (int r = 0; r < rows && scheme == midrise; ++r) {
    for (int i = 0; i < c.inputs; ++i) row_sums[r] += x[static_cast<size_t>(r) * x_row + i];
  }
  std::vector<uint8_t> y(static_cast<size_t>(rows) * y_row * 4, 0xee);
  const int column = pick(0, (c.columns - 1) / 16) * 16, end = pick(column + 1, c.columns);
  const PlaneCall call{x.data(), x_row, y.data(), y_row, residual ? other.data() : nullptr, y_row,
                       scheme == midrise ? row_sums.data() : nullptr, rows, column, end};
  set.kernels->matvec(c.planes, prefix, way.finish, call);
  bool good = true;
  for (int r = 0; r < rows; ++r) {
    for (int o = 0; o < y_row; ++o) {
      int64_t sum = 0;
      const bool ours = o >= column && o < end;
      for (int i = 0; i < c.inputs && ours; ++i) sum += x[static_cast<size_t>(r) * x_row + i] * c.integer(scheme, prefix, o, i);
      const int64_t at = static_cast<int64_t>(r) * y_row + o;
      if (way.finish.codes) {
        good = good && y[at] == (ours ? way.code(sum, o, residual ? &other[at] : nullptr) : 0xee);
      } else {
        float real;
        __builtin_memcpy(&real, &y[4 * at], 4);
        good = good && (ours ? real == way.real(sum, o) : y[4 * at] == 0xee);
      }
    }
  }
  const char* what[] = {"matvec, plain", "matvec, mid-rise", "matvec, table"};
  check(good, what[scheme], set.name, c.columns, c.inputs, bits);
}

void test_decode(const Set& set, const Case& c) {
  const int bits = pick(1, c.stored), panel = pick(0, (c.columns - 1) / 64);
  const auto entries = some_table(bits);
  const Prefix prefix{bits, pick(0, 1) ? entries.data() : nullptr};
  const int quads = (c.inputs + 3) / 4, there = std::min(64, c.columns - 64 * panel), width = (there + 15) / 16 * 16;
  std::vector<uint8_t> keep(4 * quads);
  for (auto& k : keep) k = pick(0, 3) ? 0xff : 0;
  for (int i = c.inputs; i < 4 * quads; ++i) keep[i] = 0;
  const bool all = pick(0, 1);
  std::vector<int8_t> out(static_cast<size_t>(quads) * width * 4, 99);
  set.kernels->decode(c.planes, prefix, panel, quads, all ? nullptr : keep.data(), out.data());
  bool good = true;
  for (int i = 0; i < 4 * quads; ++i) {
    for (int o = 0; o < width; ++o) {
      const bool counts = i < c.inputs && o < there && (all || keep[i]);
      const int v = counts ? c.prefix(64 * panel + o, i, bits) : 0;
      const int want = !counts ? 0 : prefix.table ? prefix.table[v] : (v << (8 - bits)) - 128;
      good = good && out[(static_cast<size_t>(i / 4) * width + o) * 4 + i % 4] == want;
    }
  }
  check(good, "decode", set.name, c.columns, c.inputs, bits);
}

void test_decode_bytes(const Set& set) {
  const int n = pick(1, 300);
  const auto codes = activations(n);
  const auto entries = some_table(8);
  std::vector<int8_t> out(n);
  set.kernels->decode_bytes(codes.data(), entries.data(), n, out.data());
  bool good = true;
  for (int i = 0; i < n; ++i) good = good && out[i] == entries[codes[i]];
  check(good, "decode_bytes", set.name, n, 1, 8);
}

void test_groups(const Set& set, const Case& c, int rows) {
  const auto entries = some_table(c.stored);
  const Prefix prefix{c.stored, pick(0, 3) ? nullptr : entries.data()};
  const int group = pick(0, 1) ? 32 * pick(1, 4) : pick(1, 40), groups = (c.inputs + group - 1) / group;
  const int64_t scale_row = (c.columns + 15) / 16 * 16 + pick(0, 2);
  std::vector<float> scale(groups * scale_row), x(static_cast<size_t>(rows) * c.inputs), bias(c.columns);
  std::vector<float> y(static_cast<size_t>(rows) * c.columns);
  for (auto& s : scale) s = std::ldexp(static_cast<float>(pick(1, 1 << 24)), -30);
  for (auto& v : x) v = std::ldexp(static_cast<float>(pick(-(1 << 24), 1 << 24)), -22);
  for (auto& b : bias) b = std::ldexp(static_cast<float>(pick(-1000, 1000)), -8);
  const bool biased = pick(0, 1);
  set.kernels->matvec_groups(c.planes, prefix, {x.data(), c.inputs, y.data(), c.columns, scale.data(), scale_row, group,
                                                biased ? bias.data() : nullptr, rows, 0, c.columns});
  bool good = true;
  for (int r = 0; r < rows; ++r) {
    for (int o = 0; o < c.columns; ++o) {
      double exact = biased ? bias[o] : 0.0, size = 0;
      for (int i = 0; i < c.inputs; ++i) {
        const double term = static_cast<double>(x[static_cast<size_t>(r) * c.inputs + i]) * scale[i / group * scale_row + o] *
                            c.integer(prefix.table ? table : plain, prefix, o, i);
        exact += term, size += std::fabs(term);
      }
      const double bound = std::ldexp((c.inputs + 8) * size + std::fabs(exact) + size, -24);
      good = good && std::fabs(y[static_cast<size_t>(r) * c.columns + o] - exact) <= bound;
    }
  }
  check(good, "matvec_groups", set.name, c.columns, c.inputs, c.stored);

  const int panel = pick(0, (c.columns - 1) / 64), there = std::min(64, c.columns - 64 * panel), width = (there + 15) / 16 * 16;
  std::vector<float> out(static_cast<size_t>(c.inputs) * width);
  set.kernels->decode_groups(c.planes, prefix, panel, scale.data(), scale_row, group, out.data());
  good = true;
  for (int i = 0; i < c.inputs; ++i) {
    for (int o = 0; o < there; ++o) {
      const float integer = static_cast<float>(c.integer(prefix.table ? table : plain, prefix, 64 * panel + o, i));
      good = good && out[static_cast<size_t>(i) * width + o] == integer * scale[i / group * scale_row + 64 * panel + o];
    }
  }
  check(good, "decode_groups", set.name, c.columns, c.inputs, c.stored);
}

// Reads of planes that a width does not need would show here, and so would a sum that did not depend on those it needs.
void test_planes_read(const Set& set) {
  for (int bits = 1; bits <= 8; ++bits) {
    Case c(40, 100, 8);
    const auto x = std::vector<uint8_t>(100, 255);
    const std::vector<int32_t> bias(64, 0);
    const std::vector<float> one(64, 1.0f), low(64, -1e30f), high(64, 1e30f);
    Finish finish{bias.data(), one.data(), low.data(), high.data()};
    finish.codes = false;
    const auto run = [&] {
      std::vector<float> y(40);
      set.kernels->matvec(c.planes, {bits, nullptr}, finish, {x.data(), 100, y.data(), 40, nullptr, 0, nullptr, 1, 0, 40});
      return y;
    };
    const auto before = run();
    for (int64_t i = bits * c.planes.plane; i < 8 * c.planes.plane; ++i) c.memory[i] ^= 0xff;
    check(run() == before, "planes behind the width", set.name, 40, 100, bits);
    c.memory[(bits - 1) * c.planes.plane] ^= 1;
    check(run() != before, "the last plane of the width", set.name, 40, 100, bits);
  }
}

// The most inputs there may be, all numbers at their ends: sums of 32 bits just hold it.
void test_longest(const Set& set) {
  constexpr int inputs = 65536;
  const std::vector<uint8_t> x(inputs, 255);
  const std::vector<int32_t> bias(64, 0);
  const std::vector<float> one(64, 1.0f), low(64, -1e30f), high(64, 1e30f);
  Finish finish{bias.data(), one.data(), low.data(), high.data()};
  finish.codes = false;
  for (const int code : {0, 255}) {
    const std::vector<uint8_t> codes(inputs, static_cast<uint8_t>(code));
    std::vector<uint8_t> memory(8 * plane_stride(1, inputs));
    const Planes planes{memory.data(), plane_stride(1, inputs), 1, inputs};
    pack_planes(codes.data(), inputs, 1, inputs, 8, 0, memory.data(), planes.plane);
    for (int bits = 1; bits <= 8; ++bits) {
      float y = 0;
      finish.shift = bits - 8;
      set.kernels->matvec(planes, {bits, nullptr}, finish, {x.data(), inputs, &y, 1, nullptr, 0, nullptr, 1, 0, 1});
      const int64_t integer = (code >> (8 - bits)) - (1 << (bits - 1));
      check(y == static_cast<float>(integer * 255 * inputs), "the longest sum", set.name, 1, inputs, bits);
    }
  }
}

void test_packing(const Case& c) {
  bool good = true;
  for (int o = 0; o < c.columns; ++o) {
    for (int i = 0; i < c.inputs; ++i) {
      for (int b = 1; b <= c.stored; ++b) good = good && plane_prefix(c.planes, b, o, i) == c.prefix(o, i, b);
    }
  }
  check(good, "pack_planes", "the packer", c.columns, c.inputs, c.stored);
  Case again = c;
  std::fill(again.memory.begin(), again.memory.end(), 0);
  std::vector<uint8_t> signed_codes = c.codes;  // two's complement, 2^(bits-1) below
  for (auto& v : signed_codes) v = static_cast<uint8_t>(v - (1 << (c.stored - 1)));
  pack_planes(signed_codes.data(), c.inputs, c.columns, c.inputs, c.stored, 1 << (c.stored - 1), again.memory.data(),
              c.planes.plane);
  const int64_t bytes = (c.stored - 1) * c.planes.plane + plane_bytes(c.columns, c.inputs);
  good = std::equal(c.memory.begin(), c.memory.begin() + bytes, again.memory.begin());
  check(good, "pack_planes, shifted", "the packer", c.columns, c.inputs, c.stored);
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 600000;
  source.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const auto every = sets();
  for (const auto& set : every) {
    test_planes_read(set);
    test_longest(set);
  }
  for (long n = 0; checks < cases; ++n) {
    const bool large = n % 500 == 0;
    const Case c(large ? pick(1, 70) : pick(1, 20), large ? pick(1, 1100) : pick(1, 70), pick(1, 8));
    if (n % 10 == 0) test_packing(c);
    for (const auto& set : every) {
      test_matvec(set, c, pick(1, 5));
      test_matvec(set, c, 1);
      test_decode(set, c);
      test_decode_bytes(set);
      test_groups(set, c, pick(1, 5));
    }
  }
  std::printf("%ld checks on %zu instruction sets: equal\n", checks, every.size());
}
