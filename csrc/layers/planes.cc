#include "planes.h"

#include <algorithm>

namespace bl {
namespace {

int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Bit k of byte i becomes bit i of byte k.
uint64_t transposed(uint64_t v) {
  uint64_t t = (v ^ (v >> 7)) & 0x00aa00aa00aa00aaull;
  v ^= t ^ (t << 7);
  t = (v ^ (v >> 14)) & 0x0000cccc0000ccccull;
  v ^= t ^ (t << 14);
  t = (v ^ (v >> 28)) & 0x00000000f0f0f0f0ull;
  return v ^ t ^ (t << 28);
}

// Bit q of byte k becomes bit q ^ k of byte k.
uint64_t turned(uint64_t v) {
  const auto step = [&](uint64_t odd, uint64_t low, int by) {
    const uint64_t swapped = ((v & low) << by) | ((v >> by) & low);
    v = (v & ~odd) | (swapped & odd);
  };
  step(0xff00ff00ff00ff00ull, 0x5555555555555555ull, 1);
  step(0xffff0000ffff0000ull, 0x3333333333333333ull, 2);
  step(0xffffffff00000000ull, 0x0f0f0f0f0f0f0f0full, 4);
  return v;
}

}  // namespace

int64_t plane_bytes(int64_t columns, int64_t inputs) {
  return rounded(columns, plane_columns) / plane_columns * (rounded(inputs, plane_inputs) / plane_inputs) * plane_line;
}

// Long planes that began at the same place of a page would share the sets of the first cache.
int64_t plane_stride(int64_t columns, int64_t inputs) {
  const int64_t bytes = plane_bytes(columns, inputs);
  return bytes < 32768 ? bytes : bytes + 5 * plane_line;
}

void pack_planes(const uint8_t* codes, int64_t row, int64_t columns, int64_t inputs, int bits, int offset, uint8_t* out,
                 int64_t stride) {
  const int64_t blocks = rounded(inputs, plane_inputs) / plane_inputs;
  const int64_t lines = plane_bytes(columns, inputs) / plane_line;
  for (int64_t i = 0; i < lines * plane_line; ++i) {
    const int64_t line = i / plane_line, place = i % plane_line;
    const int64_t column = line / blocks * plane_columns + place / 4, first = line % blocks * plane_inputs + place % 4;
    uint64_t quads = 0;  // byte q: the code of quad q, its top bit at bit 7
    for (int q = 0; q < 8; ++q) {
      const int64_t input = first + 4 * q;
      const bool there = column < columns && input < inputs;
      const unsigned code = there ? (codes[column * row + input] + static_cast<unsigned>(offset)) & 0xff : 1u << (bits - 1);
      quads |= static_cast<uint64_t>((code << (8 - bits)) & 0xff) << (8 * q);
    }
    const uint64_t planes = turned(transposed(quads));  // byte 7 - p: plane p
    for (int p = 0; p < bits; ++p) out[p * stride + i] = static_cast<uint8_t>(planes >> (8 * (7 - p)));
  }
}

int plane_prefix(const Planes& w, int bits, int64_t column, int64_t input) {
  const int64_t blocks = rounded(w.inputs, plane_inputs) / plane_inputs;
  const int64_t line = column / plane_columns * blocks + input / plane_inputs;
  const int64_t place = line * plane_line + 4 * (column % plane_columns) + input % 4;
  const int quad = static_cast<int>(input % plane_inputs / 4);
  int prefix = 0;
  for (int p = 0; p < bits; ++p) prefix = 2 * prefix + (w.data[p * w.plane + place] >> ((7 - p) ^ quad) & 1);
  return prefix;
}

int32_t plane_weight(const Planes& w, const Prefix& prefix, int64_t column, int64_t input) {
  const int code = plane_prefix(w, prefix.bits, column, input);
  return prefix.table ? prefix.table[code] : (code << (8 - prefix.bits)) - 128;
}

int32_t plane_sum(const Planes& w, const Prefix& prefix, const uint8_t* x, int64_t column) {
  int64_t sum = 0;
  for (int64_t i = 0; i < w.inputs; ++i) sum += x[i] * plane_weight(w, prefix, column, i);
  return static_cast<int32_t>(static_cast<uint32_t>(sum));
}

}  // namespace bl
