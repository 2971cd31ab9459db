#include "fields.h"

#include <algorithm>

#include "graph/graph.h"
#include "problems.h"

namespace bl {

namespace {

constexpr int64_t kMostWidth = 64, kMostLength = int64_t{1} << 62, kMostSum = UINT32_MAX;

bool all_of(const Tree& x, bool (*good)(const Tree&)) {
  return x.list() && std::all_of(x.list()->begin(), x.list()->end(), good);
}

bool all_of_entries(const Tree& x, bool (*good)(const Tree&)) {
  return x.map() && std::all_of(x.map()->begin(), x.map()->end(), [good](const auto& entry) { return good(entry.second); });
}

bool is_text(const Tree& x) { return x.text(); }

bool is_map(const Tree& x) { return x.map(); }

bool is_dtype(const Tree& x) {
  Type type;
  return x.text() && type_named(*x.text(), type);
}

bool is_whole(const Tree& x, int64_t most) { return x.whole() && 0 <= *x.whole() && *x.whole() <= most; }

bool is_count(const Tree& x) { return is_whole(x, kMostElements); }

bool is_length(const Tree& x) { return is_whole(x, kMostLength); }

bool is_bytes(const Tree& x) { return x.bytes(); }

bool is_kind(const Tree& x) { return x.text() && (*x.text() == "array" || *x.text() == "codes" || *x.text() == "widths"); }

bool are_texts(const Tree& x) { return all_of(x, is_text); }

bool are_counts(const Tree& x) { return all_of(x, is_count); }

bool are_names(const Tree& x) {
  return all_of(x, [](const Tree& name) { return name.text() && !name.text()->empty(); }) && !x.list()->empty();
}

// Whether `x` lists whole numbers from `least` to `most`, each above the one before.
bool rises(const Tree& x, int64_t least, int64_t most) {
  if (!x.list()) return false;
  for (const Tree& n : *x.list()) {
    if (!n.whole() || *n.whole() < least || *n.whole() > most) return false;
    least = *n.whole() + 1;
  }
  return true;
}

bool are_axes(const Tree& x) { return rises(x, 0, kMostAxes - 1); }

bool are_widths(const Tree& x) { return rises(x, 1, kMostWidth) && !x.list()->empty(); }

bool are_rows(const Tree& x) { return all_of(x, is_map); }

bool are_maps_by_name(const Tree& x) { return all_of_entries(x, is_map); }

bool are_limits(const Tree& x) {
  return all_of(x, [](const Tree& limit) { return limit.is_null() || limit.whole() || limit.real(); }) && x.list()->size() == 2;
}

// What a network or a node says of itself has no bytes: they would be no plain value elsewhere.
bool is_plain(const Tree& x) {
  if (x.list()) return all_of(x, is_plain);
  return x.map() ? all_of_entries(x, is_plain) : !x.bytes();
}

bool is_plain_map(const Tree& x) { return x.map() && is_plain(x); }

// Segment, coding and length.
bool is_part(const Tree& x) { return all_of(x, is_length) && x.list()->size() == 3; }

bool are_parts(const Tree& x) { return all_of(x, is_part); }

bool are_lists_of_parts(const Tree& x) { return all_of(x, are_parts); }

// Length and checksum.
bool is_segment(const Tree& x) {
  return x.list() && x.list()->size() == 2 && is_length((*x.list())[0]) && is_whole((*x.list())[1], kMostSum);
}

bool are_segments(const Tree& x) { return all_of(x, is_segment); }

bool is_free_shape(const Tree& x) {
  return x.is_null() || all_of(x, [](const Tree& n) { return n.text() || is_count(n); });
}

constexpr char kDtypes[] =
    "one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64";

constexpr Field kRoot[] = {
    {"graph", is_map, "a map"},
    {"encodings", are_maps_by_name, "encodings by name"},
    {"meta", is_plain_map, "a map without bytes"},
    {"order", is_bytes, "bytes"},
    {"policy", is_text, "text"},
    {"global", is_map, "a map"},
};
constexpr Field kGraph[] = {
    {"inputs", are_rows, "a list of maps"},
    {"outputs", are_texts, "a list of names"},
    {"nodes", are_rows, "a list of maps"},
};
constexpr Field kInput[] = {
    {"name", is_text, "text"},
    {"dtype", is_dtype, kDtypes},
    {"shape", is_free_shape, "a list of sizes and names, or null"},
};
constexpr Field kNode[] = {
    {"op", is_text, "text"},
    {"inputs", are_texts, "a list of names"},
    {"outputs", are_names, "a list of one name or more"},
    {"attrs", is_plain_map, "a map without bytes", true},
    {"clip", are_limits, "two limits", true},
};
constexpr Field kLayer[] = {
    {"name", is_text, "text"},
    {"op", is_text, "text"},
    {"tensors", are_rows, "a list of maps"},
    {"segments", are_segments, "a list of lengths and checksums"},
};
constexpr Field kArray[] = {
    {"dtype", is_dtype, kDtypes},
    {"shape", are_counts, "a list of sizes"},
    {"bytes", is_bytes, "bytes", true},
    {"part", is_part, "a segment, a coding and a length", true},
};
constexpr Field kEncoding[] = {
    {"format", is_text, "the text of a format"},
    {"axes", are_axes, "a rising list of axes below 32"},
    {"params", are_maps_by_name, "arrays by name"},
};
constexpr Field kShared[] = {
    {"format", is_text, "the text of a format", true},
    {"axes", are_axes, "a rising list of axes below 32", true},
    {"params", are_maps_by_name, "arrays by name", true},
};
constexpr Field kHead[] = {
    {"name", is_text, "text"},
    {"kind", is_kind, "one of array, codes, widths"},
};
constexpr Field kCodes[] = {
    {"shape", are_counts, "a list of sizes"},
    {"data", are_parts, "a list of parts", true},
    {"planes", are_lists_of_parts, "a list of lists of parts", true},
    {"tile", is_count, "a number of rows", true},
};
constexpr Field kWidths[] = {
    {"of", is_text, "the name of a weight"},
    {"bits", are_widths, "one rising list of widths"},
    {"dtype", is_dtype, kDtypes},
    {"shape", are_counts, "a list of sizes"},
    {"versions", are_rows, "a list of maps"},
};
constexpr Field kVersion[] = {
    {"bytes", is_bytes, "bytes", true},
    {"part", is_part, "a segment, a coding and a length", true},
};

const Field* field_named(std::initializer_list<Fields> tables, const std::string& key) {
  for (const Fields& table : tables) {
    for (const Field& field : table) {
      if (key == field.key) return &field;
    }
  }
  return nullptr;
}

}  // namespace

const Fields kRootFields{kRoot}, kGraphFields{kGraph}, kInputFields{kInput}, kNodeFields{kNode}, kLayerFields{kLayer},
    kArrayFields{kArray}, kEncodingFields{kEncoding}, kHeadFields{kHead}, kCodesFields{kCodes}, kWidthsFields{kWidths},
    kVersionFields{kVersion}, kSharedFields{kShared};

Problem checked(const Tree& x, std::initializer_list<Fields> tables, const std::string& where, bool others) {
  if (!x.map()) return damaged(where, "a map", shown(x));
  for (const Fields& table : tables) {
    for (const Field& field : table) {
      const Tree* value = x.find(field.key);
      if (!value && !field.optional) return damaged(where, std::string("a map with '") + field.key + "'", "one without");
      if (value && !field.good(*value)) {
        return damaged(std::string("'") + field.key + "' of " + where, field.called, shown(*value));
      }
    }
  }
  for (const auto& [key, value] : *x.map()) {
    if (!others && !field_named(tables, key)) return damaged(where, "a map of the keys of its kind", quoted(key));
  }
  return {};
}

}  // namespace bl
