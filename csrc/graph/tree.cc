// JSON as headers have it. Every value knows its level, so that recursion is bounded by kDeepest.
#include "tree.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace bl {

const Tree* Tree::find(std::string_view key) const {
  if (const Map* entries = map()) {
    for (const auto& [name, entry] : *entries) {
      if (name == key) return &entry;
    }
  }
  return nullptr;
}

namespace {

constexpr int kDeepest = 32;
constexpr size_t kLongestWhole = 20;  // digits and sign of -2^63

struct Odd {
  const char* word;
  double value;
};

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr Odd kOdd[] = {{"inf", kInf}, {"-inf", -kInf}, {"nan", std::numeric_limits<double>::quiet_NaN()}};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      out += static_cast<char>(0xe0 | c >> 12);
    } else {
      out += static_cast<char>(0xf0 | c >> 18);
      out += static_cast<char>(0x80 | (c >> 12 & 63));
    }
    out += static_cast<char>(0x80 | (c >> 6 & 63));
  }
  out += static_cast<char>(0x80 | (c & 63));
}

// The number that an exponent's sign and digits spell; clamped, far beyond what a double has.
int64_t exponent(std::string_view spelt) {
  int64_t x = 0;
  for (const char c : spelt) {
    if (is_digit(c)) x = std::min<int64_t>(10 * x + (c - '0'), int64_t{1} << 40);
  }
  return spelt[0] == '-' ? -x : x;
}

// Whether a number is below one.
bool is_small(std::string_view number) {
  const size_t mark = number.find_first_of("eE");
  const std::string_view digits = number.substr(number[0] == '-', mark - (number[0] == '-'));
  const size_t point = std::min(digits.find('.'), digits.size()), first = digits.find_first_of("123456789");
  if (first == digits.npos) return true;
  const int64_t before = static_cast<int64_t>(point) - static_cast<int64_t>(first) - (first < point);
  return before + (mark == number.npos ? 0 : exponent(number.substr(mark + 1))) < 0;
}

// Reads one text from begin to end; each function leaves `at` after what it read, or says why not and returns false.
class Parser {
 public:
  Parser(std::string_view text, std::string& why) : text_(text), why_(why) {}

  bool document(Tree& out) {
    if (std::any_of(text_.begin(), text_.end(), [](char c) { return c < 0; })) return fail("it is not ASCII");
    if (!value(out, 1)) return false;
    skip_space();
    return at_ == text_.size() || fail("something follows its end");
  }

 private:
  bool fail(const char* reason) {
    why_ = std::string(reason) + " at byte " + std::to_string(at_);
    return false;
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }

  bool eat(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool eat_after_space(char c) {
    skip_space();
    return eat(c);
  }

  bool word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) return fail("it is not JSON");
    at_ += expected.size();
    return true;
  }

  bool value(Tree& out, int level) {
    if (level > kDeepest) return fail("it is nested more than 32 deep");
    skip_space();
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (c == '{') return map(out, level);
    if (c == '[') return list(out, level);
    if (c == '"') return text(out.value.emplace<std::string>());
    if (c == 'n') return word("null");
    if (c == 't') return word("true") && (out.value = true, true);
    if (c == 'f') return word("false") && (out.value = false, true);
    return number(out);
  }

  bool list(Tree& out, int level) {
    Tree::List& items = out.value.emplace<Tree::List>();
    ++at_;
    if (eat_after_space(']')) return true;
    do {
      if (!value(items.emplace_back(), level + 1)) return false;
    } while (eat_after_space(','));
    return eat(']') || fail("a list does not go on with , or ]");
  }

  bool map(Tree& out, int level) {
    Tree::Map& entries = out.value.emplace<Tree::Map>();
    ++at_;
    if (eat_after_space('}')) return true;
    do {
      auto& [key, entry] = entries.emplace_back();
      skip_space();
      if (at_ == text_.size() || text_[at_] != '"') return fail("an object has no key");
      if (!text(key)) return false;
      if (!eat_after_space(':')) return fail("a key is not followed by :");
      if (!value(entry, level + 1)) return false;
    } while (eat_after_space(','));
    if (!eat('}')) return fail("an object does not go on with , or }");
    return !has_key_twice(entries) || fail("it has a key twice");
  }

  static bool has_key_twice(const Tree::Map& entries) {
    std::vector<std::string_view> keys;
    keys.reserve(entries.size());
    for (const auto& entry : entries) keys.push_back(entry.first);
    std::sort(keys.begin(), keys.end());
    return std::adjacent_find(keys.begin(), keys.end()) != keys.end();
  }

  bool text(std::string& out) {
    ++at_;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return fail("a text has a control character");
      if (c != '\\') {
        out += c;
      } else if (!escape(out)) {
        return false;
      }
    }
    return fail("a text has no end");
  }

  bool escape(std::string& out) {
    static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (eat('u')) return unicode(out);
    const size_t which = at_ < text_.size() ? kLetters.find(text_[at_]) : kLetters.npos;
    if (which == kLetters.npos) return fail("a text has an escape that JSON does not know");
    out += kMeanings[which];
    ++at_;
    return true;
  }

  bool unicode(std::string& out) {
    uint32_t c = 0, low = 0;
    if (!four_digits(c)) return fail("an escape has no four hexadecimal digits");
    const size_t after = at_;
    if (c >= 0xd800 && c < 0xdc00 && eat('\\') && eat('u') && four_digits(low) && low >= 0xdc00 && low < 0xe000) {
      append_utf8(out, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
      return true;
    }
    at_ = after;  // a surrogate that stands alone stays one
    append_utf8(out, c);
    return true;
  }

  bool four_digits(uint32_t& out) {
    if (text_.size() - at_ < 4) return false;
    const char* begin = text_.data() + at_;
    if (*begin == '-' || std::from_chars(begin, begin + 4, out, 16).ptr != begin + 4) return false;
    at_ += 4;
    return true;
  }

  size_t digits() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ - begin;
  }

  bool number(Tree& out) {
    const size_t begin = at_;
    eat('-');
    if (!eat('0') && digits() == 0) return fail("it is not JSON");
    bool whole = true;
    if (eat('.')) {
      whole = false;
      if (digits() == 0) return fail("a number has no digit after its point");
    }
    if (eat('e') || eat('E')) {
      whole = false;
      if (!eat('+')) eat('-');
      if (digits() == 0) return fail("a number has no digit in its exponent");
    }
    const std::string_view spelt = text_.substr(begin, at_ - begin);
    return whole ? integer(spelt, out) : real(spelt, out);
  }

  bool integer(std::string_view spelt, Tree& out) {
    int64_t x = 0;
    if (spelt.size() > kLongestWhole || std::from_chars(spelt.data(), spelt.data() + spelt.size(), x).ec != std::errc()) {
      return fail("a whole number does not fit in 64 bits");
    }
    out.value = x;
    return true;
  }

  bool real(std::string_view spelt, Tree& out) {
    double x = 0;
    if (std::from_chars(spelt.data(), spelt.data() + spelt.size(), x).ec == std::errc::result_out_of_range) {
      x = is_small(spelt) ? 0.0 : kInf;
      if (spelt[0] == '-') x = -x;
    }
    if (std::isinf(x)) return fail("a number is larger than any float");
    out.value = x;
    return true;
  }

  std::string_view text_;
  std::string& why_;
  size_t at_ = 0;
};

}  // namespace

bool parse_tree(std::string_view text, Tree& out, std::string& why) {
  out = Tree{};
  return Parser(text, why).document(out);
}

bool spell_out_floats(Tree& x) {
  if (auto* items = std::get_if<Tree::List>(&x.value)) return std::all_of(items->begin(), items->end(), spell_out_floats);
  auto* entries = std::get_if<Tree::Map>(&x.value);
  if (!entries) return true;
  if (entries->size() != 1 || entries->front().first != "float") {
    return std::all_of(entries->begin(), entries->end(), [](auto& entry) { return spell_out_floats(entry.second); });
  }
  const std::string* word = entries->front().second.text();
  for (const Odd& odd : kOdd) {
    if (!word || *word != odd.word) continue;
    x.value = odd.value;
    return true;
  }
  return false;
}

}  // namespace bl
