// Whatever bytes come in, the reader gives a graph that holds together or a problem, and a small network that it gives can be
// opened and run. Inputs are files. The mutator takes a file apart, changes its trees, texts, segments or flags, and puts it
// together again with lengths and checksums that are right, so that what is behind them is reached; or it changes bytes.
#include "file/file.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "file/checked.h"
#include "file/container.h"
#include "layers/layer.h"
#include "lower/lower.h"
#include "run/network.h"
#include "tests/write_file.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// An input makes thousands of small allocations: long stacks of each, and memory that comes back late, take most of the time.
extern "C" const char* __asan_default_options() {
  return "malloc_context_size=1:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:max_malloc_fill_size=64";
}

namespace {

using namespace bl;

constexpr int64_t kMostBytes = 1 << 20, kMostWork = 1 << 14;

// What became of the inputs, told at the end: fuzzing that reaches nothing shows.
struct Tally {
  uint64_t inputs = 0, read = 0, little = 0, ran = 0;
  ~Tally() {
    if (inputs < 2) return;
    std::fprintf(stderr, "%" PRIu64 " inputs: %" PRIu64 " read, %" PRIu64 " of them little, %" PRIu64 " of these run\n", inputs,
                 read, little, ran);
  }
} tally;

void expect(bool holds) {
  if (!holds) std::abort();
}

size_t bytes_of(const Array& a) { return static_cast<size_t>(elements(a.shape)) * size_of(a.type); }

void check(const Graph& graph) {
  for (const auto& [name, c] : graph.constants) {
    if (const auto* a = std::get_if<Array>(&c)) expect(a->bytes.size() == bytes_of(*a));
    if (const auto* p = std::get_if<PerWidth>(&c)) {
      expect(p->versions.bytes.size() == bytes_of(p->versions) && graph.constant<Codes>(p->of));
      expect(p->versions.shape[0] == static_cast<int64_t>(p->bits.size()) && !p->bits.empty());
      for (const int b : {1, 4, 99}) expect(p->row(b) >= 0 && p->row(b) < p->versions.shape[0]);
    }
    const auto* q = std::get_if<Codes>(&c);
    if (!q) continue;
    const Format& format = q->encoding.format;
    const int64_t count = elements(q->shape);
    expect(q->bytes.size() == static_cast<size_t>(count * q->width));
    for (int64_t i = 0; i < count; ++i) expect(format.low() <= q->code(i) && q->code(i) <= format.high());
    if (format.nested()) expect(format.bits >= graph.least_bits(name));
  }
}

// --------------------------------------------------------------------------------------------------------- one inference

// The shapes of inputs with 2 for every free size; false if they or the network are not small.
bool small_shapes(const Graph& graph, std::vector<Shape>& out) {
  for (const Input& input : graph.inputs) {
    int64_t count = 1;
    if (input.any_shape) return false;
    out.push_back(input.shape);
    for (int64_t& n : out.back()) {
      if (n < 0) n = 2;
      if (!checked_mul(count, n, count) || count > kMostWork) return false;
    }
  }
  return true;
}

// Whether a run takes little memory and few multiplications, as far as the steps say.
bool is_little(const Graph& graph, const Options& options, const std::vector<Shape>& shapes) {
  std::vector<Layer> layers;
  std::vector<std::pair<std::string, std::string>> without;
  if (!without_kernel(graph).empty()) return false;
  find_layers(graph, layers, without);
  Lowering lowering(graph, layers, options);
  if (lowering.all(shapes)) return false;
  int64_t work = 0;
  for (const Value& v : lowering.values_) {
    if (!checked_add(work, v.image ? image_of(v).elements : v.count(), work)) return false;
  }
  for (const Step& step : lowering.steps_) {
    if (!checked_add(work, step.macs, work)) return false;
  }
  return work <= kMostWork;
}

void run_once(Graph graph) {
  Options options;
  std::vector<Shape> shapes;
  std::shared_ptr<Network> network;
  std::shared_ptr<Rung> rung;
  if (!small_shapes(graph, shapes)) return;
  options.kernels = nullptr;
  if (!is_little(graph, options, shapes)) return;
  ++tally.little;
  if (open_network(std::move(graph), options, network)) return;
  std::vector<Tensor> in, out;
  if (network->at({}, rung) || rung->prepare(shapes, out)) return;
  std::vector<std::vector<uint8_t>> memory;
  const auto filled = [&memory](Tensor& t, uint8_t with) {
    memory.emplace_back(static_cast<size_t>(elements(t.shape)) * size_of(t.type), with);
    t.data = memory.back().data();
  };
  for (size_t i = 0; i < shapes.size(); ++i) in.push_back({network->graph().inputs[i].type, shapes[i], nullptr});
  for (Tensor& t : in) filled(t, 1);
  for (Tensor& t : out) filled(t, 0);
  if (!rung->run(in, out, nullptr)) ++tally.ran;
}

// ------------------------------------------------------------------------------------------------------------- mutations

using Random = std::minstd_rand;

size_t below(Random& random, size_t count) { return count ? random() % count : 0; }

void mutate_bytes(std::string& bytes) {
  const size_t size = bytes.size(), room = size + 64;
  bytes.resize(room);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), size, room));
}

void collect_places(Tree& x, std::vector<Tree*>& out) {
  out.push_back(&x);
  if (auto* items = std::get_if<Tree::List>(&x.value)) {
    for (Tree& item : *items) collect_places(item, out);
  }
  if (auto* entries = std::get_if<Tree::Map>(&x.value)) {
    for (auto& entry : *entries) collect_places(entry.second, out);
  }
}

const int64_t kWholes[] = {0,  1,  2,  3,    8,    31,         32,         33,         64,        255,
                           -1, -2, 65, 1000, 65536, 1ll << 25, 1ll << 31, 1ll << 40, 1ll << 62, INT64_MAX};
const char* const kWords[] = {
    "", "x", "y", "w1", "nested8", "nested3:sign", "nested4:tree", "int4/2", "ternary", "ufixed8", "float32", "int8", "int64",
    "bool", "array", "codes", "widths", "scale", "range", "axis", "axes", "strides", "pads", "dilations", "groups", "perm",
    "keepdims", "auto_pad", "SAME_UPPER", "mode", "reflect", "cubic", "linear", "conv", "conv_transpose", "matmul", "relu",
    "sigmoid", "add", "mul", "div", "where", "softmax", "layer_norm", "max_pool", "avg_pool", "global_avg_pool", "resize", "pad",
    "reshape", "transpose", "concat", "split", "slice", "gather", "expand", "squeeze", "shape", "reduce_mean", "reduce_sum",
    "cum_sum", "arg_max", "embedding", "lstm", "cast", "clip", "depth_to_space"};

// Puts something else in a place, of whatever kind.
void replace_value(Tree& x, Random& random, const std::vector<Tree*>& others) {
  switch (below(random, 5)) {
    case 0: x.value = kWholes[below(random, std::size(kWholes))]; return;
    case 1: x.value = std::string(kWords[below(random, std::size(kWords))]); return;
    case 2: x.value = random() % 3 ? Tree::List{} : Tree::List{Tree{int64_t{1}}, Tree{int64_t{2}}}; return;
    case 3: x.value = static_cast<double>(static_cast<int64_t>(random())) / 1e6 - 500; return;
    default: {
      Tree copy = *others[below(random, others.size())];
      x = std::move(copy);
    }
  }
}

void mutate_list(Tree::List& items, Random& random) {
  if (items.empty()) return items.push_back(Tree{int64_t{1}});
  const auto any = [&] { return items.begin() + static_cast<ptrdiff_t>(below(random, items.size())); };
  switch (below(random, 3)) {
    case 0: items.erase(any()); return;
    case 1: std::iter_swap(any(), any()); return;
    default: {
      Tree copy = *any();
      items.insert(any(), std::move(copy));
    }
  }
}

// Takes an entry away, or gives one another key if no entry has it.
void mutate_map(Tree::Map& entries, Random& random) {
  if (entries.empty()) return entries.push_back({kWords[below(random, std::size(kWords))], Tree{int64_t{1}}});
  const auto at = entries.begin() + static_cast<ptrdiff_t>(below(random, entries.size()));
  const std::string key = kWords[below(random, std::size(kWords))];
  const bool taken = std::any_of(entries.begin(), entries.end(), [&](const Tree::Entry& e) { return e.first == key; });
  if (random() % 2 || taken) entries.erase(at);
  else at->first = key;
}

// Changes a value, mostly into another of its kind, which is what gets far.
void mutate_value(Tree& x, Random& random, const std::vector<Tree*>& others) {
  if (below(random, 8) == 0) return replace_value(x, random, others);
  if (const int64_t* whole = x.whole()) {
    const bool near = random() % 2;
    x.value = near ? static_cast<int64_t>(static_cast<uint64_t>(*whole) + below(random, 5) - 2)
                   : kWholes[below(random, std::size(kWholes))];
  } else if (auto* text = std::get_if<std::string>(&x.value)) {
    const std::string* other = others[below(random, others.size())]->text();
    if (random() % 8 == 0) mutate_bytes(*text);
    else *text = other ? *other : kWords[below(random, std::size(kWords))];
  } else if (auto* bytes = std::get_if<Tree::Bytes>(&x.value)) {
    std::string changed(bytes->begin(), bytes->end());
    if (random() % 2 && !changed.empty()) changed[below(random, changed.size())] = static_cast<char>(random() >> 8);
    else mutate_bytes(changed);
    bytes->assign(changed.begin(), changed.end());
  } else if (auto* items = std::get_if<Tree::List>(&x.value)) {
    mutate_list(*items, random);
  } else if (auto* entries = std::get_if<Tree::Map>(&x.value)) {
    mutate_map(*entries, random);
  } else {
    replace_value(x, random, others);
  }
}

// A file apart: its texts as trees where they are some.
struct Apart {
  Pieces pieces;
  Tree network;
  std::vector<Tree> layers;
  bool trees = false;  // whether all texts are trees
};

bool take_apart(std::string_view data, Apart& out) {
  Container file;
  if (open_container(data, file)) return false;
  out.pieces.minor = file.newer;
  out.pieces.network = file.text;
  std::string why;
  Strings strings;
  Cursor in(file.text);
  out.trees = read_strings(in, file.text.size(), strings, why) && read_tree(in, strings, out.network, why);
  for (size_t i = 0; i < file.records.size(); ++i) {
    if (read_record(file, i, out.pieces.layers.emplace_back())) return false;
    Cursor layer(out.pieces.layers.back());
    out.trees = out.trees && read_tree(layer, strings, out.layers.emplace_back(), why);
  }
  out.pieces.segments = data.substr(static_cast<size_t>(file.start));
  return true;
}

// Sets the checksums of segments to what they are, as far as the trees make sense.
void repair(Apart& file) {
  std::vector<size_t> next(file.layers.size());
  const Tree* order = file.network.find("order");
  if (!order || !order->bytes()) return;
  std::string_view rest = file.pieces.segments;
  for (const uint8_t layer : *order->bytes()) {
    const Tree* rows = layer < file.layers.size() ? file.layers[layer].find("segments") : nullptr;
    if (!rows || !rows->list() || next[layer] >= rows->list()->size()) return;
    Tree row = (*rows->list())[next[layer]];
    auto* cells = std::get_if<Tree::List>(&row.value);
    if (!cells || cells->size() != 2 || !(*cells)[0].whole()) return;
    const auto length = static_cast<size_t>(std::max<int64_t>(*(*cells)[0].whole(), 0));
    (*cells)[1].value = int64_t{crc32(rest.substr(0, length))};
    rest.remove_prefix(std::min(rest.size(), length));
    std::get<Tree::List>(const_cast<Tree*>(rows)->value)[next[layer]++] = row;
  }
}

// Trees with one or two changes, more of them in the nodes than elsewhere.
void mutate_trees(Apart& file, Random& random) {
  for (size_t times = 1 + below(random, 6) / 4; times > 0; --times) {
    std::vector<Tree*> places;
    const size_t where = below(random, 4);
    auto* graph = where < 2 ? const_cast<Tree*>(file.network.find("graph")) : nullptr;
    if (graph) collect_places(*graph, places);
    else if (file.layers.empty() || where == 2) collect_places(file.network, places);
    else collect_places(file.layers[below(random, file.layers.size())], places);
    mutate_value(*places[below(random, places.size())], random, places);
  }
}

void mutate(Apart& file, Random& random) {
  const size_t kind = below(random, file.trees ? 16 : 2);
  if (kind == 0) mutate_bytes(file.layers.empty() || random() % 2 ? file.pieces.network
                                                                   : file.pieces.layers[below(random, file.pieces.layers.size())]);
  if (kind == 1) file.pieces.flags = random() % 2 ? uint32_t{1} << below(random, 32) : 0;
  if (kind < 2) return;
  if (kind < 4) mutate_bytes(file.pieces.segments);
  else mutate_trees(file, random);
  repair(file);
  write_trees(file.network, file.layers, file.pieces);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed + 1);
  Apart file;
  if (random() % 32 == 0 || !take_apart({reinterpret_cast<const char*>(data), size}, file)) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  mutate(file, random);
  const std::string out = file_of(file.pieces);
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<uint8_t> copy(data, data + size);  // of just this size, so that reads past its end are seen
  Graph graph;
  ++tally.inputs;
  for (const int bits : {3, 0}) {
    if (bits && size && data[size - 1] % 8) continue;  // some inputs are also read in few bits
    const Problem problem = read_file(copy.data(), copy.size(), bits, graph, kMostBytes);
    if (!problem) check(graph);
    if (problem.status == Status::truncated) expect(problem.needed > copy.size());
    if (problem) expect(!problem.message.empty() && problem.message.find('\n') == std::string::npos);
    if (problem || bits) continue;
    ++tally.read;
    run_once(std::move(graph));
  }
  return 0;
}
