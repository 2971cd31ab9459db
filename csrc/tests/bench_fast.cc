// Coding `fast` and the ternary packing on one thread: bits a weight, its order-0 entropy, and millions of weights decoded a
// second, the best of many.
//
//   bench_fast [rows columns]                       a tile of that many weights
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "codec/codec.h"

using namespace bl;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Body>
double best_of(Body body) {
  double best = 1e30, total = 0;
  while (total < 0.5) {
    const double begin = now();
    body();
    const double took = now() - begin;
    best = std::min(best, took);
    total += took;
  }
  return best;
}

double entropy(const std::vector<int32_t>& codes) {
  std::map<int32_t, double> counts;
  for (const int32_t code : codes) ++counts[code];
  double bits = 0;
  for (const auto& [code, count] : counts) bits -= count * std::log2(count / static_cast<double>(codes.size()));
  return bits / static_cast<double>(codes.size());
}

std::vector<int32_t> gaussian(size_t count, double reach, int bits) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  std::vector<int32_t> codes(count);
  const double half = 1 << (bits - 1);
  for (int32_t& code : codes)
    code = static_cast<int32_t>(std::min(std::max(std::floor(normal(random) / reach * half), -half), half - 1));
  return codes;
}

// As from a tree with levels that coincide: of half of the prefixes the last bits are always zero, so all planes are coded.
std::vector<int32_t> tree(size_t count) {
  std::vector<int32_t> codes = gaussian(count, 3, 8);
  for (int32_t& code : codes)
    if (code & 8) code &= ~7;
  return codes;
}

std::vector<int32_t> ternary(size_t count, double zeros) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform;
  std::vector<int32_t> codes(count);
  for (int32_t& code : codes) code = uniform(random) < zeros ? 0 : uniform(random) < 0.5 ? 1 : -1;
  return codes;
}

std::string_view view(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

void report(const char* name, size_t bytes, const std::vector<int32_t>& codes, double seconds, bool good) {
  const double count = static_cast<double>(codes.size());
  std::printf("%-28s %6.3f bits/weight, entropy %6.3f, %8.1f M weights/s%s\n", name, 8 * static_cast<double>(bytes) / count,
              entropy(codes), count / seconds / 1e6, good ? "" : "  WRONG");
}

void codes_line(const char* name, int coding, const std::vector<int32_t>& codes, CodeGrid grid, CodeKind kind) {
  Bytes body;
  encode_codes(coding, codes.data(), grid, kind, body);
  const int width = kind.bits <= 8 ? 1 : 2;
  std::vector<uint8_t> out(codes.size() * static_cast<size_t>(width));
  bool good = true;
  const double seconds = best_of([&] { good = decode_codes({coding, view(body)}, grid, kind, width, out.data()) && good; });
  for (size_t i = 0; i < codes.size(); ++i) good = good && out[i * static_cast<size_t>(width)] == static_cast<uint8_t>(codes[i]);
  report(name, body.size(), codes, seconds, good);
}

void planes_line(const char* name, const std::vector<int32_t>& codes, CodeGrid grid) {
  std::vector<uint8_t> unsigned_codes(codes.size()), out(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) unsigned_codes[i] = static_cast<uint8_t>(codes[i] + 128);
  std::vector<Bytes> bodies(8);
  std::vector<PartView> parts;
  const size_t raw = (codes.size() + 7) / 8;
  size_t total = 0;
  for (int p = 0; p < 8; ++p) {
    Bytes& body = bodies[static_cast<size_t>(p)];
    encode_plane(kFast, unsigned_codes.data(), grid, 8, p, false, body);
    const bool coded = static_cast<double>(body.size()) < 0.99 * static_cast<double>(raw);
    if (!coded) {
      body.assign(raw, 0);
      for (size_t i = 0; i < codes.size(); ++i) body[i / 8] |= static_cast<uint8_t>((unsigned_codes[i] >> (7 - p) & 1) << i % 8);
    }
    parts.push_back({coded ? kFast : kRaw, view(body)});
    total += body.size();
  }
  bool good = true;
  const double seconds = best_of([&] { good = decode_planes(parts, grid, false, 0, out.data()) && good; });
  report(name, total, codes, seconds, good && out == unsigned_codes);
}

}  // namespace

int main(int argc, char** argv) {
  const CodeGrid grid{argc > 2 ? std::atoll(argv[1]) : 1024, argc > 2 ? std::atoll(argv[2]) : 1024};
  const size_t count = static_cast<size_t>(grid.count());
  codes_line("4 bits, reach 2.7 sigma", kFast, gaussian(count, 2.7, 4), grid, {4, -8, 7});
  codes_line("8 bits, reach 4 sigma", kFast, gaussian(count, 4, 8), grid, {8, -128, 127});
  codes_line("12 bits, reach 4 sigma", kFast, gaussian(count, 4, 12), grid, {12, -2048, 2047});
  planes_line("8 planes, reach 4 sigma", gaussian(count, 4, 8), grid);
  planes_line("8 planes, reach 16 sigma", gaussian(count, 16, 8), grid);
  planes_line("8 planes of a tree", tree(count), grid);
  for (const double zeros : {0.0, 0.5, 0.9, 0.99}) {
    char name[40];
    std::snprintf(name, sizeof name, "ternary, %.2f zeros", zeros);
    codes_line(name, kTernary, ternary(count, zeros), grid, {2, -1, 1});
    codes_line("  the same by `fast`", kFast, ternary(count, zeros), grid, {2, -1, 1});
  }
}
