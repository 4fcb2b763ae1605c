// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <vector>

namespace millrace::cpu {
namespace {

TEST_CASE("ThreadPool: every worker runs a task once and the caller is worker 0", "[thread_pool]") {
  for (int num_threads : {1, 2, 3, 8}) {
    ThreadPool pool(num_threads);
    REQUIRE(pool.num_threads() == num_threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> calls(static_cast<size_t>(num_threads), 0);  // each worker writes its own
      const std::thread::id caller = std::this_thread::get_id();
      bool is_caller_first = false;
      pool.Run([&](int worker) {
        ++calls[static_cast<size_t>(worker)];
        if (worker == 0) is_caller_first = std::this_thread::get_id() == caller;
      });
      REQUIRE(std::count(calls.begin(), calls.end(), 1) == num_threads);
      REQUIRE(is_caller_first);
    }
  }
}

TEST_CASE("ThreadPool: ranges cover every item once, in parts that differ by at most one", "[thread_pool]") {
  for (int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    for (int64_t num_items : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(num_items));
      std::vector<int64_t> sizes(static_cast<size_t>(num_threads), 0);
      pool.ParallelFor(num_items, [&](int64_t begin, int64_t end, int worker) {
        sizes[static_cast<size_t>(worker)] += end - begin;
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      REQUIRE(std::all_of(seen.begin(), seen.end(), [](const auto& count) { return count == 1; }));
      if (num_items > 1) {
        const auto [smallest, largest] = std::minmax_element(sizes.begin(), sizes.end());
        REQUIRE(*largest - *smallest <= 1);
      }
      for (int64_t chunk : {1, 3, 100}) {
        for (auto& count : seen) count = 0;
        pool.ParallelForChunks(num_items, chunk, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        REQUIRE(std::all_of(seen.begin(), seen.end(), [](const auto& count) { return count == 1; }));
      }
    }
  }
}

TEST_CASE("ThreadPool: writes of one task are seen by the next on another worker", "[thread_pool]") {
  ThreadPool pool(3);
  std::vector<int64_t> values(999, 0);
  for (int round = 0; round < 300; ++round) {
    // The reversed order makes each item change hands; a missing happens-before shows under the thread sanitizer.
    pool.ParallelFor(999, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) ++values[static_cast<size_t>(round % 2 == 0 ? i : 998 - i)];
    });
  }
  REQUIRE(std::accumulate(values.begin(), values.end(), int64_t{0}) == 999 * 300);
}

double ProcessSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + time.tv_usec * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST_CASE("ThreadPool: an idle pool costs no CPU and wakes up again", "[thread_pool]") {
  ThreadPool pool(4);
  std::atomic<int> calls{0};
  pool.Run([&](int) { ++calls; });
  std::mutex mu;
  std::condition_variable never;
  std::unique_lock<std::mutex> lock(mu);
  const double before = ProcessSeconds();
  never.wait_for(lock, std::chrono::milliseconds(300));
  // Three workers that spun through 300 ms would use 0.9 s on free cores, and at least 0.3 s on one.
  CHECK(ProcessSeconds() - before < 0.05);
  pool.Run([&](int) { ++calls; });
  REQUIRE(calls == 8);
}

}  // namespace
}  // namespace millrace::cpu
