// The reader of files, on small networks that the test writes itself: read whole, cut everywhere, damaged everywhere.
#include "file/file.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "file/format.h"
#include "write_file.h"

namespace {

using namespace bl;

#define CHECK(what)                                             \
  do {                                                          \
    if (!(what)) {                                              \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #what);    \
      std::exit(1);                                             \
    }                                                           \
  } while (false)

// The trees of a file and its segments.
struct Draft {
  Tree network;
  std::vector<Tree> layers;
  std::vector<std::string> segments;

  std::string file(uint16_t minor = 0, uint32_t flags = 0) const {
    Pieces out;
    out.minor = minor;
    out.flags = flags;
    for (const std::string& s : segments) out.segments += s;
    write_trees(network, layers, out);
    return file_of(out);
  }
};

Tree part(int64_t segment, int64_t coding, int64_t length) { return list({tree(segment), tree(coding), tree(length)}); }

Tree segment(const std::string& bytes) { return list({tree(static_cast<int64_t>(bytes.size())), tree(int64_t{crc32(bytes)})}); }

Tree network(Tree::List inputs_of_node) {
  const Tree input = map({{"name", tree("x")}, {"dtype", tree("float32")}, {"shape", list({tree("n"), tree(2)})}});
  const Tree node =
      map({{"op", tree("linear")}, {"inputs", list(std::move(inputs_of_node))}, {"outputs", list({tree("y")})}});
  return map({{"graph", map({{"inputs", list({input})}, {"outputs", list({tree("y")})}, {"nodes", list({node})}})},
              {"encodings", map()},
              {"meta", map()},
              {"order", tree(Tree::Bytes{0, 0})},
              {"global", map()},
              {"policy", tree("plane")}});
}

// A linear layer of two inputs and outputs. Its weight is nested2, its ranges are 1 and 2, its codes are 0, 1, 2, 3.
Draft example() {
  const std::string high = "\x0c", low = "\x0a";
  const Tree range = map({{"dtype", tree("float32")},
                          {"shape", list({tree(2)})},
                          {"bytes", tree(Tree::Bytes{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40})}});
  const Tree w = map({{"name", tree("w")},
                      {"kind", tree("codes")},
                      {"format", tree("nested2")},
                      {"axes", list({tree(int64_t{0})})},
                      {"params", map({{"range", range}})},
                      {"shape", list({tree(2), tree(2)})},
                      {"planes", list({list({part(0, 0, 1)}), list({part(1, 0, 1)})})}});
  const Tree layer = map({{"name", tree("y")},
                          {"op", tree("linear")},
                          {"tensors", list({w})},
                          {"segments", list({segment(high), segment(low)})}});
  return {network({tree("x"), tree("w")}), {layer}, {high, low}};
}

// The value at a path of keys and numbers, to be changed.
Tree& at(Tree& x, std::initializer_list<const char*> path) {
  Tree* here = &x;
  for (const char* key : path) {
    if (auto* items = std::get_if<Tree::List>(&here->value)) {
      here = &items->at(static_cast<size_t>(std::atoi(key)));
      continue;
    }
    auto& entries = std::get<Tree::Map>(here->value);
    auto found = std::find_if(entries.begin(), entries.end(), [key](const auto& entry) { return entry.first == key; });
    if (found == entries.end()) found = entries.insert(entries.end(), {key, Tree{}});
    here = &found->second;
  }
  return *here;
}

// A copy at the very end of a block of memory, so that a sanitizer sees one byte too many.
Problem read(const std::string& file, int bits, Graph& out, int64_t most = kMostDecoded) {
  const std::vector<uint8_t> copy(file.begin(), file.end());
  return read_file(copy.data(), copy.size(), bits, out, most);
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

void test_sums_are_those_of_their_standards() {
  const auto hex = [](std::string_view text) {
    Sha256 hash;
    for (const char c : text.substr(0, 3)) hash.update({&c, 1});
    if (text.size() > 3) hash.update(text.substr(3));
    std::string out;
    char two[3];
    for (const uint8_t byte : hash.digest()) out += (std::snprintf(two, 3, "%02x", byte), two);
    return out;
  };
  CHECK(crc32("123456789") == 0xcbf43926u && crc32("") == 0);
  CHECK(hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void test_the_example_is_read() {
  for (const int bits : {0, 1, 2, 3, 64}) {
    Graph g;
    CHECK(!read(example().file(), bits, g));
    CHECK(is_example(g, bits == 1 ? 1 : 2));
    CHECK(g.least_bits("w") == 1);
  }
}

void test_every_prefix_is_read_or_says_what_is_missing() {
  const std::string whole = example().file();
  for (size_t size = 0; size < whole.size(); ++size) {
    Graph g;
    const Problem p = read(whole.substr(0, size), 0, g);
    const size_t first = whole.size() - 1, start = whole.size() - 2;
    if (size == first) CHECK(!p && is_example(g, 1));
    else CHECK(p.status == Status::truncated && p.needed == (size < 88 ? 88 : size < start ? start : first));
    if (size >= start) CHECK(read(whole.substr(0, size), 2).needed == whole.size());
  }
  CHECK(read(whole + "!").status == Status::malformed);
}

void test_every_damaged_bit_is_noticed() {
  const std::string whole = example().file();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ 1 << bit);
      CHECK(read(bad).status == (at == 8 || at == 9 ? Status::unsupported : Status::malformed));
      if (!read(bad, 1)) CHECK(at == whole.size() - 1);  // what a narrow reader does not read
    }
  }
}

void test_headers_that_contradict_themselves_are_refused() {
  const auto w = [](Draft& d) -> Tree& { return at(d.layers[0], {"tensors", "0"}); };
  const struct {
    std::function<void(Draft&)> change;
    const char* says;
  } kChanges[] = {
      {[&](Draft& d) { at(w(d), {"shape"}) = list({tree(int64_t{1} << 40), tree(int64_t{1} << 40)}); }, "at most 32 axes"},
      {[&](Draft& d) { at(w(d), {"shape"}) = list({tree(2), tree(int64_t{1} << 39)}); }, "right for 1099511627776 numbers"},
      {[&](Draft& d) { at(w(d), {"shape", "0"}) = tree(9); }, "float32 of shape (9)"},
      {[&](Draft& d) { at(d.layers[0], {"segments", "1", "0"}) = tree(INT64_MAX); }, "a list of lengths and checksums"},
      {[&](Draft& d) { at(d.layers[0], {"segments", "1", "0"}) = tree(int64_t{1} << 62); }, "1 bytes long, as its parts are"},
      {[&](Draft& d) { at(d.layers[0], {"segments", "1", "0"}) = tree(2); }, "1 bytes long, as its parts are"},
      {[&](Draft& d) { at(d.layers[0], {"segments"}) = list({segment("\x0c")}); }, "2 of them"},
      {[&](Draft& d) { at(w(d), {"planes", "1", "0", "0"}) = tree(int64_t{0}); }, "segment of a part"},
      {[&](Draft& d) { at(w(d), {"planes", "1", "0", "1"}) = tree(9); }, "coding of a part"},
      {[&](Draft& d) { at(w(d), {"planes", "1", "0", "2"}) = tree(2); }, "right for 4 numbers"},
      {[&](Draft& d) { at(w(d), {"planes", "1"}) = list(); }, "1 of them, one for each tile"},
      {[&](Draft& d) { at(w(d), {"planes"}) = list(); }, "2 lists of parts"},
      {[&](Draft& d) { at(w(d), {"tile"}) = tree(2); }, "fewer than 2"},
      {[&](Draft& d) { at(w(d), {"tile"}) = tree(int64_t{0}); }, "at least one row"},
      {[&](Draft& d) { at(w(d), {"params", "range", "bytes"}) = tree(Tree::Bytes{0, 0, 0x80, 0x7f, 0, 0, 0, 0x40}); }, "above zero"},
      {[&](Draft& d) { at(w(d), {"params", "range", "bytes"}) = tree(Tree::Bytes{1, 0, 0, 0, 0, 0, 0, 0x40}); }, "not subnormal"},
      {[&](Draft& d) { at(w(d), {"params", "range", "bytes"}) = tree(Tree::Bytes(7)); }, "8 bytes long"},
      {[&](Draft& d) { at(w(d), {"params", "range", "part"}) = part(0, 0, 8); }, "a map with 'bytes', got both"},
      {[&](Draft& d) { at(w(d), {"params", "span"}) = map(); }, "those of its format"},
      {[&](Draft& d) { at(w(d), {"format"}) = tree("nested3"); }, "3 lists of parts"},
      {[&](Draft& d) { at(w(d), {"format"}) = tree("nested02"); }, "one that this version knows"},
      {[&](Draft& d) { at(w(d), {"format"}) = tree("int2"); }, "those of its format"},
      {[&](Draft& d) { at(d.network, {"order"}) = tree(Tree::Bytes{0}); }, "lacks segments of layer 0"},
      {[&](Draft& d) { at(d.network, {"order"}) = tree(Tree::Bytes{0, 0, 0}); }, "more segments of layer 0"},
      {[&](Draft& d) { at(d.network, {"order"}) = tree(Tree::Bytes{0, 1}); }, "not there"},
      {[&](Draft& d) { at(d.network, {"order"}) = tree(Tree::Bytes{0x80, 0, 0}); }, "not there"},
      {[&](Draft& d) { at(d.network, {"policy"}) = tree("random"); }, "layer, plane or importance"},
      {[&](Draft& d) { at(d.network, {"graph", "outputs", "0"}) = tree("z"); }, "never made"},
      {[&](Draft& d) { at(d.network, {"graph", "nodes", "0", "inputs", "1"}) = tree("v"); }, "nothing before it makes"},
      {[&](Draft& d) { at(d.network, {"graph", "nodes", "0", "outputs", "0"}) = tree("x"); }, "made twice"},
      {[&](Draft& d) { at(d.network, {"meta", "min_bits"}) = map({{"w", tree(int64_t{0})}}); }, "bits by weight"},
      {[&](Draft& d) { at(d.network, {"meta", "a"}) = tree(Tree::Bytes{1}); }, "without bytes"},
      {[&](Draft& d) { at(d.network, {"more"}) = tree(1); }, "keys of its kind"},
      {[&](Draft& d) { at(d.layers[0], {"more"}) = tree(1); }, "keys of its kind"},
      {[&](Draft& d) { at(w(d), {"name"}) = tree("x"); }, "names of their own"},
      {[&](Draft& d) { at(d.network, {"order"}) = tree(Tree::Bytes{0, 0, 1, 1}); }, "not there"},
      {[&](Draft& d) {
         d.layers.push_back(d.layers[0]);
         at(d.network, {"order"}) = tree(Tree::Bytes{0, 0, 1, 1});
         d.segments.insert(d.segments.end(), {d.segments[0], d.segments[1]});
       },
       "different from each other"},
      {[&](Draft& d) { d.segments.push_back("!"); }, "bytes, as its headers say"},
      {[&](Draft& d) { at(d.layers[0], {"tensors"}) = Tree{}; }, "a list of maps"},
  };
  for (const auto& [change, says] : kChanges) {
    Draft draft = example();
    change(draft);
    const Problem p = read(draft.file());
    if (p.status == Status::malformed && p.message.find(says) != std::string::npos) continue;
    std::printf("'%s' does not say '%s'\n", p.message.c_str(), says);
    std::exit(1);
  }
}

void test_what_an_entry_lacks_is_taken_from_all() {
  Draft draft = example();
  Tree& w = at(draft.layers[0], {"tensors", "0"});
  Tree& global = at(draft.network, {"global"});
  for (const char* key : {"format", "axes", "params"}) {
    at(global, {key}) = at(w, {key});
    std::erase_if(std::get<Tree::Map>(w.value), [key](const auto& entry) { return entry.first == key; });
    Graph g;
    CHECK(!read(draft.file(), 0, g) && is_example(g, 2));
  }
  at(global, {"params"}) = map();
  CHECK(read(draft.file()).status == Status::malformed);
  draft = example();
  at(draft.network, {"global"}) = map({{"format", tree("int4")}, {"axes", list()}, {"params", map({{"scale", map()}})}});
  CHECK(!read(draft.file()));  // its own wins, and what it does not need is not looked at
  at(draft.network, {"global", "shape"}) = list();
  CHECK(read(draft.file()).status == Status::malformed);
}

void test_newer_files_are_read_as_far_as_they_are_understood() {
  Draft draft = example();
  for (Tree* x : {&draft.network, &draft.layers[0], &at(draft.layers[0], {"tensors", "0"})}) at(*x, {"more"}) = tree(1);
  at(draft.network, {"policy"}) = tree("random");
  Graph g;
  CHECK(!read(draft.file(1), 0, g) && is_example(g, 2));
  CHECK(read(draft.file()).status == Status::malformed);
  CHECK(!read(example().file(0, 1u << 16)));
  CHECK(read(example().file(0, 2)).status == Status::unsupported);
  const Problem p = read(example().file(0, 1));
  CHECK(p.status == Status::unsupported && p.message.find("delta") != std::string::npos);
  draft = example();
  at(draft.network, {"graph", "nodes", "0", "op"}) = tree("os.system");
  CHECK(read(draft.file()).status == Status::unsupported);
}

// A linear layer of three rows of an int4 weight and biases for widths of a nested3 weight, in tiles of two rows.
Draft tiles() {
  Draft d = example();
  Tree& w = at(d.layers[0], {"tensors", "0"});
  at(w, {"format"}) = tree("nested3");
  at(w, {"shape"}) = list({tree(3), tree(3)});
  at(w, {"params", "range", "shape", "0"}) = tree(3);
  at(w, {"params", "range", "bytes"}) = tree(Tree::Bytes{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0, 0x40});
  at(w, {"tile"}) = tree(2);
  Tree planes = list();
  for (int64_t s : {0, 1, 2}) std::get<Tree::List>(planes.value).push_back(list({part(s, 0, 1), part(s, 0, 1)}));
  at(w, {"planes"}) = planes;
  const auto version = [](uint8_t x) { return map({{"bytes", tree(Tree::Bytes{x, 0})}}); };
  const Tree b = map({{"name", tree("b")},
                      {"kind", tree("widths")},
                      {"of", tree("w")},
                      {"bits", list({tree(1), tree(3)})},
                      {"dtype", tree("int16")},
                      {"shape", list()},
                      {"versions", list({version(1), version(3)})}});
  std::get<Tree::List>(at(d.layers[0], {"tensors"}).value).push_back(b);
  d.segments = {"*\5", "", ""};
  d.segments[1] = std::string("?\0", 2);
  d.segments[2] = std::string("\0\7", 2);
  Tree segments = list();
  for (const std::string& s : d.segments) std::get<Tree::List>(segments.value).push_back(segment(s));
  at(d.layers[0], {"segments"}) = segments;
  at(d.network, {"order"}) = tree(Tree::Bytes{0, 0, 0});
  at(d.network, {"graph", "nodes", "0", "inputs"}) = list({tree("x"), tree("w"), tree("b")});
  return d;
}

void test_tiles_and_versions_come_with_their_planes() {
  const std::string whole = tiles().file();
  for (int bits = 1; bits <= 3; ++bits) {
    Graph asked, cut;
    CHECK(!read(whole, bits, asked));
    CHECK(!read(whole.substr(0, whole.size() - 6 + 2 * static_cast<size_t>(bits)), 0, cut));
    for (const Graph* g : {&asked, &cut}) {
      const int high[] = {0, 1, 0, 1, 0, 1, 1, 0, 1};
      const Codes* w = g->constant<Codes>("w");
      CHECK(w && w->encoding.format.bits == bits);
      for (int64_t i = 0; i < 9; ++i) {
        const int code = high[i] << 2 | (i < 6 ? 2 : 0) | (i >= 6 ? 1 : 0);
        CHECK(w->code(i) == code >> (3 - bits));
      }
      const PerWidth* b = g->constant<PerWidth>("b");
      CHECK(b && b->versions.as<int16_t>()[b->row(bits)] == (bits == 1 ? 1 : 3));
      CHECK(b->bits.size() == 2);  // they are in the header
    }
  }
}

void test_what_would_not_fit_is_refused_before_it_is_made() {
  Graph g;
  CHECK(!read(example().file(), 0, g, 12));  // four codes and two ranges
  const Problem p = read(example().file(), 0, g, 11);
  CHECK(p.status == Status::malformed && p.message.find("at most 11") != std::string::npos);
}

bool spells(const std::string& text, Tree& out, Strings strings = {"a", "b"}) {
  std::string why;
  Cursor in(text);
  return read_tree(in, strings, out, why);
}

void test_trees_have_one_spelling() {
  Tree t;
  const auto nested = [](size_t levels) {
    std::string out;
    while (levels--) out += "\6\1";
    return out + "\2";
  };
  CHECK(spells(std::string("\0", 1), t) && t.is_null());
  CHECK(spells("\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", t) && *t.whole() == INT64_MIN);
  CHECK(spells("\3\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1", t) && *t.whole() == INT64_MAX);
  CHECK(spells(std::string("\4\0\0\0\0\0\0\xf8\177", 9), t) && *t.real() != *t.real());
  CHECK(spells(std::string("\4\0\0\0\0\0\0\xf0\xff", 9), t) && *t.real() < -1e308);
  CHECK(spells("\5\1", t) && *t.text() == "b");
  CHECK(spells(std::string("\7\2\0\1\1\2", 6), t) && *t.find("b")->flag());
  CHECK(spells("\10\2ab", t) && *t.bytes() == (Tree::Bytes{'a', 'b'}));
  CHECK(spells(nested(31), t) && !spells(nested(32), t) && !spells(nested(100000), t));
  for (const std::string& bad : {std::string(), std::string("\11", 1), std::string("\3\x80\0", 3), std::string("\3"),
                                 std::string("\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\2"), std::string("\3\x80"),
                                 std::string("\4\1\0\0\0\0\0\xf8\177", 9), std::string("\4\0\0", 3), std::string("\5\2"),
                                 std::string("\6\2\1"), std::string("\6\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\1"),
                                 std::string("\7\1\0", 3), std::string("\7\2\1\1\1\1"), std::string("\7\2\1\1\0\1", 6),
                                 std::string("\10\3ab"), std::string("\1\1")}) {
    CHECK(!spells(bad, t));
  }
}

bool spells_strings(const std::string& text, Strings& out) {
  std::string why;
  Cursor in(text);
  return read_strings(in, text.size(), out, why) && in.left() == 0;
}

void test_strings_rise_and_share_all_they_can() {
  Strings s;
  CHECK(spells_strings(std::string("\0", 1), s) && s.empty());
  CHECK(spells_strings(std::string("\3\0\0\0\2ab\2\1c", 10), s) && s == (Strings{"", "ab", "abc"}));
  CHECK(spells_strings(std::string("\2\0\2\xc3\xa9\1\1\xaa", 8), s) && s[1] == "\xc3\xaa");
  for (const std::string& bad : {std::string(), std::string("\1"), std::string("\2\0\1a", 4), std::string("\1\1\1a"),
                                 std::string("\2\0\1a\0\1a", 7), std::string("\2\0\2ab\1\1a", 8), std::string("\2\0\2ab\0\2ac", 9),
                                 std::string("\2\0\2ab\3\1c", 8), std::string("\2\0\2ab\2\0", 7), std::string("\2\0\1b\0\1a", 7),
                                 std::string("\1\0\1\xff", 4), std::string("\1\0\2\xc0\x80", 5), std::string("\1\0\1\xc3", 4),
                                 std::string("\1\0\3\xed\xa0\x80", 6), std::string("\1\0\4\xf4\x90\x80\x80", 7),
                                 std::string("\1\0\3\xe0\x9f\xbf", 6), std::string("\1\0\4\xf0\x8f\xbf\xbf", 7)}) {
    CHECK(!spells_strings(bad, s));
  }
}

void test_small_headers_make_no_large_memory() {
  Strings s;
  std::string text;  // a million strings of which each shares 65,535 bytes
  put_varint(text, 1 << 20);
  for (int i = 0; i < 1 << 20; ++i) {
    put_varint(text, i ? 65535 : 0);
    put_varint(text, i ? 1 : 65535);
    text += i ? std::string(1, static_cast<char>(i)) : std::string(65535, 'a');
  }
  CHECK(!spells_strings(text, s));
  Tree t;  // a long text that comes again and again, then many values
  text = "\6";
  put_varint(text, 1 << 19);
  for (int i = 0; i < 1 << 19; ++i) text += std::string("\5\0", 2);
  CHECK(spells(text, t) && !spells(text, t, {std::string(65536, 'a')}));
  text = "\6";
  put_varint(text, 1 << 20);
  text += std::string(1 << 20, '\0');
  CHECK(!spells(text, t));
}

void test_formats_have_one_text() {
  Format f;
  for (const char* good : {"int8", "uint16/tensor", "int4/64", "fixed24", "ufixed1/tensor", "q2.5", "uq8.0", "q-3.10", "q10.-3",
                           "ternary/tensor", "nested8", "nested1:tree", "nested2:sign/tensor", "codebook4", "codebook1/tensor",
                           "codebook4:9", "codebook3:7:squares/tensor", "codebook8:squares", "log2", "ulog5:8/tensor",
                           "product2x2", "product32x65536/tensor"}) {
    CHECK(parse_format(good, f));
  }
  for (const char* bad : {"", "float", "int", "int1", "int17", "int08", "int8/0", "int8/064", "int4/-1", "int4/9999999999",
                          "fixed1", "fixed25", "fixed8/64", "q2", "q-0.5", "q2.-0", "uq0.0", "q200.-190", "nested9",
                          "nested1:sign", "nested8:midrise", "nested8:tree/64", "ternary/2", "int8 ", " int8",
                          "int8/tensor/tensor", "codebook0", "codebook9", "codebook4:8", "codebook4:16", "codebook4:",
                          "codebook4:squares:9", "codebook4/64", "ucodebook4", "log1", "log6", "log4:1", "log4:3", "log4:",
                          "log4/64", "product8", "product1x4", "product33x4", "product8x1", "product8x65537", "product8x256/64", "product08x256"}) {
    if (parse_format(bad, f)) std::printf("accepted %s\n", bad);
    CHECK(!parse_format(bad, f));
  }
}

}  // namespace

int main() {
  test_sums_are_those_of_their_standards();
  test_the_example_is_read();
  test_every_prefix_is_read_or_says_what_is_missing();
  test_every_damaged_bit_is_noticed();
  test_headers_that_contradict_themselves_are_refused();
  test_what_an_entry_lacks_is_taken_from_all();
  test_newer_files_are_read_as_far_as_they_are_understood();
  test_tiles_and_versions_come_with_their_planes();
  test_what_would_not_fit_is_refused_before_it_is_made();
  test_trees_have_one_spelling();
  test_strings_rise_and_share_all_they_can();
  test_small_headers_make_no_large_memory();
  test_formats_have_one_text();
}
