// A header and sections as a network. What holds for one field alone is in fields.cc; what depends on two is here.
#include "file.h"

#include <algorithm>
#include <new>

#include "codec/dense.h"
#include "container.h"
#include "fields.h"
#include "file_graph.h"
#include "format.h"
#include "source.h"

namespace bl {

namespace {

using Floors = std::map<std::string, int>;

// A nested weight whose planes come later in the file.
struct Nested {
  const std::string* name;
  Codes codes;
  std::vector<int64_t> sections;  // of its planes, most significant first
  size_t wanted;                  // how many of them to read
  std::vector<std::string_view> planes;
};

Problem check_widths(const Tree& meta, const char* key, Floors& out) {
  const Tree* found = meta.find(key);
  if (!found) return {};
  const std::string where = std::string("'") + key + "' of meta";
  if (!found->map()) return damaged(where, "bits by weight", shown(*found));
  for (const auto& [name, bits] : *found->map()) {
    if (!bits.whole() || *bits.whole() < 1 || *bits.whole() > 64) return damaged(where, "bits by weight", shown(bits));
    out.emplace(name, static_cast<int>(*bits.whole()));
  }
  return {};
}

// Of a nested tensor, the planes to read: those that are there and were asked for, but never fewer than its minimum.
size_t planes_wanted(const Tree& entry, const Format& format, size_t present, int bits, const Floors& floors) {
  const auto floor = floors.find(*entry.find("name")->text());
  const int least = std::max(format.least_bits(), floor == floors.end() ? 1 : floor->second);
  const Tree::List& planes = *entry.find("planes")->list();
  const auto gone = [present](const Tree& n) { return static_cast<size_t>(*n.whole()) >= present; };
  const auto there = static_cast<int>(std::find_if(planes.begin(), planes.end(), gone) - planes.begin());
  const int asked = bits > 0 ? std::min(bits, there) : there;
  return static_cast<size_t>(std::clamp(asked, std::min(least, format.bits), format.bits));
}

// The file holds every section but the planes that nobody asked for, up to the last one needed.
Problem require_needed(const Container& file, const Tree::List& tensors, int bits, const Floors& floors) {
  std::vector<bool> needed(file.sections.size(), true);
  const size_t present = file.present();
  for (const Tree& entry : tensors) {
    const Tree* planes = entry.find("planes");
    if (*entry.find("kind")->text() != "codes" || !planes) continue;
    Format format;
    if (Problem p = check_format(entry, "tensor " + quoted(*entry.find("name")->text()), format)) return p;
    if (!format.nested()) continue;
    const Tree::List& numbers = *planes->list();
    for (size_t i = planes_wanted(entry, format, present, bits, floors); i < numbers.size(); ++i) {
      const auto n = static_cast<size_t>(*numbers[i].whole());
      if (n < needed.size()) needed[n] = false;
    }
  }
  const auto last = std::find(needed.rbegin(), needed.rend(), true);
  return last == needed.rend() ? Problem{} : require(file, file.needed(static_cast<size_t>(needed.rend() - last) - 1));
}

Problem check_tensors(const Tree::List& tensors, bool newer) {
  for (const Tree& entry : tensors) {
    if (Problem p = checked(entry, {kHeadFields}, "a tensor", true)) return p;
    const std::string& kind = *entry.find("kind")->text();
    const std::string where = "tensor " + quoted(*entry.find("name")->text());
    Problem p = kind == "array"   ? checked(entry, {kHeadFields, kArrayFields}, where, newer)
                : kind == "codes" ? checked(entry, {kHeadFields, kEncodingFields, kCodesFields}, where, newer)
                                  : checked(entry, {kHeadFields, kWidthsFields, kArrayFields}, where, newer);
    if (p) return p;
  }
  return {};
}

Problem read_versions(const Tree& entry, Source& source, const std::string& where, PerWidth& out) {
  if (Problem p = source.array(entry, where, out.versions)) return p;
  out.of = *entry.find("of")->text();
  for (const Tree& b : *entry.find("bits")->list()) out.bits.push_back(static_cast<int>(*b.whole()));
  const Shape& shape = out.versions.shape;
  if (shape.empty() || static_cast<size_t>(shape[0]) != out.bits.size()) {
    return damaged("shape of " + where, std::to_string(out.bits.size()) + " versions long", shown(*entry.find("shape")));
  }
  return {};
}

// Reads all of a weight that has one section; of a nested one, notes where its planes are.
Problem read_codes(const Tree& entry, Source& source, const std::string& where, Codes& out, std::vector<int64_t>& planes) {
  if (Problem p = shape_of(entry, where, out.shape)) return p;
  if (Problem p = source.encoding(entry, where, &out.shape, out.encoding)) return p;
  const Tree *data = entry.find("data"), *numbers = entry.find("planes");
  if (!out.encoding.format.nested()) {
    if (!data || numbers) {
      return damaged(where, "an object with 'data' and without 'planes'", numbers ? "'planes'" : "neither");
    }
    return source.codes(*data->whole(), where, out);
  }
  const auto bits = static_cast<size_t>(out.encoding.format.bits);
  if (data || !numbers || numbers->list()->size() != bits) {
    return damaged("planes of " + where, std::to_string(bits) + " numbers of sections", numbers ? shown(*numbers) : "none");
  }
  for (const Tree& n : *numbers->list()) planes.push_back(*n.whole());
  return {};
}

// Reads the planes of all nested weights, in the order of the file.
Problem read_planes(Source& source, std::vector<Nested>& weights) {
  const int64_t before = source.last_claimed();
  std::vector<std::pair<int64_t, Nested*>> order;
  for (Nested& w : weights) {
    const std::string where = "tensor " + quoted(*w.name);
    for (const int64_t n : w.sections) {
      if (Problem p = source.claim(n, where)) return p;
    }
    if (!std::is_sorted(w.sections.begin(), w.sections.end()) || w.sections[0] <= before) {
      return damaged("planes of " + where, "rising, after all that every width needs", "others");
    }
    for (size_t i = 0; i < w.wanted; ++i) order.emplace_back(w.sections[i], &w);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [number, w] : order) {
    std::string_view& plane = w->planes.emplace_back();
    if (Problem p = source.plane(number, "tensor " + quoted(*w->name), elements(w->codes.shape), plane)) return p;
  }
  for (Nested& w : weights) {
    w.codes.bytes = from_planes(w.planes, elements(w.codes.shape));
    narrow(w.codes.encoding, static_cast<int>(w.wanted));
  }
  return {};
}

Problem read_tensors(const Tree::List& tensors, Source& source, int bits, const Floors& floors, Graph& out,
                     std::vector<Nested>& nested) {
  const size_t present = source.file().present();
  for (const Tree& entry : tensors) {
    const std::string &name = *entry.find("name")->text(), &kind = *entry.find("kind")->text();
    const std::string where = "tensor " + quoted(name);
    const auto [place, is_new] = out.constants.try_emplace(name);
    if (name.empty() || !is_new) return damaged("names of tensors", "different from each other", quoted(name));
    if (kind == "array") {
      if (Problem p = source.array(entry, where, place->second.emplace<Array>())) return p;
    } else if (kind == "widths") {
      if (Problem p = read_versions(entry, source, where, place->second.emplace<PerWidth>())) return p;
    } else {
      Codes& codes = place->second.emplace<Codes>();
      std::vector<int64_t> planes;
      if (Problem p = read_codes(entry, source, where, codes, planes)) return p;
      if (planes.empty()) continue;
      const size_t wanted = planes_wanted(entry, codes.encoding.format, present, bits, floors);
      nested.push_back({&place->first, std::move(codes), std::move(planes), wanted, {}});
    }
  }
  return {};
}

Problem check_versions(const Graph& graph) {
  for (const auto& [name, constant] : graph.constants) {
    const PerWidth* versions = std::get_if<PerWidth>(&constant);
    if (versions && !graph.constant<Codes>(versions->of)) {
      return damaged("'of' of tensor " + quoted(name), "the name of a tensor of codes", quoted(versions->of));
    }
  }
  return {};
}

Problem read_header(const Container& file, int bits, Graph& out) {
  const bool newer = file.minor > kMinor;
  if (Problem p = checked(file.header, {kRootFields}, "the header", newer)) return p;
  out.meta = *file.header.find("meta");
  if (!spell_out_floats(out.meta)) return damaged("a float of meta", "inf, -inf or nan", "another");
  Floors floors, defaults;
  if (Problem p = check_widths(out.meta, "min_bits", floors)) return p;
  if (Problem p = check_widths(out.meta, "default_bits", defaults)) return p;
  const Tree::List& tensors = *file.header.find("tensors")->list();
  if (Problem p = check_tensors(tensors, newer)) return p;
  if (Problem p = require_needed(file, tensors, bits, floors)) return p;
  Source source(file);
  std::vector<Nested> nested;
  if (Problem p = read_tensors(tensors, source, bits, floors, out, nested)) return p;
  for (const auto& [name, entry] : *file.header.find("encodings")->map()) {
    const std::string where = "activation " + quoted(name);
    if (Problem p = checked(entry, {kEncodingFields}, where, newer)) return p;
    if (Problem p = source.encoding(entry, where, nullptr, out.encodings[name])) return p;
  }
  if (Problem p = read_planes(source, nested)) return p;
  for (Nested& w : nested) out.constants.at(*w.name) = std::move(w.codes);
  if (Problem p = source.all_claimed()) return p;
  if (Problem p = check_versions(out)) return p;
  return read_graph(*file.header.find("graph"), newer, out);
}

}  // namespace

Problem read_file(const uint8_t* data, size_t size, int bits, Graph& out) try {
  out = Graph{};
  Container file;
  if (Problem p = open_container({reinterpret_cast<const char*>(data), size}, file)) return p;
  return read_header(file, bits, out);
} catch (const std::bad_alloc&) {
  return {Status::no_memory, "load: there is not enough memory for this file; ask for fewer bits", 0};
}

}  // namespace bl
