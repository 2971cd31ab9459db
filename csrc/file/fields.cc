#include "fields.h"

#include <algorithm>

#include "container.h"
#include "graph/graph.h"

namespace bl {

namespace {

constexpr int64_t kMostCount = int64_t{1} << 40;
constexpr int64_t kMostWidth = 64;

bool all_of(const Tree& x, bool (*good)(const Tree&)) {
  return x.list() && std::all_of(x.list()->begin(), x.list()->end(), good);
}

bool all_of_entries(const Tree& x, bool (*good)(const Tree&)) {
  return x.map() && std::all_of(x.map()->begin(), x.map()->end(), [good](const auto& entry) { return good(entry.second); });
}

bool is_text(const Tree& x) { return x.text(); }

bool is_list(const Tree& x) { return x.list(); }

bool is_object(const Tree& x) { return x.map(); }

bool is_dtype(const Tree& x) {
  Type type;
  return x.text() && type_named(*x.text(), type);
}

bool is_count(const Tree& x) { return x.whole() && 0 <= *x.whole() && *x.whole() <= kMostCount; }

bool is_hex(const Tree& x) {
  return x.text() && x.text()->size() <= 2 * kInline && x.text()->size() % 2 == 0 &&
         x.text()->find_first_not_of("0123456789abcdef") == std::string::npos;
}

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

bool are_rows(const Tree& x) { return all_of(x, is_object); }

bool are_objects_by_name(const Tree& x) { return all_of_entries(x, is_object); }

bool are_limits(const Tree& x) {
  Tree limits = x;
  return x.list() && x.list()->size() == 2 && spell_out_floats(limits) &&
         all_of(limits, [](const Tree& limit) { return limit.is_null() || limit.whole() || limit.real(); });
}

bool is_mapping(const Tree& x) { return x.map() && !(x.map()->size() == 1 && x.find("float")); }

bool is_free_shape(const Tree& x) {
  return x.is_null() || all_of(x, [](const Tree& n) { return n.text() || is_count(n); });
}

constexpr char kDtypes[] =
    "one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64";

constexpr Field kRoot[] = {
    {"graph", is_object, "an object"},
    {"encodings", are_objects_by_name, "encodings by name"},
    {"meta", is_mapping, "an object"},
    {"tensors", are_rows, "a list of objects"},
    {"sections", is_list, "a list of rows"},
};
constexpr Field kGraph[] = {
    {"inputs", are_rows, "a list of objects"},
    {"outputs", are_texts, "a list of names"},
    {"nodes", are_rows, "a list of objects"},
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
    {"attrs", is_mapping, "an object", true},
    {"clip", are_limits, "two limits", true},
};
constexpr Field kArray[] = {
    {"dtype", is_dtype, kDtypes},
    {"shape", are_counts, "a list of sizes"},
    {"data", is_count, "the number of a section", true},
    {"hex", is_hex, "the bytes of a small array, at most 32, as lower case text", true},
};
constexpr Field kEncoding[] = {
    {"format", is_text, "the text of a format"},
    {"axes", are_axes, "a rising list of axes below 32"},
    {"params", are_objects_by_name, "arrays by name"},
};
constexpr Field kHead[] = {
    {"name", is_text, "text"},
    {"kind", is_kind, "one of array, codes, widths"},
};
constexpr Field kCodes[] = {
    {"shape", are_counts, "a list of sizes"},
    {"data", is_count, "the number of a section", true},
    {"planes", are_counts, "a list of numbers of sections", true},
};
constexpr Field kWidths[] = {
    {"of", is_text, "the name of a weight"},
    {"bits", are_widths, "one rising list of widths"},
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

const Fields kRootFields{kRoot}, kGraphFields{kGraph}, kInputFields{kInput}, kNodeFields{kNode}, kArrayFields{kArray},
    kEncodingFields{kEncoding}, kHeadFields{kHead}, kCodesFields{kCodes}, kWidthsFields{kWidths};

Problem checked(const Tree& x, std::initializer_list<Fields> tables, const std::string& where, bool others) {
  if (!x.map()) return damaged(where, "an object", shown(x));
  for (const Fields& table : tables) {
    for (const Field& field : table) {
      const Tree* value = x.find(field.key);
      if (!value && !field.optional) return damaged(where, std::string("an object with '") + field.key + "'", "one without");
      if (value && !field.good(*value)) {
        return damaged(std::string("'") + field.key + "' of " + where, field.called, shown(*value));
      }
    }
  }
  for (const auto& [key, value] : *x.map()) {
    if (!others && !field_named(tables, key)) return damaged(where, "an object of the keys of its kind", quoted(key));
  }
  return {};
}

Problem damaged(const std::string& where, const std::string& must, const std::string& got) {
  return malformed(where + " must be " + must + ", got " + got);
}

std::string shown(const Tree& x) {
  if (x.text()) return quoted(*x.text());
  if (x.whole()) return std::to_string(*x.whole());
  if (x.flag()) return *x.flag() ? "true" : "false";
  if (x.list()) return "a list of " + std::to_string(x.list()->size());
  return x.is_null() ? "null" : x.map() ? "an object" : "a float";
}

}  // namespace bl
