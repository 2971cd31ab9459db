// The adaptive coder: everything comes back, and no bytes make it read or write past what it was given. Arguments: number of
// cases, a seed (1).
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "check.h"
#include "codec/codec.h"
#include "codec/texts.h"

using namespace bl;

namespace {

std::mt19937 generator;

int upto(int n) { return static_cast<int>(generator() % static_cast<unsigned>(n + 1)); }  // 0 .. n
std::string_view view(const Bytes& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Bytes that are no longer those of an encoder, in memory of just their size, so that reads past their end are seen.
Bytes hurt(Bytes body) {
  const int kind = upto(3);
  if (kind == 0) body.resize(static_cast<size_t>(upto(static_cast<int>(body.size()))));
  if (kind == 1) body.insert(body.end(), static_cast<size_t>(1 + upto(9)), static_cast<uint8_t>(upto(255)));
  if (kind == 2) for (uint8_t& byte : body) byte = static_cast<uint8_t>(upto(255));
  if (kind == 3 && !body.empty()) body[static_cast<size_t>(upto(static_cast<int>(body.size()) - 1))] ^= 1 << upto(7);
  body.shrink_to_fit();
  return body;
}

CodeGrid some_grid() { return {upto(12), upto(30)}; }

constexpr CodeKind kinds[] = {{4, -8, 7},  {8, -128, 127}, {8, 0, 255},           {2, -1, 1},
                              {1, 0, 1},   {16, -32768, 32767}, {32, INT32_MIN, INT32_MAX}, {31, 0, INT32_MAX}};

std::vector<int32_t> some_codes(CodeGrid grid, CodeKind kind) {
  std::normal_distribution<> normal(0.5 * (double(kind.low) + kind.high), std::pow(10, upto(4)));
  std::vector<int32_t> codes(static_cast<size_t>(grid.count()));
  for (int32_t& code : codes) code = static_cast<int32_t>(std::clamp<double>(std::rint(normal(generator)), kind.low, kind.high));
  return codes;
}

// The codes of a part as the width that holds them; every width gives the same.
void check_codes(int coding, const Bytes& body, CodeGrid grid, CodeKind kind, const std::vector<int32_t>& codes) {
  for (const int width : {1, 2, 4}) {
    if (kind.bits > 8 * width) continue;
    Bytes out(codes.size() * static_cast<size_t>(width));
    CHECK(decode_codes({coding, view(body)}, grid, kind, width, out.data()));
    for (size_t i = 0; i < codes.size(); ++i) CHECK(std::memcmp(&out[i * static_cast<size_t>(width)], &codes[i], static_cast<size_t>(width)) == 0);
  }
}

void codes_come_back() {
  const CodeGrid grid = some_grid();
  const CodeKind kind = kinds[upto(std::size(kinds) - 1)];
  const std::vector<int32_t> codes = some_codes(grid, kind);
  for (const int coding : {kBest, kTrellis}) {
    Bytes body;
    encode_codes(coding, codes.data(), grid, kind, body);
    if (coding == kBest) CHECK(body.empty() == codes.empty());
    if (!body.empty()) check_codes(coding, body, grid, kind, codes);
    Bytes out(codes.size() * 4);
    const Bytes other = hurt(body);
    if (decode_codes({coding, view(other)}, grid, kind, 4, out.data())) {
      for (size_t i = 0; i < codes.size(); ++i) {
        int32_t code = 0;
        std::memcpy(&code, &out[4 * i], 4);
        CHECK(kind.low <= code && code <= kind.high);
      }
    }
  }
}

void planes_come_back() {
  const CodeGrid grid = some_grid();
  const int bits = 1 + upto(7);
  const bool sign = upto(1);
  Bytes codes;
  for (const int32_t code : some_codes(grid, {bits, 0, (1 << bits) - 1})) codes.push_back(static_cast<uint8_t>(code));
  std::vector<Bytes> bodies(static_cast<size_t>(bits));
  std::vector<PartView> parts;
  for (int p = 0; p < bits; ++p) {
    encode_plane(kBest, codes.data(), grid, bits, p, sign, bodies[static_cast<size_t>(p)]);
    parts.push_back({kBest, view(bodies[static_cast<size_t>(p)])});
  }
  Bytes out(codes.size());
  CHECK(decode_planes(parts, grid, sign, 0, out.data()));
  CHECK(out == codes);
  const Bytes other = hurt(bodies[static_cast<size_t>(upto(bits - 1))]);
  std::fill(out.begin(), out.end(), uint8_t{0});
  decode_planes({8, {kBest, view(other)}}, grid, sign, 0, out.data());
}

void numbers_come_back() {
  const auto type = static_cast<Type>(upto(static_cast<int>(Type::f64)));
  const int count = upto(40);
  Bytes values(static_cast<size_t>(count) * size_of(type)), before(values.size());
  const int most = upto(1) ? 255 : 3;
  for (Bytes* bytes : {&values, &before}) {
    for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(type == Type::boolean ? upto(1) : upto(3) ? upto(most) : 0);
  }
  const uint8_t* near = upto(1) ? before.data() : nullptr;
  Bytes body, out(values.size());
  encode_numbers(kBest, type, values.data(), count, near, body);
  CHECK(body.empty() == (count == 0));
  if (count) CHECK(decode_numbers({kBest, view(body)}, type, count, near, out.data()));
  CHECK(out == values);
  const Bytes other = hurt(body);
  decode_numbers({kBest, view(other)}, type, count, near, out.data());
}

void texts_come_back() {
  Text writer;
  Texts reader, other_reader;
  for (int i = 0; i < 3; ++i) {
    std::string text, back;
    for (int n = upto(60); n > 0; --n) text += static_cast<char>(upto(upto(1) ? 255 : 4));
    Bytes body;
    writer.encode(text, body);
    CHECK(reader.decode({kBest, view(body)}, text.size(), back) && back == text);
    const Bytes other = hurt(body);
    other_reader.decode({kBest, view(other)}, text.size(), back);
  }
}

// Few bytes never stand for many numbers, whatever they are.
void bombs_are_refused() {
  const Bytes body(4, 0xff);
  Bytes out(4 * 4 * 8192);
  CHECK(!decode_codes({kBest, view(body)}, {4, 8192}, kinds[0], 4, out.data()));
  CHECK(!decode_planes({{kBest, view(body)}}, {4, 8192}, false, 0, out.data()));
  CHECK(!decode_numbers({kBest, view(body)}, Type::i32, 4 * 8192, nullptr, out.data()));
}

}  // namespace

int main(int argc, char** argv) {
#if defined(__SANITIZE_ADDRESS__)
  const int usual = 2000;
#else
  const int usual = 10000;
#endif
  const int cases = argc > 1 ? std::atoi(argv[1]) : usual;
  generator.seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1);
  for (int i = 0; i < cases; ++i) {
    codes_come_back();
    planes_come_back();
    numbers_come_back();
    if (i % 50 == 0) texts_come_back();
  }
  bombs_are_refused();
  return 0;
}
