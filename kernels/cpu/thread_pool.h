// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CPU backend's threads: one per available core, the caller's included. Workers spin for some tens of
// microseconds after a task, then sleep, so an idle pool costs no CPU. Owned by the CPU device; used by one thread
// at a time (the engine thread, or the loading thread before it starts).
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace millrace::cpu {

class ThreadPool {
 public:
  // REQUIRES: num_threads >= 1; num_threads - 1 threads are started.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls task(worker) once for each worker in [0, num_threads()), worker 0 on the caller; returns when all are done.
  // What the caller wrote before is visible to the workers, and the reverse after. REQUIRES: not called from a task.
  void Run(absl::FunctionRef<void(int worker)> task);

  // Splits [0, num_items) into one contiguous range per worker, sizes differing by at most one; empty ranges are not
  // called. Runs on the caller alone when num_items is 1.
  void ParallelFor(int64_t num_items, absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

  // Workers take chunks of `chunk_items` as they become free: for items of unequal cost or a machine shared with
  // others. Which worker gets which chunk is not fixed, so a result must not depend on it.
  void ParallelForChunks(int64_t num_items, int64_t chunk_items,
                         absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

 private:
  void WorkerLoop(int worker);

  // Constant after construction.
  const int num_threads_;
  std::vector<std::thread> threads_;
  // Written by the caller before generation_ moves, read by the workers after.
  const absl::FunctionRef<void(int)>* task_ = nullptr;
  bool is_stopping_ = false;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int32_t> num_running_{0};
  alignas(64) std::atomic<int64_t> next_item_{0};
};

}  // namespace millrace::cpu
