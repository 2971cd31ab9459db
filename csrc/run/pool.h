// The threads of a network: a private pool that shares out numbered tasks. What is computed never depends on it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "function_ref.h"

namespace bl {

class Pool {
 public:
  // `threads` in all, the caller's among them; with 1 there are no workers. Fewer if the system gives fewer.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;

  // Calls task(0) ... task(tasks - 1), each once, on the caller's thread and the workers, and returns when all are done.
  // The caller alone runs them while the workers are busy (a call from within a task, or a second caller at the same time)
  // and in the child of a fork, which has no workers. `task` must not throw.
  void run(int tasks, FunctionRef<void(int)> task);

 private:
  void work();          // what a worker does all its life
  void take();          // takes tasks until none is left
  bool enter();         // joins the run that is open, if one is
  void leave();         // the other half of `enter`
  bool forked() const;  // whether this is a child process of the one that started the workers

  // A run is open while bit `open` of gate_ is set; the rest counts the workers inside. The caller closes the gate once
  // the tasks are out and waits for those inside alone, so a worker that wakes late holds nobody up.
  static constexpr uint32_t open = 1u << 31;

  std::atomic<bool> busy_{false};    // one run at a time has the workers
  std::atomic<uint32_t> gate_{0};
  std::atomic<uint32_t> runs_{0};    // counts runs; workers sleep on it
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};     // the next task to take
  int tasks_ = 0;                    // these two belong to the run that is open
  const FunctionRef<void(int)>* task_ = nullptr;

  unsigned forks_;  // of the process when the workers started
  std::unique_ptr<std::vector<std::thread>> workers_;
};

}  // namespace bl
