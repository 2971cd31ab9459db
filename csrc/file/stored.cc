#include "stored.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "checked.h"
#include "fields.h"
#include "format.h"
#include "problems.h"

namespace bl {

namespace {

std::string spelt(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

bool above_zero(float x) { return std::isfinite(x) && x >= std::numeric_limits<float>::min(); }
bool whole_up_to_126(float x) { return x == std::nearbyint(x) && std::fabs(x) <= 126; }
bool whole_of_24_bits(float x) { return x == std::nearbyint(x) && std::fabs(x) <= 1 << 24; }

constexpr struct {
  const char* name;
  bool (*good)(float);
  const char* called;
} kGoodParameters[] = {
    {"scale", above_zero, "above zero and not subnormal"},
    {"range", above_zero, "above zero and not subnormal"},
    {"fl", whole_up_to_126, "whole numbers between -126 and 126"},
    {"zero_point", whole_of_24_bits, "whole numbers that 24 bits hold"},
};

// The shape of a parameter: one entry per channel of a weight, or per group of it, or a table.
Shape shape_of_parameter(const Parameter& p, const StoredEncoding& e, const Shape& shape) {
  if (!p.table.empty()) return p.table;
  if (e.format.group) return {shape[0], parts_of(elements(Shape(shape.begin() + 1, shape.end())), e.format.group)};
  Shape out;
  for (const int axis : e.axes) out.push_back(shape[static_cast<size_t>(axis)]);
  return out;
}

Problem check_parameter(const Parameter& p, const StoredEncoding& e, const Shape* shape, const std::string& where) {
  const auto found = e.params.find(p.name);
  if (found == e.params.end()) return damaged("params of " + where, "a map with '" + p.name + "'", "one without");
  const StoredArray& values = found->second;
  const bool any = !shape && p.table.empty();  // an activation knows how many axes its channels take, not how many there are
  const Shape want = any ? values.shape : shape_of_parameter(p, e, shape ? *shape : Shape{});
  if (values.type == p.type && values.shape == want && (!any || want.size() == e.axes.size())) return {};
  return damaged(p.name + " of " + where, std::string(name_of(p.type)) + " of shape " + (any ? "of its axes" : spelt(want)),
                 std::string(name_of(values.type)) + " of shape " + spelt(values.shape));
}

Problem check_parameters(const StoredEncoding& e, const std::vector<Parameter>& known, const Shape* shape, const std::string& where) {
  if (shape && !e.axes.empty() && static_cast<size_t>(e.axes.back()) >= shape->size()) {
    return damaged("axes of " + where, "axes of shape " + spelt(*shape), std::to_string(e.axes.back()));
  }
  if (e.format.group && (!shape || shape->empty() || e.axes != std::vector<int>{0})) {
    return damaged("format of " + where, "without groups, or on a weight with axes [0]", "one with");
  }
  if (e.format.dim > 1 && (!shape || shape->size() < 2)) {
    return damaged("format of " + where, "without blocks, or on a weight of two axes or more", "one with");
  }
  for (const Parameter& p : known) {
    if (Problem problem = check_parameter(p, e, shape, where)) return problem;
  }
  return {};
}

Problem stored_parameter(const Tree& entry, Inline which, bool newer, const std::string& where, StoredArray& out) {
  if (Problem p = checked(entry, {kArrayFields}, where, newer)) return p;
  return stored_array(entry, which, where, out);
}

}  // namespace

Problem check_values(const std::string& name, const Array& values, const std::string& where) {
  for (const auto& rule : kGoodParameters) {
    if (name != rule.name) continue;
    const auto count = static_cast<size_t>(elements(values.shape));
    for (size_t i = 0; i < count; ++i) {
      float x;
      std::memcpy(&x, values.bytes.data() + 4 * i, 4);
      if (!rule.good(x)) return damaged(name + " of " + where, rule.called, "other numbers");
    }
  }
  return {};
}

Problem shape_of(const Tree& entry, const std::string& where, Shape& out, int64_t& count) {
  int64_t most = 1;  // the product without the zeros: parts of a shape are no larger
  count = 1;
  for (const Tree& n : *entry.find("shape")->list()) {
    const int64_t size = *n.whole();
    const bool fits = checked_mul(most, std::max<int64_t>(size, 1), most) && most <= kMostElements;
    if (out.size() == kMostAxes || !fits) return damaged("shape of " + where, "at most 32 axes and 2^40 elements", "more");
    out.push_back(size);
    count = size ? count : 0;
  }
  count = count ? most : 0;
  return {};
}

Place place_of(const Tree& part) {
  const Tree::List& cells = *part.list();
  return {*cells[0].whole(), *cells[1].whole(), *cells[2].whole()};
}

Problem stored_blob(const Tree& entry, int64_t size, Inline which, const std::string& where, Blob& out) {
  const Tree *bytes = entry.find("bytes"), *part = entry.find("part");
  const bool here = which == Inline::all || size <= kInline;
  if (!bytes == here || !part != here) {
    const char* got = bytes && part ? "both" : bytes ? "'bytes'" : part ? "'part'" : "neither";
    return damaged(where, here ? "a map with 'bytes'" : "a map with 'part', having more than 32 bytes", got);
  }
  if (part) return out.place = place_of(*part), Problem{};
  out.here = *bytes->bytes();
  const auto there = static_cast<int64_t>(out.here.size());
  return there == size ? Problem{} : damaged("data of " + where, std::to_string(size) + " bytes long", std::to_string(there));
}

Problem stored_array(const Tree& entry, Inline which, const std::string& where, StoredArray& out) {
  type_named(*entry.find("dtype")->text(), out.type);
  if (Problem p = shape_of(entry, where, out.shape, out.count)) return p;
  if (!checked_mul(out.count, static_cast<int64_t>(size_of(out.type)), out.bytes)) return malformed(where + " is too large");
  return stored_blob(entry, out.bytes, which, where, out.blob);
}

Problem stored_encoding(const Tree& entry, const Tree* shared, const Shape* shape, bool newer, const std::string& where,
                        StoredEncoding& out) {
  const auto found = [&](const char* key) {
    const Tree* own = entry.find(key);
    return own || !shared ? own : shared->find(key);
  };
  const Tree *format = found("format"), *axes = found("axes");
  if (!format || !axes) return damaged(where, "a map with 'format' and 'axes', if not 'global' has them", "neither");
  const std::string& text = *format->text();
  if (!parse_format(text, out.format)) return damaged("format of " + where, "one that this version knows", quoted(text));
  for (const Tree& axis : *axes->list()) out.axes.push_back(static_cast<int>(*axis.whole()));
  const std::vector<Parameter> known = parameters_of(out.format);
  const Tree* params = entry.find("params");
  const Tree::Map none;
  for (const auto& [name, values] : params ? *params->map() : none) {
    const bool is_known = std::any_of(known.begin(), known.end(), [&key = name](const Parameter& p) { return p.name == key; });
    if (!is_known && !newer) return damaged("params of " + where, "those of its format", quoted(name));
    if (Problem p = stored_parameter(values, shared ? Inline::short_ones : Inline::all, newer, name + " of " + where, out.params[name])) return p;
  }
  const Tree* others = shared ? shared->find("params") : nullptr;
  for (const Parameter& p : known) {
    const Tree* values = others && !out.params.count(p.name) ? others->find(p.name) : nullptr;
    if (!values) continue;
    if (Problem problem = stored_parameter(*values, Inline::all, newer, p.name + " of 'global'", out.params[p.name])) return problem;
  }
  return check_parameters(out, known, shape, where);
}

}  // namespace bl
