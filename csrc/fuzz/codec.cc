// Whatever bytes come in, a decoder gives false or values that come back when they are encoded again, as just those bytes
// where there is one way only. The input is which decoder, what its grid or type is, and the body.
#include <cstdlib>
#include <cstring>

#include "codec/codec.h"
#include "codec/texts.h"

namespace {

using namespace bl;

void expect(bool holds) {
  if (!holds) std::abort();
}

constexpr CodeKind kinds[] = {{4, -8, 7}, {8, -128, 127}, {8, 0, 255}, {2, -1, 1}, {32, INT32_MIN, INT32_MAX}};

// Codes that a trellis gives are the same bytes again; plain ones may have another centre.
void codes(int coding, const PartView& part, CodeGrid grid, CodeKind kind) {
  std::vector<uint8_t> out(static_cast<size_t>(4 * grid.count()));
  if (!decode_codes(part, grid, kind, 4, out.data()) || coding == kRaw) return;
  std::vector<int32_t> found(static_cast<size_t>(grid.count()));
  std::memcpy(found.data(), out.data(), out.size());
  for (const int32_t code : found) expect(kind.low <= code && code <= kind.high);
  Bytes again;
  encode_codes(coding, found.data(), grid, kind, again);
  if (coding == kTrellis && grid.count()) expect(std::string_view(reinterpret_cast<char*>(again.data()), again.size()) == part.body);
}

void plane(const PartView& part, CodeGrid grid, int number, bool sign) {
  std::vector<uint8_t> out(static_cast<size_t>(grid.count()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(i * 37 & ((1 << number) - 1));
  if (!decode_planes({part}, grid, sign, number, out.data())) return;
  Bytes again;
  encode_plane(part.coding, out.data(), grid, number + 1, number, sign, again);
  if (part.coding != kRaw) expect(std::string_view(reinterpret_cast<char*>(again.data()), again.size()) == part.body);
}

void numbers(const PartView& part, Type type, int64_t count, bool near) {
  std::vector<uint8_t> out(static_cast<size_t>(count) * size_of(type)), before(out.size(), 1), back(out.size());
  if (!decode_numbers(part, type, count, near ? before.data() : nullptr, out.data())) return;
  if (part.coding == kRaw || !count) return;
  Bytes again;
  encode_numbers(part.coding, type, out.data(), count, near ? before.data() : nullptr, again);
  const PartView other{part.coding, {reinterpret_cast<char*>(again.data()), again.size()}};
  expect(decode_numbers(other, type, count, near ? before.data() : nullptr, back.data()) && back == out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const std::vector<char> copy(data + 4, data + size);  // of just this size, so that reads past its end are seen
  const PartView part{data[0] & 7, {copy.data(), copy.size()}};
  const CodeGrid grid{data[1] & 31, data[2] & 63};
  switch (data[0] >> 3 & 3) {
    case 0: codes(part.coding, part, grid, kinds[data[3] % std::size(kinds)]); break;
    case 1: plane(part, grid, data[3] & 7, data[3] & 8); break;
    case 2: numbers(part, static_cast<Type>(data[3] % 12), grid.count(), data[3] & 128); break;
    default: {
      Texts texts;
      std::string text;
      texts.decode({kRaw, std::string_view("conv1.weight").substr(0, data[3] & 7)}, data[3] & 7, text);
      if (texts.decode(part, data[1], text)) expect(text.size() == data[1]);
    }
  }
  return 0;
}
