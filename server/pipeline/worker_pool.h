// SPDX-License-Identifier: Apache-2.0
#pragma once
// Threads for parsing, templating and tokenising, so that io threads never stall. Bounded queue; thread-safe.
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace millrace {

class WorkerPool {
 public:
  WorkerPool(int num_threads, size_t max_queued);
  ~WorkerPool() { Stop(); }
  // Runs what is queued, then joins; later tasks are refused. Its owner calls it.
  void Stop();
  // False: the queue is full or stopped (the task is dropped).
  bool Post(std::function<void()> task);

 private:
  void Run();

  const size_t max_queued_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace millrace
