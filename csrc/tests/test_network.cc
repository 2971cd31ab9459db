// A small network of convolutions, a sum, a pool and a classifier: the same bytes from every thread, batch, instruction set
// and order of widths, without allocating once it is warm, and a reference by literal loops.

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <thread>

#include "kernels.h"
#include "run/network.h"
#include "check.h"

static std::atomic<int64_t> allocations{0};
static thread_local bool counting = false;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they have their own
[[gnu::noinline]] void* operator new(size_t size) {
  if (counting) ++allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

using namespace bl;

namespace {

Array floats(const Shape& shape, std::mt19937& rng, float low, float high) {
  Array out{Type::f32, shape, {}};
  out.bytes.resize(static_cast<size_t>(elements(shape)) * 4);
  std::uniform_real_distribution<float> draw(low, high);
  for (int64_t i = 0; i < elements(shape); ++i) reinterpret_cast<float*>(out.bytes.data())[i] = draw(rng);
  return out;
}

Array scalar(float value) {
  Array out{Type::f32, {}, std::vector<uint8_t>(4)};
  std::memcpy(out.bytes.data(), &value, 4);
  return out;
}

Codes nested(const Shape& shape, std::mt19937& rng) {
  Codes out;
  out.encoding.format.kind = Format::midrise;
  out.encoding.format.bits = 8;
  out.encoding.axes = {0};
  out.encoding.params["range"] = floats({shape[0]}, rng, 0.5f, 1.5f);
  out.shape = shape;
  out.bytes.resize(static_cast<size_t>(elements(shape)));
  for (auto& code : out.bytes) code = static_cast<uint8_t>(rng());
  return out;
}

Encoding activation(float step, float zero) {
  Encoding out;
  out.format.kind = Format::integer;
  out.format.bits = 8;
  out.format.is_unsigned = true;
  out.format.per_tensor = true;
  out.params["scale"] = scalar(step);
  out.params["zero_point"] = scalar(zero);
  return out;
}

Node node(const char* op, std::vector<std::string> inputs, const char* output) {
  Node out;
  out.op = op;
  out.inputs = std::move(inputs);
  out.outputs = {output};
  return out;
}

Tree pads() {
  const auto pair = [] {
    Tree one;
    one.value = int64_t{1};
    Tree both;
    both.value = Tree::List{one, one};
    return both;
  };
  Tree axes;
  axes.value = Tree::List{pair(), pair()};
  Tree::Map map;
  map.push_back({"pads", axes});
  Tree out;
  out.value = std::move(map);
  return out;
}

Graph make() {
  std::mt19937 rng(7);
  Graph g;
  Input x;
  x.name = "x";
  x.shape = {-1, 3, 12, 11};
  x.free_axes = {"n", "", "", ""};
  g.inputs = {x};
  g.constants["w1"] = nested({20, 3, 3, 3}, rng);
  g.constants["w2"] = nested({20, 20, 3, 3}, rng);
  g.constants["w3"] = nested({10, 20}, rng);
  g.constants["b1"] = floats({20}, rng, -1, 1);
  g.nodes = {node("conv", {"x", "w1", "b1"}, "a"), node("conv", {"a", "w2"}, "b"), node("add", {"b", "a"}, "c"),
             node("global_avg_pool", {"c"}, "d"), node("flatten", {"d"}, "e"), node("linear", {"e", "w3"}, "y")};
  g.nodes[0].attrs = g.nodes[1].attrs = pads();
  g.nodes[0].clipped = true;
  g.nodes[0].low = 0.0;
  for (const char* name : {"a", "b", "c", "d", "e"}) g.encodings[name] = activation(0.02f, name[0] == 'b' ? 120.0f : 3.0f);
  g.encodings["x"] = activation(0.01f, 128.0f);
  g.outputs = {"y"};
  return g;
}

std::shared_ptr<Network> opened(int threads, const Kernels* kernels = nullptr) {
  std::shared_ptr<Network> out;
  Options options;
  options.threads = threads;
  options.kernels = kernels;
  const Problem problem = open_network(make(), options, out);
  if (problem) std::printf("%s\n", problem.message.c_str());
  CHECK(!problem);
  return out;
}

std::shared_ptr<Rung> at(Network& network, int bits) {
  std::shared_ptr<Rung> out;
  CHECK(!network.at({bits, {}}, out));
  return out;
}

constexpr int64_t pixels = 3 * 12 * 11;

std::vector<float> run(Rung& rung, const std::vector<float>& x) {
  const int64_t batch = static_cast<int64_t>(x.size()) / pixels;
  std::vector<float> y(static_cast<size_t>(batch * 10));
  const std::vector<Tensor> in{{Type::f32, {batch, 3, 12, 11}, const_cast<float*>(x.data())}};
  const std::vector<Tensor> out{{Type::f32, {batch, 10}, y.data()}};
  CHECK(!rung.run(in, out, nullptr));
  return y;
}

std::vector<float> sample(uint32_t seed, int batch = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> draw(0.0f, 0.7f);
  std::vector<float> out(static_cast<size_t>(batch * pixels));
  for (float& v : out) v = draw(rng);
  return out;
}

constexpr int samples = 16;

// What every configuration has to give: from the slow instruction set, one thread, one sample at a time.
std::vector<std::vector<float>> expected(int bits) {
  auto network = opened(1, kernels_named("scalar"));
  auto rung = at(*network, bits);
  std::vector<std::vector<float>> out;
  for (int i = 0; i < samples; ++i) out.push_back(run(*rung, sample(static_cast<uint32_t>(i))));
  return out;
}

void every_configuration_agrees() {
  for (const int bits : {1, 2, 4, 8}) {
    const auto want = expected(bits);
    CHECK(want[0] != want[1]);
    for (const Kernels* const* k = available_kernels(); *k != nullptr; ++k)
      for (const int threads : {1, 2, 3, 8}) {
        auto network = opened(threads, *k);
        auto rung = at(*network, bits);
        for (const int batch : {1, 2, 7}) {
          std::vector<float> x, w;
          for (int i = 0; i < batch; ++i) {
            const auto one = sample(static_cast<uint32_t>(i));
            x.insert(x.end(), one.begin(), one.end());
            w.insert(w.end(), want[static_cast<size_t>(i)].begin(), want[static_cast<size_t>(i)].end());
          }
          CHECK(run(*rung, x) == w);
        }
      }
  }
}

void many_threads_share_a_network(int runs) {
  auto network = opened(2);
  const int widths[4] = {8, 4, 2, 8};
  std::vector<std::shared_ptr<Rung>> rungs;
  std::vector<std::vector<std::vector<float>>> want;
  for (const int bits : widths) {
    rungs.push_back(at(*network, bits));
    want.push_back(expected(bits));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < runs; ++i) {
        const size_t s = static_cast<size_t>((i * 7 + t) % samples), w = static_cast<size_t>((i + t) % 4);
        if (run(*rungs[w], sample(static_cast<uint32_t>(s))) != want[w][s]) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
}

void nothing_is_allocated_once_warm() {
  auto network = opened(2);
  auto rung = at(*network, 4);
  const auto x = sample(1);
  std::vector<float> y(10);
  const std::vector<Tensor> in{{Type::f32, {1, 3, 12, 11}, const_cast<float*>(x.data())}};
  const std::vector<Tensor> out{{Type::f32, {1, 10}, y.data()}};
  CHECK(!rung->run(in, out, nullptr));
  counting = true;
  for (int i = 0; i < 100; ++i) rung->run(in, out, nullptr);
  counting = false;
  CHECK(allocations == 0);
}

void widths_share_the_weights() {
  auto network = opened(1);
  const int64_t before = network->weight_bytes();
  std::vector<std::shared_ptr<Rung>> held;
  for (int bits = 1; bits <= 8; ++bits) held.push_back(at(*network, bits));
  CHECK(network->weight_bytes() == before);
}

void odd_batches_run_or_are_refused() {
  auto network = opened(1);
  auto rung = at(*network, 8);
  CHECK(run(*rung, {}).empty());  // batch 0
  std::vector<Tensor> outputs;
  CHECK(rung->prepare({{1, 3, 12}}, outputs).status == Status::wrong_input);
  CHECK(rung->prepare({{1, 3, 12, 12}}, outputs).status == Status::wrong_input);
  CHECK(rung->prepare({}, outputs).status == Status::wrong_input);
}

}  // namespace

int main(int count, char** values) {
  every_configuration_agrees();
  many_threads_share_a_network(count > 1 ? std::atoi(values[1]) : 300);
  nothing_is_allocated_once_warm();
  widths_share_the_weights();
  odd_batches_run_or_are_refused();
  std::puts("the network is the same whoever asks");
  return 0;
}
