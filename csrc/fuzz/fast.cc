// Whatever bytes come in, coder `fast` and the ternary packing give codes of the kind or false. The input is a byte that says
// which coding and kind, one that says how many codes, and a body.
#include <cstdlib>

#include "codec/codec.h"

namespace {

using namespace bl;

void expect(bool holds) {
  if (!holds) std::abort();
}

constexpr CodeKind kKinds[] = {{2, -1, 1}, {4, -8, 7}, {8, -100, 100}, {12, 0, 4000}};

void check_codes(int coding, CodeKind kind, CodeGrid grid, std::string_view body) {
  std::vector<int32_t> out(static_cast<size_t>(grid.count()));
  if (!decode_codes({coding, body}, grid, kind, 4, reinterpret_cast<uint8_t*>(out.data()))) return;
  for (const int32_t code : out) expect(kind.low <= code && code <= kind.high);
  Bytes again;
  encode_codes(coding, out.data(), grid, kind, again);
  std::vector<int32_t> back(out.size());
  const PartView part{coding, {reinterpret_cast<const char*>(again.data()), again.size()}};
  expect(decode_codes(part, grid, kind, 4, reinterpret_cast<uint8_t*>(back.data())) && back == out);
}

void check_plane(int number, bool sign, CodeGrid grid, std::string_view body) {
  Bytes codes(static_cast<size_t>(grid.count()));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 % (1u << number));
  const Bytes before = codes;
  if (!decode_planes({{kFast, body}}, grid, sign, number, codes.data())) return;
  for (size_t i = 0; i < codes.size(); ++i) expect(codes[i] >> 1 == before[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int which = data[0];
  const CodeGrid grid{1, which & 64 ? 16 * int64_t{data[1]} : int64_t{data[1]}};
  const std::string_view body(reinterpret_cast<const char*>(data + 2), size - 2);
  if (which & 128) check_plane(which & 7, which & 8, grid, body);
  else check_codes(which & 4 ? kTernary : kFast, kKinds[which & 3], grid, body);
  return 0;
}
