#include "layer_head.h"

#include <algorithm>

#include "checked.h"
#include "codec/dense.h"
#include "fields.h"
#include "problems.h"

namespace bl {

int StoredTensor::width() const { return code_width(encoding.format); }

int64_t StoredTensor::rows_of(size_t number) const {
  int64_t first = 0;
  return checked_mul(static_cast<int64_t>(number), tile, first) ? std::min(tile, grid.rows - first) : 0;
}

size_t LayerHead::segment_of(int plane, int least) const {
  if (plane <= least) return 0;
  return static_cast<size_t>(std::lower_bound(rungs.begin(), rungs.end(), plane) - rungs.begin()) + 1;
}

size_t LayerHead::segment_of_version(const StoredTensor& versions, size_t k) const {
  if (k == 0 || versions.least_of == 0) return 0;
  return segment_of(std::min(versions.bits[k - 1] + 1, versions.planes_of), versions.least_of);
}

namespace {

Problem read_places(const Tree& list, int64_t tiles, const std::string& where, std::vector<Place>& out) {
  if (static_cast<int64_t>(list.list()->size()) != tiles) {
    return damaged("parts of " + where, std::to_string(tiles) + " of them, one for each tile", shown(list));
  }
  for (const Tree& part : *list.list()) out.push_back(place_of(part));
  return {};
}

// How the codes of a tensor are cut into tiles.
Problem read_tiles(const Tree& entry, int64_t count, const std::string& where, StoredTensor& out, int64_t& tiles) {
  const Tree* tile = entry.find("tile");
  if (out.shape.size() < 2) out.grid = {1, count};
  else out.grid = {out.shape[0], elements(Shape(out.shape.begin() + 1, out.shape.end()))};
  tiles = 1;
  out.tile = out.grid.rows;
  if (!tile) return {};
  out.tile = *tile->whole();
  if (out.tile < 1 || out.tile >= out.grid.rows) {
    return damaged("tile of " + where, "at least one row and fewer than " + std::to_string(out.grid.rows), shown(*tile));
  }
  tiles = parts_of(out.grid.rows, out.tile);
  return {};
}

Problem read_codes(const Tree& entry, const Shared& shared, const std::string& where, StoredTensor& out) {
  int64_t count = 0, tiles = 0;
  if (Problem p = shape_of(entry, where, out.shape, count)) return p;
  if (Problem p = stored_encoding(entry, shared.global, &out.shape, shared.newer, where, out.encoding)) return p;
  if (Problem p = read_tiles(entry, count, where, out, tiles)) return p;
  const Format& format = out.encoding.format;
  const Tree *data = entry.find("data"), *planes = entry.find("planes");
  if (!format.nested()) {
    if (!data || planes) return damaged(where, "a map with 'data' and without 'planes'", planes ? "'planes'" : "neither");
    return read_places(*data, tiles, where, out.planes.emplace_back());
  }
  if (data || !planes || planes->list()->size() != static_cast<size_t>(format.bits)) {
    return damaged("planes of " + where, std::to_string(format.bits) + " lists of parts", planes ? shown(*planes) : "none");
  }
  const auto floor = shared.floors.find(out.name);
  out.least = std::min(std::max(format.least_bits(), floor == shared.floors.end() ? 1 : floor->second), format.bits);
  for (const Tree& plane : *planes->list()) {
    if (Problem p = read_places(plane, tiles, where, out.planes.emplace_back())) return p;
  }
  return {};
}

Problem read_widths(const Tree& entry, bool newer, const std::string& where, StoredTensor& out) {
  StoredArray& one = out.values;
  type_named(*entry.find("dtype")->text(), one.type);
  if (Problem p = shape_of(entry, where, one.shape, one.count)) return p;
  if (!checked_mul(one.count, static_cast<int64_t>(size_of(one.type)), one.bytes)) return malformed(where + " is too large");
  out.of = *entry.find("of")->text();
  for (const Tree& b : *entry.find("bits")->list()) out.bits.push_back(static_cast<int>(*b.whole()));
  const Tree& versions = *entry.find("versions");
  if (versions.list()->size() != out.bits.size()) {
    return damaged("versions of " + where, std::to_string(out.bits.size()) + " of them", shown(versions));
  }
  for (const Tree& version : *versions.list()) {
    if (Problem p = checked(version, {kVersionFields}, "a version of " + where, newer)) return p;
    if (Problem p = stored_blob(version, one.bytes, Inline::short_ones, "a version of " + where, out.versions.emplace_back())) return p;
  }
  return {};
}

Problem read_tensor(const Tree& entry, const Shared& shared, StoredTensor& out) {
  if (Problem p = checked(entry, {kHeadFields}, "a tensor", true)) return p;
  out.name = *entry.find("name")->text();
  const std::string &kind = *entry.find("kind")->text(), where = "tensor " + quoted(out.name);
  if (kind == "array") {
    out.kind = StoredTensor::array;
    if (Problem p = checked(entry, {kHeadFields, kArrayFields}, where, shared.newer)) return p;
    return stored_array(entry, Inline::short_ones, where, out.values);
  }
  if (kind == "widths") {
    out.kind = StoredTensor::widths;
    if (Problem p = checked(entry, {kHeadFields, kWidthsFields}, where, shared.newer)) return p;
    return read_widths(entry, shared.newer, where, out);
  }
  out.kind = StoredTensor::codes;
  if (Problem p = checked(entry, {kHeadFields, kSharedFields, kCodesFields}, where, shared.newer)) return p;
  return read_codes(entry, shared, where, out);
}

std::vector<int> rungs_of(const std::vector<StoredTensor>& tensors) {
  std::vector<int> out;
  for (const StoredTensor& t : tensors) {
    for (int plane = t.least + 1; t.least && plane <= t.encoding.format.bits; ++plane) out.push_back(plane);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// Tells tensors of widths what their weights are.
void find_weights(std::vector<StoredTensor>& tensors) {
  std::map<std::string_view, const StoredTensor*> nested;
  for (const StoredTensor& t : tensors) {
    if (t.least) nested.emplace(t.name, &t);
  }
  for (StoredTensor& t : tensors) {
    const auto weight = t.kind == StoredTensor::widths ? nested.find(t.of) : nested.end();
    if (weight == nested.end()) continue;
    t.least_of = weight->second->least;
    t.planes_of = weight->second->encoding.format.bits;
  }
}

// Gives parts their places, one after the other in the order of reading, and checks that they fill the segments.
class Layout {
 public:
  explicit Layout(LayerHead& layer) : layer_(layer), ends_(layer.segments.size()) {}

  Problem all() {
    for (StoredTensor& t : layer_.tensors) {
      if (Problem p = tensor(t, "tensor " + quoted(t.name))) return p;
    }
    for (size_t i = 0; i < ends_.size(); ++i) {
      if (ends_[i] != layer_.segments[i].length) {
        return damaged("segment " + std::to_string(i), std::to_string(ends_[i]) + " bytes long, as its parts are",
                       std::to_string(layer_.segments[i].length));
      }
    }
    return {};
  }

 private:
  Problem tensor(StoredTensor& t, const std::string& where) {
    for (auto& [name, values] : t.encoding.params) {
      if (Problem p = array(values.blob, values, 0, name + " of " + where)) return p;
    }
    for (size_t plane = 0; plane < t.planes.size(); ++plane) {
      if (Problem p = tiles(t, plane, where)) return p;
    }
    if (t.kind == StoredTensor::array) return array(t.values.blob, t.values, 0, where);
    for (size_t k = 0; k < t.versions.size(); ++k) {
      if (Problem p = array(t.versions[k], t.values, layer_.segment_of_version(t, k), where)) return p;
    }
    return {};
  }

  Problem tiles(StoredTensor& t, size_t plane, const std::string& where) {
    const bool nested = t.least > 0;
    const size_t segment = nested ? layer_.segment_of(static_cast<int>(plane) + 1, t.least) : 0;
    for (size_t i = 0; i < t.planes[plane].size(); ++i) {
      int64_t count = 0;
      if (!checked_mul(t.rows_of(i), t.grid.cols, count)) return malformed(where + " is too large");
      const int bits = nested ? 1 : t.encoding.format.bits;
      if (Problem p = put(t.planes[plane][i], segment, nested ? PartKind::plane : PartKind::codes, count, bits, where)) return p;
    }
    return {};
  }

  Problem array(Blob& blob, const StoredArray& like, size_t segment, const std::string& where) {
    if (!blob.place) return {};
    return put(*blob.place, segment, PartKind::numbers, like.count, static_cast<int>(8 * size_of(like.type)), where);
  }

  Problem put(Place& place, size_t segment, PartKind kind, int64_t count, int bits, const std::string& where) {
    if (place.segment != static_cast<int64_t>(segment)) {
      return damaged("segment of a part of " + where, std::to_string(segment), std::to_string(place.segment));
    }
    if (!is_coding_of(kind, place.coding)) {
      return damaged("coding of a part of " + where, "one that this version knows", std::to_string(place.coding));
    }
    int64_t raw = 0, most = 0;
    const bool sized = place.coding == kRaw ? checked_bytes(count, bits, raw) && place.length == raw
                                            : count > 0 && (!checked_mul(place.length, kMostPerByte, most) || count <= most);
    if (!sized) {
      return damaged("length of a part of " + where, "right for " + std::to_string(count) + " numbers",
                     std::to_string(place.length) + " bytes");
    }
    place.offset = ends_[segment];
    if (checked_add(place.offset, place.length, ends_[segment])) return {};
    return malformed("a part of " + where + " ends beyond any file");
  }

  LayerHead& layer_;
  std::vector<int64_t> ends_;
};

}  // namespace

Problem read_layer(const Tree& x, const Shared& shared, const std::string& where, LayerHead& out) {
  if (Problem p = checked(x, {kLayerFields}, where, shared.newer)) return p;
  for (const Tree& entry : *x.find("tensors")->list()) {
    if (Problem p = read_tensor(entry, shared, out.tensors.emplace_back())) return p;
  }
  for (const Tree& row : *x.find("segments")->list()) {
    out.segments.push_back({*(*row.list())[0].whole(), static_cast<uint32_t>(*(*row.list())[1].whole())});
  }
  find_weights(out.tensors);
  out.rungs = rungs_of(out.tensors);
  if (out.segments.size() != out.rungs.size() + 1) {
    return damaged("segments of " + where, std::to_string(out.rungs.size() + 1) + " of them", std::to_string(out.segments.size()));
  }
  return Layout(out).all();
}

bool add_decoded(const LayerHead& layer, int64_t& total) {
  const auto add = [&total](int64_t count, int64_t size) {
    int64_t bytes = 0;
    return checked_mul(count, size, bytes) && checked_add(total, bytes, total);
  };
  for (const StoredTensor& t : layer.tensors) {
    for (const auto& [name, values] : t.encoding.params) {
      if (!add(values.bytes, 1)) return false;
    }
    int64_t codes = 0;
    if (t.kind == StoredTensor::codes && !(checked_mul(t.grid.rows, t.grid.cols, codes) && add(codes, std::max(t.width(), t.encoding.format.dim))))
      return false;
    if (t.kind == StoredTensor::array && !add(t.values.bytes, 1)) return false;
    if (t.kind == StoredTensor::widths && !add(t.values.bytes, static_cast<int64_t>(t.versions.size()))) return false;
  }
  return true;
}

}  // namespace bl
