// Coder `fast` and ternary packing: what was coded comes back, with and without this machine's instructions, and no bytes
// whatever make a decoder read or write where it must not.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "check.h"
#include "codec/codec.h"
#include "codec/fast.h"
#include "codec/rans.h"

using namespace bl;

namespace {

std::mt19937_64 random_numbers(7);

int64_t below(int64_t most) { return static_cast<int64_t>(random_numbers() % static_cast<uint64_t>(most)); }

std::string_view view(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Peaked at the middle, of a random width, so that all codings have something to do.
std::vector<int32_t> some_codes(int64_t count, CodeKind kind) {
  std::normal_distribution<double> normal(0, std::exp2(static_cast<double>(below(kind.bits + 2)) - 2));
  std::vector<int32_t> codes(static_cast<size_t>(count));
  for (int32_t& code : codes) {
    const double value = std::floor(normal(random_numbers)) + (kind.low < 0 ? 0 : kind.high / 2);
    code = static_cast<int32_t>(std::min<double>(std::max<double>(value, kind.low), kind.high));
  }
  return codes;
}

int width_of(CodeKind kind) { return kind.bits <= 8 ? 1 : kind.bits <= 16 ? 2 : 4; }

int32_t code_at(const Bytes& codes, size_t i, CodeKind kind) {
  const int width = width_of(kind);
  uint32_t code = 0;
  for (int k = 0; k < width; ++k) code |= uint32_t{codes[i * static_cast<size_t>(width) + static_cast<size_t>(k)]} << 8 * k;
  if (kind.low < 0 && width < 4 && code >> (8 * width - 1)) code -= 1u << 8 * width;
  return static_cast<int32_t>(code);
}

// Decodes a copy that ends where its memory does, so that a sanitizer sees every read past it.
bool decoded(int coding, const Bytes& body, CodeGrid grid, CodeKind kind, Bytes& out) {
  const Bytes own(body.begin(), body.end());
  out.assign(static_cast<size_t>(grid.count() * width_of(kind)), 0);
  return decode_codes({coding, view(own)}, grid, kind, width_of(kind), out.data());
}

// Cut, longer, with flipped bits, with other bytes: codes or nothing come of it, in the range of the kind.
template <class Decode>
void hostile(const Bytes& body, Decode decode) {
  Bytes bad = body;
  bad.push_back(0);
  CHECK(!decode(bad));
  bad.push_back(0);
  CHECK(!decode(bad));
  for (size_t size = 0; size < body.size(); size += 1 + body.size() / 60) {
    bad.assign(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(!decode(bad));
  }
  for (int k = 0; k < 100; ++k) {
    bad = body;
    for (int64_t n = 1 + below(3); n > 0; --n) {
      const int64_t size = static_cast<int64_t>(bad.size());
      const size_t at = static_cast<size_t>(below(below(2) ? size : std::min<int64_t>(24, size)));
      bad[at] = static_cast<uint8_t>(below(2) ? bad[at] ^ 1 << below(8) : below(256));
    }
    decode(bad);
  }
}

void check_codes(int coding, CodeKind kind, int64_t count, bool attack) {
  const std::vector<int32_t> codes = some_codes(count, kind);
  const CodeGrid grid{1, count};
  Bytes body, out;
  encode_codes(coding, codes.data(), grid, kind, body);
  if (count == 0) {
    CHECK(body.empty());
    return;
  }
  CHECK(!body.empty() && count <= kMostPerByte * static_cast<int64_t>(body.size()));
  CHECK(decoded(coding, body, grid, kind, out));
  for (size_t i = 0; i < codes.size(); ++i) CHECK(code_at(out, i, kind) == codes[i]);
  if (!attack) return;
  hostile(body, [&](const Bytes& bad) {
    if (!decoded(coding, bad, grid, kind, out)) return false;
    for (size_t i = 0; i < codes.size(); ++i) CHECK(code_at(out, i, kind) >= kind.low && code_at(out, i, kind) <= kind.high);
    return true;
  });
}

void check_planes(int bits, bool sign, int64_t count, bool attack) {
  std::vector<int32_t> codes = some_codes(count, {bits, 0, (1 << bits) - 1});
  const Bytes bytes(codes.begin(), codes.end());
  const CodeGrid grid{1, count};
  Bytes body;
  Rows rows{count, {}};
  for (int p = 0; p < bits; ++p) {
    encode_plane(kFast, bytes.data(), grid, bits, p, sign, body);
    if (count == 0) {
      CHECK(body.empty());
      continue;
    }
    CHECK(count <= kMostPerByte * static_cast<int64_t>(body.size()));
    if (attack) {
      hostile(body, [&](const Bytes& bad) {
        Rows copy = rows;
        const Bytes own(bad.begin(), bad.end());
        return decode_fast_plane(view(own), copy);
      });
    }
    Rows twin = rows;
    CHECK(decode_fast_plane(view(body), rows) && decode_fast_plane(view(body), twin, true));
    CHECK(rows.planes == twin.planes);
    Bytes out(bytes.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = p ? bytes[i] >> (bits - p) : 0;
    CHECK(decode_planes({{kFast, view(body)}}, grid, sign, p, out.data()));
    for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == bytes[i] >> (bits - 1 - p));
  }
}

// Planes of all codings in one tensor, from any known planes on.
void check_mixed(int64_t count) {
  const std::vector<int32_t> codes = some_codes(count, {8, 0, 255});
  const Bytes bytes(codes.begin(), codes.end());
  const CodeGrid grid{1, count};
  std::vector<Bytes> bodies(8);
  std::vector<PartView> parts;
  for (int p = 0; p < 8; ++p) {
    Bytes& body = bodies[static_cast<size_t>(p)];
    int coding = below(2) ? kFast : kBest;
    encode_plane(coding, bytes.data(), grid, 8, p, false, body);
    if (body.empty() || below(3) == 0) {
      coding = kRaw;
      body.assign(static_cast<size_t>((count + 7) / 8), 0);
      for (size_t i = 0; i < bytes.size(); ++i) body[i / 8] |= static_cast<uint8_t>((bytes[i] >> (7 - p) & 1) << i % 8);
    }
    parts.push_back({coding, view(body)});
  }
  for (int from = 0; from < 8; ++from) {
    for (int to = from; to <= 8; ++to) {
      Bytes out(bytes.size());
      for (size_t i = 0; i < out.size(); ++i) out[i] = from ? bytes[i] >> (8 - from) : 0;
      CHECK(decode_planes({parts.begin() + from, parts.begin() + to}, grid, false, from, out.data()));
      for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (to ? bytes[i] >> (8 - to) : 0));
    }
  }
  Bytes out(bytes.size());
  CHECK(!decode_planes(parts, grid, false, 1, out.data()));  // nine planes
}

}  // namespace

int main() {
  const int64_t counts[] = {0, 1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 1000, 5003, 8191, 8192, 8193, 40000};
  for (const int64_t count : counts) {
    for (const CodeKind kind : {CodeKind{2, -2, 1}, {3, -4, 3}, {4, -7, 7}, {4, 0, 15}, {8, -128, 127}, {8, 0, 255},
                                {12, -2048, 2047}, {16, -32768, 32767}, {32, INT32_MIN, INT32_MAX}}) {
      for (int k = 0; k < 4; ++k) check_codes(kFast, kind, count, k == 0);
    }
    for (int k = 0; k < 8; ++k) check_codes(kTernary, {2, -1, 1}, count, k < 2);
    for (const int bits : {1, 2, 4, 8}) {
      for (int k = 0; k < 4; ++k) check_planes(bits, k % 2, count, k < 2);
    }
  }
  for (const int64_t count : {1, 63, 64, 100, 500}) check_mixed(count), check_mixed(count), check_mixed(count);
  Bytes out(64);
  for (int k = 0; k < 200000; ++k) {  // any bytes
    Bytes body(static_cast<size_t>(below(40)));
    for (uint8_t& byte : body) byte = static_cast<uint8_t>(below(2) ? random_numbers() : below(4));
    const CodeGrid grid{1, 1 + below(64)};
    decode_codes({kFast, view(body)}, grid, {8, -128, 127}, 1, out.data());
    decode_codes({kTernary, view(body)}, grid, {2, -1, 1}, 1, out.data());
    decode_planes({{kFast, view(body)}}, grid, k % 2, 0, out.data());
  }
}
