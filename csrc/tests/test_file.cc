// The reader of files, on the worked example of docs/file-format.md: read whole, cut everywhere, damaged everywhere.
#include "file/file.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "file/container.h"
#include "file/format.h"

namespace {

using namespace bl;

#define CHECK(what)                                             \
  do {                                                          \
    if (!(what)) {                                              \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #what);    \
      std::exit(1);                                             \
    }                                                           \
  } while (false)

constexpr char kHeader[] =
    R"({"encodings":{},"graph":{"inputs":[{"dtype":"float32","name":"x","shape":["n",2]}],"nodes":[{"inputs":["x","w"],)"
    R"("op":"linear","outputs":["y"]}],"outputs":["y"]},"meta":{},"sections":[[0,1,3686048678,"raw"],[64,1,852952723,"raw"]],)"
    R"("tensors":[{"axes":[0],"format":"nested2","kind":"codes","name":"w","params":{"range":{"dtype":"float32",)"
    R"("hex":"0000803f00000040","shape":[2]}},"planes":[0,1],"shape":[2,2]}]})";

constexpr size_t kFirstPlane = 0x1c0, kSecondPlane = 0x200;

void put(std::string& out, uint32_t x, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(x >> (8 * i));
}

// A file of `header`, `minor` version and, from the next multiple of 64 on, `body`.
std::string file_of(const std::string& header, const std::string& body, uint32_t minor = 0) {
  std::string out("\x89LADDER\n", 8);
  put(out, 1, 2);
  put(out, minor, 2);
  put(out, static_cast<uint32_t>(header.size()), 4);
  put(out, crc32(header), 4);
  out += header;
  if (body.empty()) return out;
  out.resize((out.size() + 63) / 64 * 64);
  return out + body;
}

std::string body_of_example() {
  std::string out(65, '\0');
  out[0] = 0x0c;
  out[64] = 0x0a;
  return out;
}

std::string example() { return file_of(kHeader, body_of_example()); }

// A copy at the very end of a block of memory, so that a sanitizer sees one byte too many.
Problem read(const std::string& file, int bits, Graph& out) {
  const std::vector<uint8_t> copy(file.begin(), file.end());
  return read_file(copy.data(), copy.size(), bits, out);
}

Problem read(const std::string& file, int bits = 0) {
  Graph graph;
  return read(file, bits, graph);
}

bool is_example(const Graph& g, int bits) {
  const Codes* w = g.constant<Codes>("w");
  if (!w || w->shape != Shape{2, 2} || w->encoding.axes != std::vector<int>{0}) return false;
  if (w->encoding.format.bits != bits || w->encoding.format.kind != Format::midrise) return false;
  for (int64_t i = 0; i < 4; ++i) {
    if (w->code(i) != i >> (2 - bits)) return false;
  }
  const float* range = w->encoding.param("range") ? w->encoding.param("range")->as<float>() : nullptr;
  if (!range || range[0] != 1.0f || range[1] != 2.0f || g.inputs.size() != 1 || g.nodes.size() != 1) return false;
  return g.inputs[0].name == "x" && g.inputs[0].shape == Shape{-1, 2} && g.inputs[0].free_axes[0] == "n" &&
         g.nodes[0].op == "linear" && g.nodes[0].name() == "y" && g.outputs == std::vector<std::string>{"y"};
}

void test_the_example_is_read() {
  CHECK(example().size() == 0x201);
  CHECK(crc32("123456789") == 0xcbf43926u);
  for (const int bits : {0, 1, 2, 3, 64}) {
    Graph g;
    CHECK(!read(example(), bits, g));
    CHECK(is_example(g, bits == 1 ? 1 : 2));
    CHECK(g.least_bits("w") == 1);
  }
}

void test_every_prefix_is_read_or_says_what_is_missing() {
  const std::string whole = example();
  for (size_t size = 0; size < whole.size(); ++size) {
    Graph g;
    const Problem p = read(whole.substr(0, size), 0, g);
    if (size > kFirstPlane) {
      CHECK(!p && is_example(g, 1));
      continue;
    }
    CHECK(p.status == Status::truncated);
    const size_t header_end = 20 + sizeof kHeader - 1;
    CHECK(p.needed == (size < 20 ? 20 : size < header_end ? header_end : kFirstPlane + 1));
  }
  CHECK(read(whole + "!").status == Status::malformed);
}

void test_every_damaged_byte_is_noticed() {
  for (size_t at = 0; at < example().size(); ++at) {
    for (const int mask : {1, 0x20, 0x80, 0xff}) {
      std::string bad = example();
      bad[at] = static_cast<char>(bad[at] ^ mask);
      Graph g;
      if (!read(bad, 0, g)) CHECK((at == 10 || at == 11) && is_example(g, 2));  // a newer minor version
      if (!read(bad, 1, g)) CHECK(at == 10 || at == 11 || at > kFirstPlane);    // what a narrow reader does not read
    }
  }
  CHECK(example()[kSecondPlane] == 0x0a);
}

// The example with `from` in its header replaced by `to`, checksum made good.
std::string changed(const std::string& from, const std::string& to, uint32_t minor = 0) {
  std::string header = kHeader;
  const size_t at = header.find(from);
  CHECK(at != std::string::npos);
  return file_of(header.replace(at, from.size(), to), body_of_example(), minor);
}

void test_headers_that_contradict_themselves_are_refused() {
  const struct {
    const char *from, *to, *says;
  } kChanges[] = {
      {"[2,2]", "[1099511627776,1099511627776]", "at most 32 axes"},
      {"[2,2]", "[2,1099511627775]", "elements"},
      {"[2,2]", "[2,549755813888]", "bytes long"},  // as large as may be: refused before any memory is taken
      {"[2,2]", "[9,2]", "float32 of shape (9)"},
      {"[64,1,", "[64,9223372036854775807,", "beyond any file"},
      {"[64,1,", "[128,1,", "must be at 64"},
      {"\"raw\"],[", "\"zip\"],[", "must be 'raw'"},
      {"0000803f", "0000807f", "above zero"},
      {"0000803f", "00000000", "above zero"},
      {"nested2", "nested3", "3 numbers of sections"},
      {"nested2", "nested02", "one that this version knows"},
      {"[0,1]", "[1,0]", "rising"},
      {"[0,1]", "[0,0]", "free one below"},
      {"[0,1]", "[0,7]", "free one below"},
      {"\"outputs\":[\"y\"]},\"meta\"", "\"outputs\":[\"z\"]},\"meta\"", "never made"},
      {"\"x\",\"w\"", "\"v\",\"w\"", "nothing before it makes"},
      {"\"outputs\":[\"y\"]}]", "\"outputs\":[\"x\"]}]", "made twice"},
      {"\"meta\":{}", "\"meta\":{\"a\":{\"float\":\"1\"}}", "inf, -inf or nan"},
      {"\"meta\":{}", "\"meta\":{\"a\":1,\"a\":1}", "key twice"},
      {"\"meta\":{}", "\"meta\":{\"min_bits\":{\"w\":0}}", "bits by weight"},
      {"\"meta\":{}", "\"meta\":{\"a\":9223372036854775808}", "64 bits"},
      {"\"meta\":{}", "\"meta\":{\"a\":1e999}", "larger than any float"},
      {"\"meta\":{}", "\"meta\":{},\"more\":1", "keys of its kind"},
      {"\"range\":", "\"span\":", "those of its format"},
  };
  for (const auto& [from, to, says] : kChanges) {
    const Problem p = read(changed(from, to));
    if (p.status == Status::malformed && p.message.find(says) != std::string::npos) continue;
    std::printf("%s: '%s' does not say '%s'\n", to, p.message.c_str(), says);
    std::exit(1);
  }
  CHECK(read(changed("\"linear\"", "\"os.system\"")).status == Status::unsupported);
  CHECK(!read(changed("\"meta\":{}", "\"meta\":{},\"more\":1", 1)));
  CHECK(read(changed("\"meta\":{}", "\"meta\":{\"min_bits\":{\"w\":2}}").substr(0, kSecondPlane)).status == Status::truncated);
}

void test_text_that_is_no_json_is_refused() {
  Tree tree;
  std::string why;
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1,}", "01", "1.", ".5", "1e", "+1", "-", "NaN", "Infinity", "nul", "[1 2]",
                          "\"\t\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u-123\"", "\"", "1 1", "\"\xc3\xa9\"",
                          "{\"a\":1,\"\\u0061\":2}", "9223372036854775808", "-9223372036854775809"}) {
    if (parse_tree(bad, tree, why)) std::printf("accepted %s\n", bad);
    CHECK(!parse_tree(bad, tree, why));
  }
  CHECK(!parse_tree(std::string(100000, '['), tree, why));
  CHECK(parse_tree(std::string(31, '[') + "1" + std::string(31, ']'), tree, why));
  CHECK(!parse_tree(std::string(32, '[') + "1" + std::string(32, ']'), tree, why));
  CHECK(parse_tree("-9223372036854775808", tree, why) && *tree.whole() == INT64_MIN);
  CHECK(parse_tree(" {\"float\" : \"-inf\"}\n", tree, why) && spell_out_floats(tree) && *tree.real() == -HUGE_VAL);
  CHECK(parse_tree("\"\\u00e9\\ud83d\\ude00\\/\"", tree, why) && *tree.text() == "\xc3\xa9\xf0\x9f\x98\x80/");
  for (const char* zero : {"0.0", "-0.0", "1e-999", "0.1e-99999999999999999999", "0e999"}) {
    CHECK(parse_tree(zero, tree, why) && *tree.real() == 0.0);
  }
  for (const char* huge : {"1e309", "-1e309", "1e99999999999999999999", "0.1e999"}) CHECK(!parse_tree(huge, tree, why));
}

void test_formats_have_one_text() {
  Format f;
  for (const char* good : {"int8", "uint16/tensor", "int4/64", "fixed24", "ufixed1/tensor", "q2.5", "uq8.0", "q-3.10", "q10.-3",
                           "ternary/tensor", "nested8", "nested1:tree", "nested2:sign/tensor"}) {
    CHECK(parse_format(good, f));
  }
  for (const char* bad : {"", "float", "int", "int1", "int17", "int08", "int8/0", "int8/064", "int4/-1", "int4/9999999999",
                          "fixed1", "fixed25", "fixed8/64", "q2", "q-0.5", "q2.-0", "uq0.0", "q200.-190", "nested9",
                          "nested1:sign", "nested8:midrise", "nested8:tree/64", "ternary/2", "int8 ", " int8",
                          "int8/tensor/tensor"}) {
    if (parse_format(bad, f)) std::printf("accepted %s\n", bad);
    CHECK(!parse_format(bad, f));
  }
}

}  // namespace

int main() {
  test_the_example_is_read();
  test_every_prefix_is_read_or_says_what_is_missing();
  test_every_damaged_byte_is_noticed();
  test_headers_that_contradict_themselves_are_refused();
  test_text_that_is_no_json_is_refused();
  test_formats_have_one_text();
}
