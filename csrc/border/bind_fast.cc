// The coders of the core for Python: what the definitions in bitladder.codec are held against, at speed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "codec/codec.h"
#include "border.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace bl;

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

std::string_view view(const nb::bytes& body) { return {body.c_str(), body.size()}; }

// Runs `body` without the interpreter; `out` are the bytes it made.
template <class Body>
nb::bytes made(Body body) {
  Bytes out;
  Problem problem;
  {
    const nb::gil_scoped_release quiet;
    problem = guarded([&] { return body(out), Problem{}; });
  }
  if (problem) throw std::bad_alloc();
  return nb::bytes(reinterpret_cast<const char*>(out.data()), out.size());
}

template <class Body>
bool decoded(Body body) {
  bool good = false;
  Problem problem;
  {
    const nb::gil_scoped_release quiet;
    problem = guarded([&] { return good = body(), Problem{}; });
  }
  if (problem) throw std::bad_alloc();
  return good;
}

nb::bytes encode_codes_for(int coding, Array<const int32_t> codes, int64_t rows, int bits, int low, int high) {
  const Grid grid{rows, rows ? static_cast<int64_t>(codes.size()) / rows : 0};
  return made([&](Bytes& out) { encode_codes(coding, codes.data(), grid, {bits, low, high}, out); });
}

bool decode_codes_for(int coding, nb::bytes body, int64_t rows, int bits, int low, int high, Array<uint8_t> out, int width) {
  const Grid grid{rows, rows && width ? static_cast<int64_t>(out.size()) / width / rows : 0};
  return decoded([&] { return decode_codes({coding, view(body)}, grid, {bits, low, high}, width, out.data()); });
}

nb::bytes encode_plane_for(int coding, Array<const uint8_t> codes, int64_t rows, int bits, int number, bool sign) {
  const Grid grid{rows, rows ? static_cast<int64_t>(codes.size()) / rows : 0};
  return made([&](Bytes& out) { encode_plane(coding, codes.data(), grid, bits, number, sign, out); });
}

bool decode_plane_for(int coding, nb::bytes body, int64_t rows, int number, bool sign, Array<uint8_t> codes) {
  const Grid grid{rows, rows ? static_cast<int64_t>(codes.size()) / rows : 0};
  return decoded([&] { return decode_planes({{coding, view(body)}}, grid, sign, number, codes.data()); });
}

}  // namespace

void bind_fast(nb::module_& m) {
  m.def("encode_codes", &encode_codes_for, "coding"_a, "codes"_a, "rows"_a, "bits"_a, "low"_a, "high"_a);
  m.def("decode_codes", &decode_codes_for, "coding"_a, "body"_a, "rows"_a, "bits"_a, "low"_a, "high"_a, "out"_a, "width"_a);
  m.def("encode_plane", &encode_plane_for, "coding"_a, "codes"_a, "rows"_a, "bits"_a, "number"_a, "sign"_a);
  m.def("decode_plane", &decode_plane_for, "coding"_a, "body"_a, "rows"_a, "number"_a, "sign"_a, "codes"_a);
}
