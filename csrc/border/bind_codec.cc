// The codec for Python: bytes in, bytes out, None where a coding does not apply or bytes are not what it makes.
#include "bind_codec.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "codec/best_text.h"
#include "codec/codec.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace bl;

std::string_view view(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }
const uint8_t* data(const nb::bytes& bytes) { return reinterpret_cast<const uint8_t*>(bytes.c_str()); }
nb::object bytes_of(const Bytes& bytes) { return nb::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size()); }
nb::object unless_empty(const Bytes& bytes) { return bytes.empty() ? nb::object(nb::none()) : bytes_of(bytes); }

// That `bytes` hold `count` elements of `size` bytes, so that nothing is read past them.
void check(const nb::bytes& bytes, int64_t count, size_t size) {
  if (count < 0 || bytes.size() != static_cast<size_t>(count) * size) throw nb::value_error("codec: bytes must be as many as the grid has");
}

Type type_of(const std::string& name) {
  Type type;
  if (!type_named(name, type)) throw nb::value_error(("codec: dtype must be one that arrays may have, got " + name).c_str());
  return type;
}

// What `encode` puts into its argument, without the interpreter.
template <class Encode>
Bytes quietly(Encode encode) {
  const nb::gil_scoped_release quiet;
  Bytes out;
  encode(out);
  return out;
}

// `size` bytes that `decode` fills without the interpreter, or None.
template <class Decode>
nb::object filled(size_t size, Decode decode) {
  bool sound = false;
  const Bytes out = quietly([&](Bytes& room) {
    room.resize(size);
    sound = decode(room.data());
  });
  return sound ? bytes_of(out) : nb::none();
}

nb::object codec_encode_codes(int coding, const nb::bytes& codes, int64_t rows, int64_t cols, int bits, int low, int high) {
  check(codes, rows * cols, sizeof(int32_t));
  const auto* from = reinterpret_cast<const int32_t*>(codes.c_str());
  return unless_empty(quietly([&](Bytes& out) { bl::encode_codes(coding, from, {rows, cols}, {bits, low, high}, out); }));
}

nb::object codec_decode_codes(int coding, const nb::bytes& body, int64_t rows, int64_t cols, int bits, int low, int high,
                              int width) {
  if (width != 1 && width != 2 && width != 4) throw nb::value_error("codec: codes must be of 1, 2 or 4 bytes");
  return filled(static_cast<size_t>(rows * cols * width), [&](uint8_t* out) {
    return bl::decode_codes({coding, view(body)}, {rows, cols}, {bits, low, high}, width, out);
  });
}

nb::object codec_encode_plane(int coding, const nb::bytes& codes, int64_t rows, int64_t cols, int bits, int number, bool sign) {
  check(codes, rows * cols, 1);
  return unless_empty(quietly([&](Bytes& out) { bl::encode_plane(coding, data(codes), {rows, cols}, bits, number, sign, out); }));
}

nb::object codec_decode_planes(std::vector<std::pair<int, nb::bytes>> parts, const nb::bytes& before, int64_t rows, int64_t cols, bool sign,
                         int known) {
  check(before, rows * cols, 1);
  std::vector<PartView> views;
  for (const auto& [coding, body] : parts) views.push_back({coding, view(body)});
  return filled(before.size(), [&](uint8_t* out) {
    std::copy_n(data(before), before.size(), out);
    return bl::decode_planes(views, {rows, cols}, sign, known, out);
  });
}

nb::object codec_encode_numbers(int coding, const std::string& dtype, const nb::bytes& values, std::optional<nb::bytes> before) {
  const Type type = type_of(dtype);
  const auto count = static_cast<int64_t>(values.size() / size_of(type));
  if (before) check(*before, count, size_of(type));
  return unless_empty(quietly([&](Bytes& out) {
    bl::encode_numbers(coding, type, data(values), count, before ? data(*before) : nullptr, out);
  }));
}

nb::object codec_decode_numbers(int coding, const nb::bytes& body, const std::string& dtype, int64_t count, std::optional<nb::bytes> before) {
  const Type type = type_of(dtype);
  if (before) check(*before, count, size_of(type));
  return filled(static_cast<size_t>(count) * size_of(type), [&](uint8_t* out) {
    return bl::decode_numbers({coding, view(body)}, type, count, before ? data(*before) : nullptr, out);
  });
}

// The texts of a file so far.
class PythonText {
 public:
  void learn(const nb::bytes& text) {
    const nb::gil_scoped_release quiet;
    text_.learn(view(text));
  }
  nb::object encode(const nb::bytes& text) {
    return bytes_of(quietly([&](Bytes& out) { text_.encode(view(text), out); }));
  }
  nb::object decode(const nb::bytes& body, size_t length) {
    std::string text;
    bool sound = false;
    {
      const nb::gil_scoped_release quiet;
      sound = text_.decode(view(body), length, text);
    }
    return sound ? nb::object(nb::bytes(text.data(), text.size())) : nb::none();
  }

 private:
  Text text_;
};

}  // namespace

void bind_codec(nb::module_& m) {
  m.def("codec_encode_codes", &codec_encode_codes, "coding"_a, "codes"_a, "rows"_a, "cols"_a, "bits"_a, "low"_a, "high"_a);
  m.def("codec_decode_codes", &codec_decode_codes, "coding"_a, "body"_a, "rows"_a, "cols"_a, "bits"_a, "low"_a, "high"_a,
        "width"_a);
  m.def("codec_encode_plane", &codec_encode_plane, "coding"_a, "codes"_a, "rows"_a, "cols"_a, "bits"_a, "number"_a,
        "sign"_a);
  m.def("codec_decode_planes", &codec_decode_planes, "parts"_a, "before"_a, "rows"_a, "cols"_a, "sign"_a, "known"_a);
  m.def("codec_encode_numbers", &codec_encode_numbers, "coding"_a, "dtype"_a, "values"_a, "before"_a.none());
  m.def("codec_decode_numbers", &codec_decode_numbers, "coding"_a, "body"_a, "dtype"_a, "count"_a, "before"_a.none());
  nb::class_<PythonText>(m, "Text")
      .def(nb::init<>())
      .def("learn", &PythonText::learn, "text"_a)
      .def("encode", &PythonText::encode, "text"_a)
      .def("decode", &PythonText::decode, "body"_a, "length"_a);
}
