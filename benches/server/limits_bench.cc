// SPDX-License-Identifier: Apache-2.0
// What keys, limits and the usage ledger add to a request and to a token: nanoseconds of one thread, and of several
// that share one key. Median and spread of 25 runs after a warm-up. Usage: limits_bench
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/rate_headers.h"
#include "server/auth/api_keys.h"
#include "server/usage/usage_ledger.h"

namespace millrace {
namespace {

constexpr int kNumRuns = 25;
constexpr int kNumCalls = 20'000;

double CpuNanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

double NanosecondsPerCall(int num_threads, const std::function<void()>& call) {
  const double begin = CpuNanoseconds();
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    threads.emplace_back([&call] {
      for (int i = 0; i < kNumCalls; ++i) call();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return (CpuNanoseconds() - begin) / kNumCalls / num_threads;
}

void Measure(const std::string& what, int num_threads, const std::function<void()>& call) {
  NanosecondsPerCall(num_threads, call);
  std::vector<double> runs;
  for (int i = 0; i < kNumRuns; ++i) runs.push_back(NanosecondsPerCall(num_threads, call));
  std::sort(runs.begin(), runs.end());
  std::printf("%-58s %9.0f ns  (%.0f to %.0f)\n", what.c_str(), runs[kNumRuns / 2], runs.front(), runs.back());
}

void MeasureKeys(int num_keys) {
  std::string file;
  for (int i = 0; i < num_keys; ++i) absl::StrAppend(&file, "a-key-of-the-usual-length-0123456789-", i, " t", i, "\n");
  ApiKeys keys;
  if (!keys.AddText(file, "keys").ok()) std::exit(1);
  Measure(absl::StrCat("a key's tenant and role, of ", num_keys, " keys"), 1,
          [&keys] { (void)keys.Authorize("Bearer a-key-of-the-usual-length-0123456789-0", "", Access::kInfer); });
}

void MeasureLimits() {
  ApiKeys keys;
  const std::string file =
      "tenants:\n- {name: t, requests_per_minute: 1000000000, tokens_per_minute: 1000000000}\n"
      "keys:\n- {key: k, tenant: t, requests_per_minute: 1000000000, tokens_per_minute: 1000000000, "
      "concurrent_requests: 100000}\n";
  if (!keys.AddText(file, "keys").ok()) std::exit(1);
  const auto quota = keys.Authorize("", "k", Access::kInfer)->quota;
  for (const int num_threads : {1, 2, 8}) {
    Measure(absl::StrCat("check, reserve and settle, threads on one key: ", num_threads), num_threads, [&quota] {
      (void)quota->Check();
      auto lease = quota->Reserve(100);
      if (!lease.ok()) std::exit(1);
      lease->Settle(100);
    });
  }
  Measure("the six headers of an answer", 1, [&quota] {
    std::vector<HttpHeader> headers;
    AddRateHeaders(quota->state(), headers);
  });
}

void MeasureLedger() {
  UsageLedger ledger(absl::Now);
  for (int i = 0; i < 1000; ++i) ledger.OnRejected(absl::StrCat("tenant-", i));
  Measure("the ledger's entry of a token, of 1000 tenants", 1, [&ledger] { ledger.OnGenerated("tenant-500", 1); });
}

}  // namespace
}  // namespace millrace

int main() {
  millrace::MeasureKeys(1);
  millrace::MeasureKeys(10'000);
  millrace::MeasureLimits();
  millrace::MeasureLedger();
  return 0;
}
