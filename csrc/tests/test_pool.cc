// Each task runs exactly once, and is over when `run` returns, whoever calls and however.
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "run/pool.h"
#include "check.h"

using bl::Pool;

namespace {

// Plain memory on purpose: the sanitizer sees it if the pool forgets to order its threads.
bool each_runs_once(Pool& pool, int tasks) {
  std::vector<int> done(static_cast<size_t>(tasks), 0);
  pool.run(tasks, [&](int i) { done[static_cast<size_t>(i)] += i + 1; });
  for (int i = 0; i < tasks; ++i)
    if (done[static_cast<size_t>(i)] != i + 1) return false;
  return true;
}

void counts(int threads) {
  Pool pool(threads);
  CHECK(pool.threads() == (threads < 1 ? 1 : threads));
  for (const int tasks : {0, 1, 2, 3, 7, 64, 1000})
    for (int repeat = 0; repeat < 200; ++repeat) CHECK(each_runs_once(pool, tasks));
}

void sleepers_wake() {
  Pool pool(3);
  for (int repeat = 0; repeat < 20; ++repeat) {
    usleep(2000);  // long enough for every worker to fall asleep
    CHECK(each_runs_once(pool, 50));
  }
}

void slow_tasks_are_waited_for() {
  Pool pool(4);
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::vector<int> done(4, 0);
    pool.run(4, [&](int i) {
      usleep(static_cast<unsigned>(1000 * (i + 1)));
      done[static_cast<size_t>(i)] = 1;
    });
    for (const int d : done) CHECK(d == 1);
  }
}

void workers_take_part() {
  Pool pool(2);
  std::atomic<int> inside{0};
  bool met = false;
  pool.run(2, [&](int i) {  // each of the two waits for the other: one thread alone would wait in vain
    inside.fetch_add(1);
    for (int ms = 0; ms < 5000 && inside.load() < 2; ++ms) usleep(1000);
    if (i == 0) met = inside.load() == 2;
  });
  CHECK(met);
}

void nested_calls_run() {
  Pool pool(3);
  std::vector<int> sums(20, 0);
  pool.run(20, [&](int i) { pool.run(10, [&](int j) { sums[static_cast<size_t>(i)] += j; }); });
  for (const int sum : sums) CHECK(sum == 45);
}

void several_callers() {
  Pool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      for (int repeat = 0; repeat < 300; ++repeat)
        if (!each_runs_once(pool, 5 + c)) wrong.fetch_add(1);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong.load() == 0);
}

void short_lives() {
  for (int repeat = 0; repeat < 50; ++repeat) {
    Pool idle(3);
    Pool used(2);
    CHECK(each_runs_once(used, repeat));
  }
}

#if defined(__SANITIZE_THREAD__)
void child_of_a_fork() {}  // the sanitizer cannot follow threads past a fork
#else
void child_of_a_fork() {
  auto* pool = new Pool(3);
  CHECK(each_runs_once(*pool, 10));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs dies
    const bool good = each_runs_once(*pool, 10);
    delete pool;
    Pool fresh(2);
    _exit(good && each_runs_once(fresh, 10) ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(each_runs_once(*pool, 10));
  delete pool;
}
#endif

}  // namespace

int main() {
  child_of_a_fork();
  for (const int threads : {0, 1, 2, 3, 5}) counts(threads);
  sleepers_wake();
  slow_tasks_are_waited_for();
  workers_take_part();
  nested_calls_run();
  several_callers();
  short_lives();
  return 0;
}
