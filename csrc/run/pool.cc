#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <mutex>
#include <system_error>

namespace bl {
namespace {

// A few microseconds of looking before a thread sleeps: the next layer of a network usually starts within that time.
constexpr int looks = 256;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `value` is no longer `old`, with the new value.
uint32_t await_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < looks; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// How many forks lie between the first process and this one.
std::atomic<unsigned> forks{0};

void count_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); }); });
}

// While it lives, new threads start with every signal blocked: signals are for the program's own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

Pool::Pool(int threads) : forks_((count_forks(), forks.load())), workers_(std::make_unique<std::vector<std::thread>>()) {
  const SignalsBlocked quiet;
  try {
    workers_->reserve(static_cast<size_t>(std::max(threads, 1) - 1));
    for (int i = 1; i < threads; ++i) workers_->emplace_back(&Pool::work, this);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that started do the work.
  }
}

Pool::~Pool() {
  if (forked()) {
    (void)workers_.release();  // these threads are the parent's; there is nothing here to join
    return;
  }
  stop_.store(true, std::memory_order_relaxed);
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  for (std::thread& worker : *workers_) worker.join();
}

int Pool::threads() const { return static_cast<int>(workers_->size()) + 1; }

bool Pool::forked() const { return forks.load(std::memory_order_relaxed) != forks_; }

void Pool::run(int tasks, FunctionRef<void(int)> task) {
  if (tasks < 2 || workers_->empty() || forked() || busy_.exchange(true, std::memory_order_acquire)) {
    for (int i = 0; i < tasks; ++i) task(i);
    return;
  }
  task_ = &task;
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  gate_.store(open, std::memory_order_release);
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  take();
  uint32_t inside = gate_.fetch_and(~open, std::memory_order_acq_rel) & ~open;
  while (inside != 0) inside = await_change(gate_, inside);
  busy_.store(false, std::memory_order_release);
}

void Pool::take() {
  const FunctionRef<void(int)> task = *task_;
  const int tasks = tasks_;
  for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(static_cast<int>(i));
}

bool Pool::enter() {
  uint32_t now = gate_.load(std::memory_order_acquire);
  while (now & open)
    if (gate_.compare_exchange_weak(now, now + 1, std::memory_order_acquire)) return true;
  return false;
}

void Pool::leave() {
  if (gate_.fetch_sub(1, std::memory_order_acq_rel) == 1) gate_.notify_one();  // the last one out of a closed gate
}

void Pool::work() {
  for (uint32_t seen = 0; !stop_.load(std::memory_order_relaxed);) {
    seen = await_change(runs_, seen);
    if (enter()) {
      take();
      leave();
    }
  }
}

}  // namespace bl
