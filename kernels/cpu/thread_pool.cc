// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "kernels/check.h"

namespace millrace::cpu {
namespace {

// Longer than the gap between two ops of a step, shorter than anything a person or a bill would notice.
constexpr auto kSpinTime = std::chrono::microseconds(40);
constexpr int kPausesPerClockRead = 32;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once value differs from `old_value`: spins first, then sleeps in the kernel.
template <typename T>
T WaitWhileEqual(std::atomic<T>& value, T old_value) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      const T current = value.load(std::memory_order_acquire);
      if (current != old_value) return current;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old_value, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  MILLRACE_CHECK(num_threads >= 1, "a thread pool needs at least the caller's thread");
  threads_.reserve(num_threads - 1);
  for (int worker = 1; worker < num_threads; ++worker) threads_.emplace_back([this, worker] { WorkerLoop(worker); });
}

ThreadPool::~ThreadPool() {
  is_stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t seen = 0;
  while (true) {
    seen = WaitWhileEqual(generation_, seen);
    if (is_stopping_) return;
    (*task_)(worker);
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_running_.notify_one();
  }
}

void ThreadPool::Run(absl::FunctionRef<void(int)> task) {
  if (num_threads_ == 1) return task(0);
  task_ = &task;
  num_running_.store(num_threads_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  task(0);
  for (int32_t running = num_running_.load(std::memory_order_acquire); running != 0;) {
    running = WaitWhileEqual(num_running_, running);
  }
}

void ThreadPool::ParallelFor(int64_t num_items, absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  if (num_items <= 0) return;
  if (num_items == 1 || num_threads_ == 1) return body(0, num_items, 0);
  Run([&](int worker) {
    const int64_t begin = num_items * worker / num_threads_;
    const int64_t end = num_items * (worker + 1) / num_threads_;
    if (begin < end) body(begin, end, worker);
  });
}

void ThreadPool::ParallelForChunks(int64_t num_items, int64_t chunk_items,
                                   absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  MILLRACE_CHECK(chunk_items >= 1, "a chunk holds at least one item");
  if (num_items <= 0) return;
  if (num_items <= chunk_items || num_threads_ == 1) return body(0, num_items, 0);
  next_item_.store(0, std::memory_order_relaxed);
  Run([&](int worker) {
    while (true) {
      const int64_t begin = next_item_.fetch_add(chunk_items, std::memory_order_relaxed);
      if (begin >= num_items) return;
      body(begin, std::min(begin + chunk_items, num_items), worker);
    }
  });
}

}  // namespace millrace::cpu
