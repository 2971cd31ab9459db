#include "source.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/dense.h"
#include "fields.h"
#include "format.h"

namespace bl {

namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;

std::string spelt(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

std::vector<uint8_t> from_hex(const std::string& digits) {
  const auto nibble = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<uint8_t> out;
  for (size_t i = 0; i < digits.size(); i += 2) {
    out.push_back(static_cast<uint8_t>(nibble(digits[i]) << 4 | nibble(digits[i + 1])));
  }
  return out;
}

bool above_zero(float x) { return std::isfinite(x) && x > 0; }
bool whole_up_to_126(float x) { return x == std::nearbyint(x) && std::fabs(x) <= 126; }
bool whole_of_24_bits(float x) { return x == std::nearbyint(x) && std::fabs(x) <= 1 << 24; }

constexpr struct {
  const char* name;
  bool (*good)(float);
  const char* called;
} kGoodParameters[] = {
    {"scale", above_zero, "above zero"},
    {"range", above_zero, "above zero"},
    {"fl", whole_up_to_126, "whole numbers between -126 and 126"},
    {"zero_point", whole_of_24_bits, "whole numbers that 24 bits hold"},
};

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

// The shape of a parameter: one entry per channel of a weight, or per group of it, or a table.
Shape shape_of_parameter(const Parameter& p, const Encoding& e, const Shape& shape) {
  if (p.entries) return {p.entries};
  if (e.format.group) {
    const int64_t row = elements(Shape(shape.begin() + 1, shape.end()));
    return {shape[0], row / e.format.group + (row % e.format.group != 0)};
  }
  Shape out;
  for (const int axis : e.axes) out.push_back(shape[static_cast<size_t>(axis)]);
  return out;
}

Problem check_parameter(const Parameter& p, const Encoding& e, const Shape* shape, const std::string& where) {
  const Array* values = e.param(p.name);
  if (!values) return damaged("params of " + where, "an object with '" + p.name + "'", "one without");
  const bool any = !shape && !p.entries;  // an activation knows how many axes its channels take, not how many there are
  const Shape want = any ? values->shape : shape_of_parameter(p, e, shape ? *shape : Shape{});
  if (values->type != p.type || values->shape != want || (any && want.size() != e.axes.size())) {
    return damaged(p.name + " of " + where, std::string(name_of(p.type)) + " of shape " + (any ? "of its axes" : spelt(want)),
                   std::string(name_of(values->type)) + " of shape " + spelt(values->shape));
  }
  return check_values(p.name, *values, where);
}

Problem check_parameters(const Encoding& e, const Shape* shape, const std::string& where) {
  if (shape && !e.axes.empty() && static_cast<size_t>(e.axes.back()) >= shape->size()) {
    return damaged("axes of " + where, "axes of shape " + spelt(*shape), std::to_string(e.axes.back()));
  }
  if (e.format.group && (!shape || shape->empty() || e.axes != std::vector<int>{0})) {
    return damaged("format of " + where, "without groups, or on a weight with axes [0]", "one with");
  }
  for (const Parameter& p : parameters_of(e.format)) {
    if (Problem problem = check_parameter(p, e, shape, where)) return problem;
  }
  return {};
}

}  // namespace

Problem shape_of(const Tree& entry, const std::string& where, Shape& out) {
  int64_t product = 1;
  for (const Tree& n : *entry.find("shape")->list()) {
    const int64_t size = *n.whole();
    if (out.size() == kMostAxes || std::max<int64_t>(size, 1) > kMostElements / product) {
      return damaged("shape of " + where, "at most 32 axes and 2^40 elements", "more");
    }
    product *= std::max<int64_t>(size, 1);
    out.push_back(size);
  }
  return {};
}

Problem check_format(const Tree& entry, const std::string& where, Format& out) {
  const std::string& text = *entry.find("format")->text();
  return parse_format(text, out) ? Problem{} : damaged("format of " + where, "one that this version knows", quoted(text));
}

Problem Source::claim(int64_t number, const std::string& where) {
  const auto n = static_cast<size_t>(number);
  if (n >= taken_.size() || taken_[n]) {
    return damaged("section of " + where, "a free one below " + std::to_string(taken_.size()), std::to_string(number));
  }
  taken_[n] = true;
  return {};
}

int64_t Source::last_claimed() const {
  return taken_.rend() - std::find(taken_.rbegin(), taken_.rend(), true) - 1;
}

Problem Source::all_claimed() const {
  const auto used = std::count(taken_.begin(), taken_.end(), true);
  if (static_cast<size_t>(used) == taken_.size()) return {};
  return damaged("sections", "all used, " + std::to_string(taken_.size()) + " of them", std::to_string(used));
}

// The body of a section that was claimed and must have `size` bytes.
Problem Source::read(int64_t number, const std::string& where, int64_t size, std::string_view& body) {
  const int64_t there = file_.sections[static_cast<size_t>(number)].size;
  if (there != size) return damaged("data of " + where, std::to_string(size) + " bytes long", std::to_string(there));
  return read_section(file_, static_cast<size_t>(number), body);
}

Problem Source::array(const Tree& entry, const std::string& where, Array& out) {
  type_named(*entry.find("dtype")->text(), out.type);
  if (Problem p = shape_of(entry, where, out.shape)) return p;
  const auto size = static_cast<size_t>(elements(out.shape)) * size_of(out.type);
  const Tree *hex = entry.find("hex"), *data = entry.find("data");
  if (!hex != (size > kInline) || !data != (size <= kInline)) {
    const char* got = hex && data ? "both" : hex ? "'hex'" : data ? "'data'" : "neither";
    return damaged(where, "an object with 'hex' up to 32 bytes, with 'data' above", got);
  }
  if (hex) {
    out.bytes = from_hex(*hex->text());
    if (out.bytes.size() != size) {
      return damaged("data of " + where, std::to_string(size) + " bytes long", std::to_string(out.bytes.size()));
    }
  } else {
    std::string_view body;
    if (Problem p = claim(*data->whole(), where)) return p;
    if (Problem p = read(*data->whole(), where, static_cast<int64_t>(size), body)) return p;
    out.bytes.assign(body.begin(), body.end());
  }
  if (out.type == Type::boolean && std::any_of(out.bytes.begin(), out.bytes.end(), [](uint8_t b) { return b > 1; })) {
    return damaged("data of " + where, "zeros and ones", "other bytes");
  }
  return {};
}

Problem Source::parameter(const Tree& entry, const std::string& where, Array& out) {
  if (Problem p = checked(entry, {kArrayFields}, where, file_.minor > kMinor)) return p;
  return array(entry, where, out);
}

Problem Source::encoding(const Tree& entry, const std::string& where, const Shape* shape, Encoding& out) {
  if (Problem p = check_format(entry, where, out.format)) return p;
  for (const Tree& axis : *entry.find("axes")->list()) out.axes.push_back(static_cast<int>(*axis.whole()));
  const std::vector<Parameter> known = parameters_of(out.format);
  const bool newer = file_.minor > kMinor;
  for (const auto& [name, values] : *entry.find("params")->map()) {
    const bool is_known = std::any_of(known.begin(), known.end(), [&key = name](const Parameter& p) { return p.name == key; });
    if (!is_known && newer) continue;
    if (!is_known) return damaged("params of " + where, "those of its format", quoted(name));
    if (Problem p = parameter(values, name + " of " + where, out.params[name])) return p;
  }
  return check_parameters(out, shape, where);
}

Problem Source::codes(int64_t number, const std::string& where, Codes& out) {
  const Format& format = out.encoding.format;
  const int64_t count = elements(out.shape);
  std::string_view body;
  if (Problem p = claim(number, where)) return p;
  if (Problem p = read(number, where, dense_bytes(count, format.bits), body)) return p;
  if (!ends_clean(body, count, format.bits)) return malformed("codes of " + where + " have bits set after the last");
  out.width = code_width(format);
  out.bytes = unpack(body, count, format.bits, out.width, format.low() < 0);
  if (format.kind == Format::ternary && std::find(out.bytes.begin(), out.bytes.end(), uint8_t{0xfe}) != out.bytes.end()) {
    return damaged("codes of " + where, "between -1 and 1", "-2");  // of other formats every pattern is a code
  }
  return {};
}

Problem Source::plane(int64_t number, const std::string& where, int64_t count, std::string_view& out) {
  if (Problem p = read(number, where, dense_bytes(count, 1), out)) return p;
  return ends_clean(out, count, 1) ? Problem{} : malformed("a plane of " + where + " has bits set after its last code");
}

}  // namespace bl
