// The C face: every wrong call gets a status and one line, and closing is safe while others run. The network is a stub.
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "border/bitladder.h"
#include "check.h"

namespace {

bl_network* opened(const char* text) {
  bl_network* net = nullptr;
  CHECK(bl_open(text, std::strlen(text), nullptr, &net) == bl_ok && net && !*bl_error());
  return net;
}

bl_status opening(const char* text) {
  bl_network* net = nullptr;
  const bl_status status = bl_open(text, std::strlen(text), nullptr, &net);
  CHECK(!net && *bl_error() && !std::strchr(bl_error(), '\n'));
  return status;
}

bl_status run(bl_network* net, const std::vector<float>& x, std::vector<float>& y) {
  const void* in = x.data();
  void* out = y.data();
  const size_t in_bytes = x.size() * 4, out_bytes = y.size() * 4;
  return bl_run(net, &in, &in_bytes, 1, &out, &out_bytes, 1);
}

void opens_or_says_why() {
  CHECK(opening("what") == bl_malformed);
  CHECK(opening("cut") == bl_truncated && std::strstr(bl_error(), "100 bytes"));
  CHECK(opening("odd") == bl_unsupported);
  CHECK(opening("huge") == bl_no_memory);
  bl_network* net;
  CHECK(bl_open(nullptr, 3, nullptr, &net) == bl_wrong_input);
  CHECK(bl_open("net", 3, nullptr, nullptr) == bl_wrong_input);
  const bl_options strange = {1, 1, "sparc"}, many = {1 << 20, 1, nullptr};
  CHECK(bl_open("net", 3, &strange, &net) == bl_wrong_input && std::strstr(bl_error(), "scalar"));
  CHECK(bl_open("net", 3, &many, &net) == bl_wrong_input);
  CHECK(bl_open_file("/no/such/file", nullptr, &net) == bl_unreadable && std::strstr(bl_error(), "/no/such/file"));
  CHECK(bl_open_file("/", nullptr, &net) == bl_unreadable);
  CHECK(bl_open_file(nullptr, nullptr, &net) == bl_wrong_input);
}

void runs_at_a_width() {
  bl_network* net = opened("net");
  bl_value value;
  int count = 0;
  CHECK(bl_inputs(net, &value, 1, &count) == bl_ok && count == 1 && !std::strcmp(value.name, "x"));
  CHECK(value.type == bl_float32 && value.rank == 2 && value.shape[0] == -1 && value.shape[1] == 3 && value.bytes == 0);
  CHECK(bl_outputs(net, &value, 1, &count) == bl_wrong_input);
  std::vector<float> x{1, 2, 3}, y(3);
  CHECK(run(net, x, y) == bl_wrong_input && std::strstr(bl_error(), "bl_prepare"));
  CHECK(bl_prepare(net, nullptr, 0) == bl_ok && run(net, x, y) == bl_ok && (y == std::vector<float>{8, 16, 24}));
  CHECK(bl_set_bits(net, 2) == bl_ok && run(net, x, y) == bl_ok && (y == std::vector<float>{2, 4, 6}));
  CHECK(bl_set_width_of(net, "w", 3) == bl_ok && run(net, x, y) == bl_ok && (y == std::vector<float>{3, 6, 9}));
  CHECK(bl_set_width_of(net, "v", 3) == bl_wrong_input && bl_set_bits(net, 99) == bl_wrong_input);
  CHECK(run(net, x, y) == bl_ok && (y == std::vector<float>{3, 6, 9}));  // a width that failed changed nothing
  const bl_shape two = {2, {2, 3}}, wide = {2, {2, 4}}, flat = {1, {6}}, endless = {2, {PTRDIFF_MAX, 3}}, odd = {99, {0}};
  CHECK(bl_prepare(net, &two, 1) == bl_ok && bl_outputs(net, &value, 1, &count) == bl_ok && value.bytes == 24);
  CHECK(bl_inputs(net, &value, 1, &count) == bl_ok && value.shape[0] == 2);
  for (const bl_shape* wrong : {&wide, &flat, &endless, &odd}) CHECK(bl_prepare(net, wrong, 1) == bl_wrong_input);
  CHECK(bl_prepare(net, nullptr, 1) == bl_wrong_input);
  CHECK(run(net, x, y) == bl_wrong_input && std::strstr(bl_error(), "24 bytes, got 12"));
  x.resize(6), y.resize(6);
  CHECK(run(net, x, y) == bl_ok);
  CHECK(bl_run(net, nullptr, nullptr, 0, nullptr, nullptr, 0) == bl_wrong_input);
  CHECK(bl_run(net, nullptr, nullptr, 1, nullptr, nullptr, 1) == bl_wrong_input);
  CHECK(bl_run(net, nullptr, nullptr, -1, nullptr, nullptr, -1) == bl_wrong_input);
  CHECK(bl_inputs(net, nullptr, 1, &count) == bl_wrong_input && bl_inputs(net, &value, 1, nullptr) == bl_wrong_input);
  CHECK(bl_close(net) == bl_ok);
}

void closed_is_closed() {
  bl_network* net = opened("net");
  CHECK(bl_close(net) == bl_ok);
  bl_network* other = opened("net");
  CHECK(other != net);
  int count;
  std::vector<float> x(3), y(3);
  for (bl_network* gone : {net, static_cast<bl_network*>(nullptr)})
    CHECK(bl_close(gone) == bl_closed && bl_set_bits(gone, 2) == bl_closed && bl_prepare(gone, nullptr, 0) == bl_closed &&
          bl_inputs(gone, nullptr, 0, &count) == bl_closed && run(gone, x, y) == bl_closed && *bl_error());
  CHECK(bl_close(other) == bl_ok);
}

void closing_while_running() {
  bl_network* net = opened("slow");
  CHECK(bl_prepare(net, nullptr, 0) == bl_ok);
  std::atomic<int> finished{0}, wrong{0};
  std::vector<std::thread> runners;
  for (int t = 0; t < 3; ++t)
    runners.emplace_back([&, t] {
      std::vector<float> x{1, 2, 3}, y(3);
      bl_status status;
      while ((status = run(net, x, y)) == bl_ok) {
        finished.fetch_add(1);
        if (y != std::vector<float>{8, 16, 24} && y != std::vector<float>{2, 4, 6}) wrong.fetch_add(1);
        if (t == 0 && bl_set_bits(net, 2) != bl_ok) break;
      }
      if (t > 0 && status != bl_closed) wrong.fetch_add(1);
    });
  usleep(300000);
  CHECK(bl_close(net) == bl_ok);
  for (std::thread& runner : runners) runner.join();
  CHECK(finished.load() >= 3 && wrong.load() == 0);
}

void errors_are_each_threads_own() {
  bl_network* net;
  CHECK(bl_open("what", 4, nullptr, &net) == bl_malformed);
  std::thread([] { CHECK(!*bl_error()); }).join();
  CHECK(*bl_error() && *bl_version());
}

}  // namespace

int main() {
  opens_or_says_why();
  runs_at_a_width();
  closed_is_closed();
  closing_while_running();
  errors_are_each_threads_own();
  return 0;
}
