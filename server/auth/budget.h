// SPDX-License-Identifier: Apache-2.0
#pragma once
// What keys and tenants have left of their limits, and the leases that running requests hold of it. A request takes all
// it may use before it runs and gives back what it did not use, so that many at once never spend more than there is.
// Thread-safe.
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/auth/rate_limits.h"

namespace millrace {

using Clock = std::function<absl::Time()>;

// What clients are told of one limit.
struct BucketState {
  int64_t limit = 0;  // 0: there is none
  int64_t remaining = 0;
  absl::Duration reset;  // until all of it is there again, if nothing more is taken
};
struct RateState {
  BucketState requests, tokens;
};

// As OpenAI writes them: "0s", "12ms", "1.5s", "6m0s".
std::string FormatRateDuration(absl::Duration duration);

// Holds what a minute allows and refills evenly, to the millisecond. Not thread-safe.
class TokenBucket {
 public:
  // Keeps what was spent: a reload neither fills nor empties it. 0: no limit.
  void SetLimit(int64_t per_minute, absl::Time now);
  int64_t limit() const { return per_minute_; }
  // How long until `count` can be taken: zero now, infinite never.
  absl::Duration WaitFor(int64_t count, absl::Time now);
  void Take(int64_t count);
  void Give(int64_t count, absl::Time now);
  BucketState state(absl::Time now);

 private:
  void Refill(absl::Time now);

  int64_t per_minute_ = 0;
  int64_t level_ = 0;  // units of 1/60000, so that every millisecond adds per_minute_ of them; may be negative
  absl::Time filled_ = absl::InfinitePast();
};

// One key's or one tenant's account.
class Budget {
 public:
  Budget(std::string owner, const RateLimits& limits, absl::Time now);
  void SetLimits(const RateLimits& limits, absl::Time now);

 private:
  friend class Quota;
  friend class Lease;
  // Why it cannot be taken; OK if it can.
  absl::Status Check(int64_t num_tokens, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Take(int64_t num_tokens) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBack(int64_t num_requests, int64_t num_tokens, absl::Time now);

  const std::string owner_;  // "key 'ci'", "tenant 'search'": for messages
  absl::Mutex mu_;
  TokenBucket requests_ ABSL_GUARDED_BY(mu_);
  TokenBucket tokens_ ABSL_GUARDED_BY(mu_);
  int64_t max_running_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t num_running_ ABSL_GUARDED_BY(mu_) = 0;
};

// What one running request holds. Dropped before Settle: as if it had never been. Movable; one thread at a time.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept { *this = std::move(other); }
  Lease& operator=(Lease&& other) noexcept {
    Return();
    quota_ = std::exchange(other.quota_, nullptr);
    num_tokens_ = other.num_tokens_;
    return *this;
  }
  ~Lease() { Return(); }
  // The request is over and has used that many tokens. Later calls do nothing.
  void Settle(int64_t num_used_tokens);

 private:
  friend class Quota;
  Lease(std::shared_ptr<const class Quota> quota, int64_t num_tokens)
      : quota_(std::move(quota)), num_tokens_(num_tokens) {}
  void Return();

  std::shared_ptr<const Quota> quota_;  // null: nothing is held
  int64_t num_tokens_ = 0;
};

// What requests with one key draw on: the key's budget and its tenant's. Shared by them.
class Quota : public std::enable_shared_from_this<Quota> {
 public:
  Quota(std::shared_ptr<Budget> key, std::shared_ptr<Budget> tenant, Clock clock)
      : key_(std::move(key)), tenant_(std::move(tenant)), clock_(std::move(clock)) {}

  // Takes a request, its tokens and a place among the running ones from both budgets, or nothing at all.
  // ResourceExhausted: not now (see RetryAfter in api_error.h); InvalidArgument: more than a minute allows, ever.
  absl::StatusOr<Lease> Reserve(int64_t num_tokens) const;
  // Whether a request of one token would get through now; takes nothing.
  absl::Status Check() const;
  // The most tokens a request may reserve; max() without a limit.
  int64_t max_tokens() const;
  // Of each limit the budget that is nearer to its end.
  RateState state() const;

 private:
  friend class Lease;
  void GiveBack(int64_t num_requests, int64_t num_tokens) const;

  const std::shared_ptr<Budget> key_, tenant_;  // locked in this order
  const Clock clock_;
};

}  // namespace millrace
