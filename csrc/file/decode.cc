#include "decode.h"

#include <algorithm>

#include "checked.h"
#include "codec/codec.h"
#include "fields.h"
#include "format.h"
#include "problems.h"

namespace bl {

namespace {

using Segments = std::vector<std::string_view>;

PartView part(const Place& place, const Segments& segments) {
  const std::string_view segment = segments[static_cast<size_t>(place.segment)];
  return {static_cast<int>(place.coding), segment.substr(static_cast<size_t>(place.offset), static_cast<size_t>(place.length))};
}

Problem undecodable(const std::string& where) { return malformed(where + " has bytes that its coding does not make"); }

// The bytes of a blob of `like.count` numbers. `before`: as many, which these are near to, or null.
Problem decode_blob(const Blob& blob, const StoredArray& like, const Segments& segments, const uint8_t* before,
                    const std::string& where, uint8_t* out) {
  if (!blob.place) std::copy(blob.here.begin(), blob.here.end(), out);
  else if (!decode_numbers(part(*blob.place, segments), like.type, like.count, before, out)) return undecodable(where);
  const auto is_bool = [](uint8_t b) { return b <= 1; };
  if (like.type != Type::boolean || std::all_of(out, out + like.bytes, is_bool)) return {};
  return damaged("data of " + where, "zeros and ones", "other bytes");
}

// How many planes of a nested tensor are there, and how many versions of a tensor of widths.
int planes_there(const LayerHead& layer, const StoredTensor& t, size_t segments) {
  int planes = t.least;
  while (planes < t.encoding.format.bits && layer.segment_of(planes + 1, t.least) < segments) ++planes;
  return planes;
}

size_t versions_there(const LayerHead& layer, const StoredTensor& t, size_t segments) {
  size_t count = 0;
  if (!t.versions[0].place) return t.versions.size();  // they are in the header
  while (count < t.versions.size() && layer.segment_of_version(t, count) < segments) ++count;
  return count;
}

Problem decode_versions(const StoredTensor& t, size_t count, const Segments& segments, const std::string& where, PerWidth& out) {
  out.of = t.of;
  out.bits.assign(t.bits.begin(), t.bits.begin() + static_cast<ptrdiff_t>(count));
  out.versions.type = t.values.type;
  out.versions.shape = t.values.shape;
  out.versions.shape.insert(out.versions.shape.begin(), static_cast<int64_t>(count));
  const auto size = static_cast<size_t>(t.values.bytes);
  out.versions.bytes.resize(count * size);
  const uint8_t* before = nullptr;
  uint8_t* at = out.versions.bytes.data();
  for (size_t k = 0; k < count; ++k, before = at, at += size) {
    if (Problem p = decode_blob(t.versions[k], t.values, segments, before, where, at)) return p;
  }
  return {};
}

// The first `planes` planes of one tile of a nested tensor, or its codes.
bool decode_tile(const StoredTensor& t, size_t number, size_t planes, const Segments& segments, const Codes& out, uint8_t* at) {
  const CodeGrid grid{t.rows_of(number), t.grid.cols};
  const Format& format = t.encoding.format;
  if (!t.least) {
    const CodeKind kind{format.bits, format.low(), format.high()};
    return decode_codes(part(t.planes[0][number], segments), grid, kind, out.width, at);
  }
  std::vector<PartView> parts;
  for (size_t p = 0; p < planes; ++p) parts.push_back(part(t.planes[p][number], segments));
  return decode_planes(parts, grid, format.kind == Format::sign, 0, at);
}

Problem decode_codes(const StoredTensor& t, int planes, const Segments& segments, const std::string& where, Codes& out) {
  if (Problem p = decode_encoding(t.encoding, segments, where, out.encoding)) return p;
  out.shape = t.shape;
  out.width = t.width();
  out.bytes.resize(static_cast<size_t>(t.grid.count() * out.width));
  uint8_t* at = out.bytes.data();
  for (size_t i = 0; i < t.planes[0].size(); ++i) {
    if (!decode_tile(t, i, static_cast<size_t>(planes), segments, out, at)) return undecodable("codes of " + where);
    at += t.rows_of(i) * t.grid.cols * out.width;
  }
  if (t.least) return narrow(out.encoding, planes), Problem{};
  const int low = out.encoding.format.low(), high = out.encoding.format.high();
  if (high - low == (1 << out.encoding.format.bits) - 1) return {};  // every pattern of bits is a code
  for (int64_t i = 0; i < t.grid.count(); ++i) {
    if (const int64_t code = out.code(i); code < low || code > high) {
      return damaged("codes of " + where, "between " + std::to_string(low) + " and " + std::to_string(high), std::to_string(code));
    }
  }
  return {};
}

}  // namespace

Problem decode_array(const StoredArray& stored, const Segments& segments, const std::string& where, Array& out) {
  out.type = stored.type;
  out.shape = stored.shape;
  out.bytes.resize(static_cast<size_t>(stored.bytes));
  return decode_blob(stored.blob, stored, segments, nullptr, where, out.bytes.data());
}

Problem decode_encoding(const StoredEncoding& stored, const Segments& segments, const std::string& where, Encoding& out) {
  out.format = stored.format;
  out.axes = stored.axes;
  for (const Parameter& parameter : parameters_of(stored.format)) {
    const std::string& name = parameter.name;
    Array& array = out.params[name];
    if (Problem p = decode_array(stored.params.at(name), segments, name + " of " + where, array)) return p;
    if (Problem p = check_values(name, array, where)) return p;
  }
  return {};
}

Problem decode_layer(const LayerHead& layer, const Segments& segments, int bits, Graph& out) {
  for (const StoredTensor& t : layer.tensors) {
    const std::string where = "tensor " + quoted(t.name);
    Constant& constant = out.constants[t.name];
    Problem p;
    if (t.kind == StoredTensor::array) {
      p = decode_array(t.values, segments, where, constant.emplace<Array>());
    } else if (t.kind == StoredTensor::widths) {
      p = decode_versions(t, versions_there(layer, t, segments.size()), segments, where, constant.emplace<PerWidth>());
    } else {
      const int there = planes_there(layer, t, segments.size());
      p = decode_codes(t, bits ? std::clamp(bits, t.least, there) : there, segments, where, constant.emplace<Codes>());
    }
    if (p) return p;
  }
  return {};
}

}  // namespace bl
