#include "format.h"

#include <bit>
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

// A codebook of 2^bits levels says no more; one of fewer says how many, and needs all of its bits. How they were found does
// not change what codes mean.
bool parse_codebook(std::string_view text, Format& out) {
  out.kind = Format::codebook;
  if (!eat_number(text, out.bits) || !between(out.bits, 1, 8)) return false;
  const int most = 1 << out.bits;
  out.levels = most;
  const bool full = text.empty() || text[0] != ':' || text.substr(0, 2) == ":s";
  if (!full && (!eat(text, ":") || !eat_number(text, out.levels) || !between(out.levels, most / 2 + 1, most - 1))) return false;
  eat(text, ":squares");
  return eat_tail(text, false, out);
}

bool parse_log(std::string_view text, Format& out) {
  out.kind = Format::log;
  if (!eat_number(text, out.bits) || !between(out.bits, 2, 5)) return false;
  const bool finer = !text.empty() && text[0] == ':';
  if (finer && (!eat(text, ":") || !eat_number(text, out.octave))) return false;
  if (finer && out.octave != 2 && out.octave != 4 && out.octave != 8) return false;
  return eat_tail(text, false, out);
}

// "8x256" of "product8x256": weights of a block, and centroids.
bool parse_product(std::string_view text, Format& out) {
  out.kind = Format::product;
  if (!eat_number(text, out.dim) || !eat(text, "x") || !eat_number(text, out.levels)) return false;
  if (!between(out.dim, 2, 32) || !between(out.levels, 2, 65536)) return false;
  out.bits = std::bit_width(static_cast<unsigned>(out.levels - 1));
  return eat_tail(text, false, out);
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
  if (eat(text, "codebook")) return parse_codebook(text, out);
  if (eat(text, "product")) return parse_product(text, out);
  out.is_unsigned = eat(text, "u");
  if (eat(text, "int")) return parse_integer(text, out);
  if (eat(text, "fixed")) return parse_fixed(text, out);
  if (eat(text, "log")) return parse_log(text, out);
  return eat(text, "q") && parse_q(text, out);
}

std::vector<Parameter> parameters_of(const Format& format) {
  switch (format.kind) {
    case Format::fixed: return {{"fl"}};
    case Format::integer: return {{"scale"}, {"zero_point"}};
    case Format::ternary:
    case Format::log: return {{"scale"}};
    case Format::codebook: return {{"scale"}, {"levels", Type::i8, {format.levels}}};
    case Format::product: return {{"scale"}, {"centroids", Type::i8, {format.levels, format.dim}}};
    case Format::midrise: return {{"range"}};
    default: break;
  }
  std::vector<Parameter> out{{"scale"}};
  for (int b = format.least_bits(); b <= format.bits; ++b) {  // the sign scheme has tables of magnitudes
    out.push_back({"levels" + std::to_string(b), Type::i8, {int64_t{1} << (format.kind == Format::sign ? b - 1 : b)}});
  }
  return out;
}

void narrow(Encoding& encoding, int bits) {
  for (int b = bits + 1; b <= encoding.format.bits; ++b) encoding.params.erase("levels" + std::to_string(b));
  encoding.format.bits = bits;
}

}  // namespace bl
