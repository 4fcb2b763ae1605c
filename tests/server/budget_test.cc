// SPDX-License-Identifier: Apache-2.0
#include "server/auth/budget.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/barrier.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

// A key and a tenant with limits, and a clock that stands still.
struct Accounts {
  Accounts(const RateLimits& key_limits, const RateLimits& tenant_limits)
      : key(std::make_shared<Budget>("key 'k'", key_limits, now())),
        tenant(std::make_shared<Budget>("tenant 't'", tenant_limits, now())),
        quota(std::make_shared<Quota>(key, tenant, [this] { return now(); })) {}
  absl::Time now() const { return absl::FromUnixMillis(milliseconds); }

  std::atomic<int64_t> milliseconds{1'000'000};
  std::shared_ptr<Budget> key, tenant;
  std::shared_ptr<Quota> quota;
};

std::string LimitOf(const absl::StatusOr<Lease>& lease) { return RejectionReason(lease.status()); }

TEST_CASE("Budget: a bucket refills evenly, and a wait ends exactly when it was said to", "[budget]") {
  Accounts a({.requests_per_minute = 7}, {});
  std::vector<Lease> leases;
  for (int i = 0; i < 7; ++i) leases.push_back(*a.quota->Reserve(1));
  CHECK(a.quota->state().requests.remaining == 0);
  CHECK(a.quota->state().requests.reset == absl::Seconds(60));
  auto refused = a.quota->Reserve(1);
  CHECK(LimitOf(refused) == "requests_per_minute");
  const absl::Duration wait = RetryAfter(refused.status());
  CHECK(wait == absl::Milliseconds(8572));  // a seventh of a minute, rounded up
  a.milliseconds += absl::ToInt64Milliseconds(wait) - 1;
  CHECK_FALSE(a.quota->Reserve(1).ok());
  a.milliseconds += 1;
  leases.push_back(*a.quota->Reserve(1));
  CHECK_FALSE(a.quota->Reserve(1).ok());
  a.milliseconds += 3'600'000 * 5;
  CHECK(a.quota->state().requests.remaining == 7);  // never more than a minute's worth
  CHECK(a.quota->state().requests.reset == absl::ZeroDuration());
}

TEST_CASE("Budget: a clock that is set back neither fills a bucket nor stops it", "[budget]") {
  Accounts a({.requests_per_minute = 60}, {});
  std::vector<Lease> leases;
  for (int i = 0; i < 60; ++i) leases.push_back(*a.quota->Reserve(1));
  a.milliseconds -= 100'000;
  CHECK_FALSE(a.quota->Reserve(1).ok());
  a.milliseconds += 1000;
  CHECK(a.quota->Reserve(1).ok());
}

TEST_CASE("Budget: what was reserved and not used comes back, and only that", "[budget]") {
  Accounts a({.tokens_per_minute = 100}, {.requests_per_minute = 10, .tokens_per_minute = 1000});
  auto lease = a.quota->Reserve(80);
  REQUIRE(lease.ok());
  CHECK(a.quota->state().tokens.remaining == 20);
  auto refused = a.quota->Reserve(30);
  CHECK(LimitOf(refused) == "tokens_per_minute");
  CHECK(RetryAfter(refused.status()) == absl::Seconds(6));
  CHECK(a.quota->state().requests.remaining == 9);  // what the key refused did not cost the tenant
  lease->Settle(25);
  lease->Settle(0);
  CHECK(a.quota->state().tokens.remaining == 75);
  CHECK(a.quota->state().requests.remaining == 9);
  {
    auto dropped = a.quota->Reserve(75);
  }
  CHECK(a.quota->state().tokens.remaining == 75);
  CHECK(a.quota->state().requests.remaining == 9);  // a request that never ran is none
  CHECK(absl::IsInvalidArgument(a.quota->Reserve(101).status()));
  CHECK(a.quota->max_tokens() == 100);
  CHECK(Accounts({}, {}).quota->max_tokens() == std::numeric_limits<int64_t>::max());
}

TEST_CASE("Budget: what the tenant refuses costs the key nothing", "[budget]") {
  Accounts a({.requests_per_minute = 10, .tokens_per_minute = 1000, .concurrent_requests = 5},
             {.concurrent_requests = 1});
  auto lease = a.quota->Reserve(10);
  REQUIRE(lease.ok());
  for (int i = 0; i < 20; ++i) CHECK(LimitOf(a.quota->Reserve(10)) == "concurrency");
  CHECK(a.quota->state().requests.remaining == 9);
  CHECK(a.quota->state().tokens.remaining == 990);
  lease->Settle(10);
  CHECK(a.quota->Reserve(10).ok());
}

TEST_CASE("Budget: new limits keep what was spent", "[budget]") {
  Accounts a({.tokens_per_minute = 100}, {});
  auto lease = a.quota->Reserve(60);
  REQUIRE(lease.ok());
  a.key->SetLimits({.tokens_per_minute = 50}, a.now());
  CHECK(a.quota->state().tokens.remaining == 0);
  CHECK_FALSE(a.quota->Reserve(1).ok());
  a.key->SetLimits({.tokens_per_minute = 200}, a.now());
  CHECK(a.quota->state().tokens.remaining == 140);
  lease->Settle(0);
  CHECK(a.quota->state().tokens.remaining == 200);
  a.key->SetLimits({}, a.now());
  CHECK(a.quota->Reserve(1'000'000).ok());
  a.key->SetLimits({.tokens_per_minute = 10}, a.now());
  CHECK(a.quota->state().tokens.remaining == 10);
}

TEST_CASE("Budget: of five hundred at once, exactly as many get through as there is", "[budget]") {
  constexpr int kNumThreads = 500;
  const auto [limits, num_tokens] = GENERATE(std::pair{RateLimits{.requests_per_minute = 10}, 1},
                                             std::pair{RateLimits{.tokens_per_minute = 10'009}, 1000},
                                             std::pair{RateLimits{.concurrent_requests = 10}, 1});
  const bool is_tenants = GENERATE(false, true);
  Accounts a(is_tenants ? RateLimits{} : limits, is_tenants ? limits : RateLimits{});
  absl::Barrier* barrier = new absl::Barrier(kNumThreads);
  std::atomic<int> num_admitted{0}, num_refused{0};
  std::vector<Lease> leases(kNumThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumThreads; ++i) {
    threads.emplace_back([&, i, num_tokens = num_tokens] {
      if (barrier->Block()) delete barrier;
      auto lease = a.quota->Reserve(num_tokens);
      ++(lease.ok() ? num_admitted : num_refused);
      if (lease.ok()) leases[i] = *std::move(lease);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_admitted == 10);
  CHECK(num_refused == kNumThreads - 10);
}

TEST_CASE("Budget: whatever becomes of leases, the accounts are right in the end", "[budget]") {
  constexpr int kNumThreads = 8, kNumRequests = 2000;
  constexpr int64_t kTokens = 1'000'000'000;
  Accounts a({.requests_per_minute = kTokens, .tokens_per_minute = kTokens, .concurrent_requests = kNumThreads},
             {.tokens_per_minute = kTokens});
  std::atomic<int64_t> num_used{0}, num_settled{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kNumThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < kNumRequests; ++i) {
        const int64_t num_tokens = 1 + random() % 1000;
        auto lease = a.quota->Reserve(num_tokens);
        if (!lease.ok()) std::abort();
        Lease moved = *std::move(lease);
        switch (random() % 3) {
          case 0:  // refused before it ran
            break;
          case 1:  // cancelled, failed or cut short
            num_used += num_tokens / 2;
            moved.Settle(num_tokens / 2);
            ++num_settled;
            break;
          default:
            num_used += num_tokens;
            moved.Settle(num_tokens);
            ++num_settled;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const RateState state = a.quota->state();
  CHECK(state.tokens.remaining == kTokens - num_used);
  CHECK(state.requests.remaining == kTokens - num_settled);
  std::vector<Lease> all;
  for (int i = 0; i < kNumThreads; ++i) {
    auto lease = a.quota->Reserve(1);
    REQUIRE(lease.ok());  // every place is free again
    all.push_back(*std::move(lease));
  }
  CHECK(LimitOf(a.quota->Reserve(1)) == "concurrency");
}

TEST_CASE("Budget: durations are written as OpenAI writes them", "[budget]") {
  CHECK(FormatRateDuration(absl::ZeroDuration()) == "0s");
  CHECK(FormatRateDuration(absl::Microseconds(1)) == "1ms");
  CHECK(FormatRateDuration(absl::Milliseconds(12)) == "12ms");
  CHECK(FormatRateDuration(absl::Seconds(1)) == "1s");
  CHECK(FormatRateDuration(absl::Milliseconds(8640)) == "8.64s");
  CHECK(FormatRateDuration(absl::Milliseconds(59'001)) == "59.001s");
  CHECK(FormatRateDuration(absl::Minutes(6)) == "6m0s");
  CHECK(FormatRateDuration(absl::Milliseconds(90'500)) == "1m30.5s");
}

}  // namespace
}  // namespace millrace
