#include "trees.h"

#include <bit>
#include <limits>

namespace bl {

namespace {

constexpr int kDeepest = 32;
constexpr size_t kMostStrings = size_t{1} << 20, kLongestString = 65536;
constexpr size_t kMostValues = size_t{1} << 20;    // of one tree
constexpr size_t kMostText = size_t{64} << 20;     // bytes of all texts of one tree
constexpr size_t kMostPerByteOfHeader = 16, kSpare = size_t{1} << 20;  // bytes of all strings
constexpr uint64_t kNan = uint64_t{0x7ff8} << 48;  // the one that there is

// The bytes of the code point at the front of `text`, 0 if there is none: no surrogates, and nothing longer than it must be.
size_t code_point(std::string_view text) {
  const auto byte = [text](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto follows = [&byte](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint8_t first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4 || !follows(1)) return 0;
  if (first < 0xe0) return 2;
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || !follows(2)) return 0;
  if (first < 0xf0) return 3;
  if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) || !follows(3)) return 0;
  return 4;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = code_point(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// Whether `rest` goes on after the `shared` first bytes of `last`: as a string above it that shares no more.
bool goes_on(std::string_view rest, size_t shared, std::string_view last) {
  if (shared > last.size()) return false;
  if (shared == last.size()) return !rest.empty();
  return !rest.empty() && static_cast<uint8_t>(rest[0]) > static_cast<uint8_t>(last[shared]);
}

}  // namespace

bool read_strings(Cursor& in, size_t length_of_header, Strings& out, std::string& why) {
  const auto fail = [&why](const char* reason) { return why = reason, false; };
  size_t count = 0, total = 0;
  if (!in.count(2, count) || count > kMostStrings) return fail("the table of strings has more than it can hold");
  out.clear();
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t shared = 0;
    size_t length = 0;
    std::string_view rest;
    if (!in.varint(shared) || !in.count(1, length) || !in.take(length, rest)) return fail("a string has no end");
    const std::string_view last = i ? std::string_view(out.back()) : std::string_view();
    if (i ? shared > last.size() || !goes_on(rest, static_cast<size_t>(shared), last) : shared != 0) {
      return fail("strings do not rise, or do not share what they could");
    }
    std::string text(last.substr(0, static_cast<size_t>(shared)));
    text += rest;
    total += text.size();  // at most 2^20 strings of 2^17 bytes
    if (text.size() > kLongestString || total > kSpare + kMostPerByteOfHeader * length_of_header) return fail("its strings are too long");
    if (!is_utf8(text)) return fail("a string is not UTF-8");
    out.push_back(std::move(text));
  }
  return true;
}

namespace {

enum Tag : uint8_t { kNull, kFalse, kTrue, kWhole, kReal, kText, kList, kMap, kBytes };

// Reads one tree; each function leaves `in_` after what it read, or says why not and returns false.
class TreeReader {
 public:
  TreeReader(Cursor& in, const Strings& strings, std::string& why) : in_(in), strings_(strings), why_(why) {}

  bool all(Tree& out) { return value(out, 1) && (in_.left() == 0 || fail("something follows its end")); }

 private:
  bool fail(const char* reason) { return why_ = reason, false; }

  // Values are nested at most kDeepest deep, and so are the calls of this function.
  bool value(Tree& out, int level) {
    uint8_t tag = 0;
    if (level > kDeepest) return fail("it is nested more than 32 deep");
    if (++values_ > kMostValues) return fail("it has more than 2^20 values");
    if (!in_.little(tag)) return fail("it has no end");
    switch (tag) {
      case kNull: return out.value.emplace<std::monostate>(), true;
      case kFalse: return out.value.emplace<bool>(false), true;
      case kTrue: return out.value.emplace<bool>(true), true;
      case kWhole: return whole(out.value.emplace<int64_t>());
      case kReal: return real(out.value.emplace<double>());
      case kText: return text(out.value.emplace<std::string>());
      case kList: return list(out.value.emplace<Tree::List>(), level);
      case kMap: return map(out.value.emplace<Tree::Map>(), level);
      case kBytes: return bytes(out.value.emplace<Tree::Bytes>());
      default: return fail("it has a value of an unknown kind");
    }
  }

  bool whole(int64_t& out) {
    uint64_t zigzag = 0;
    if (!in_.varint(zigzag)) return fail("a whole number is not spelt as it must be");
    out = static_cast<int64_t>(zigzag >> 1 ^ (0 - (zigzag & 1)));
    return true;
  }

  bool real(double& out) {
    uint64_t bits = 0;
    if (!in_.little(bits)) return fail("it has no end");
    out = std::bit_cast<double>(bits);
    return out == out || bits == kNan || fail("a float is a NaN of another kind");
  }

  bool text(std::string& out) {
    size_t number = 0;
    return string_number(number) && (out = strings_[number], true);
  }

  bool string_number(size_t& out) {
    uint64_t number = 0;
    if (!in_.varint(number) || number >= strings_.size()) return fail("a text is not in the table of strings");
    out = static_cast<size_t>(number);
    text_ += strings_[out].size();  // at most 2^20 values, each with a key
    return text_ <= kMostText || fail("its texts are too long");
  }

  bool list(Tree::List& out, int level) {
    size_t count = 0;
    if (!in_.count(1, count)) return fail("a list has more than it can hold");
    while (out.size() < count) {  // grows as values come: levels that all claim what is left must not add up
      if (!value(out.emplace_back(), level + 1)) return false;
    }
    return true;
  }

  bool map(Tree::Map& out, int level) {
    size_t count = 0, last = 0;
    if (!in_.count(2, count)) return fail("a map has more than it can hold");
    while (out.size() < count) {
      size_t number = 0;
      if (!string_number(number)) return false;
      if (!out.empty() && number <= last) return fail("the keys of a map do not rise");
      last = number;
      auto& [key, entry] = out.emplace_back();
      key = strings_[number];
      if (!value(entry, level + 1)) return false;
    }
    return true;
  }

  bool bytes(Tree::Bytes& out) {
    size_t count = 0;
    std::string_view taken;
    if (!in_.count(1, count) || !in_.take(count, taken)) return fail("bytes have no end");
    out.assign(taken.begin(), taken.end());
    return true;
  }

  Cursor& in_;
  const Strings& strings_;
  std::string& why_;
  size_t values_ = 0, text_ = 0;
};

}  // namespace

bool read_tree(Cursor& in, const Strings& strings, Tree& out, std::string& why) {
  out = Tree{};
  return TreeReader(in, strings, why).all(out);
}

}  // namespace bl
