#include "format.h"

#include <charconv>
#include <limits>

namespace bl {

namespace {

bool eat(std::string_view& text, std::string_view front) {
  if (text.substr(0, front.size()) != front) return false;
  text.remove_prefix(front.size());
  return true;
}

// Takes a number without needless zeros from the front of `text`.
bool eat_number(std::string_view& text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  const std::string_view spelt = text.substr(0, static_cast<size_t>(end - text.data()));
  if (error != std::errc() || spelt == "-0") return false;
  const std::string_view digits = spelt.substr(spelt[0] == '-');
  if (digits.size() > 1 && digits[0] == '0') return false;
  text.remove_prefix(spelt.size());
  return true;
}

// Takes the end of a text: nothing, or what parameters are shared by.
bool eat_tail(std::string_view text, bool groups, Format& out) {
  if (text.empty()) return true;
  if (!eat(text, "/")) return false;
  out.per_tensor = text == "tensor";
  return out.per_tensor || (groups && eat_number(text, out.group) && text.empty() && out.group > 0);
}

bool between(int bits, int least, int most) { return least <= bits && bits <= most; }

bool parse_integer(std::string_view text, Format& out) {
  out.kind = Format::integer;
  return eat_number(text, out.bits) && between(out.bits, 2, 16) && eat_tail(text, true, out);
}

bool parse_fixed(std::string_view text, Format& out) {
  out.kind = Format::fixed;
  return eat_number(text, out.bits) && between(out.bits, out.is_unsigned ? 1 : 2, 24) && eat_tail(text, false, out);
}

constexpr int kLongestFraction = 126;

// "2.5" of "q2.5": digits before and after the point, either of which may be negative.
bool parse_q(std::string_view text, Format& out) {
  int whole = 0, fraction = 0;
  if (!eat_number(text, whole) || !eat(text, ".") || !eat_number(text, fraction) || !text.empty()) return false;
  if (!between(fraction, -kLongestFraction, kLongestFraction) || !between(whole, -1000, 1000)) return false;
  out.kind = Format::fixed;
  out.bits = whole + fraction + (out.is_unsigned ? 0 : 1);
  return between(out.bits, out.is_unsigned ? 1 : 2, 24);
}

bool parse_nested(std::string_view text, Format& out) {
  if (!eat_number(text, out.bits)) return false;
  out.kind = eat(text, ":tree") ? Format::tree : eat(text, ":sign") ? Format::sign : Format::midrise;
  return between(out.bits, out.least_bits(), 8) && eat_tail(text, false, out);
}

}  // namespace

bool parse_format(std::string_view text, Format& out) {
  out = Format{};
  if (eat(text, "nested")) return parse_nested(text, out);
  if (eat(text, "ternary")) {
    out.kind = Format::ternary;
    out.bits = 2;
    return eat_tail(text, false, out);
  }
  out.is_unsigned = eat(text, "u");
  if (eat(text, "int")) return parse_integer(text, out);
  if (eat(text, "fixed")) return parse_fixed(text, out);
  return eat(text, "q") && parse_q(text, out);
}

std::vector<Parameter> parameters_of(const Format& format) {
  switch (format.kind) {
    case Format::fixed: return {{"fl"}};
    case Format::integer: return {{"scale"}, {"zero_point"}};
    case Format::ternary: return {{"scale"}};
    case Format::midrise: return {{"range"}};
    default: break;
  }
  std::vector<Parameter> out{{"scale"}};
  for (int b = format.least_bits(); b <= format.bits; ++b) {  // the sign scheme has tables of magnitudes
    out.push_back({"levels" + std::to_string(b), Type::i8, int64_t{1} << (format.kind == Format::sign ? b - 1 : b)});
  }
  return out;
}

void narrow(Encoding& encoding, int bits) {
  for (int b = bits + 1; b <= encoding.format.bits; ++b) encoding.params.erase("levels" + std::to_string(b));
  encoding.format.bits = bits;
}

}  // namespace bl
