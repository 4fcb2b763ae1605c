// SPDX-License-Identifier: Apache-2.0
#include "server/auth/budget.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr int64_t kUnits = 60'000;  // of one request or token: milliseconds in a minute

// Of two buckets with a limit, the one that has less left.
BucketState Tighter(const BucketState& a, const BucketState& b) {
  if (a.limit == 0 || b.limit == 0) return a.limit == 0 ? b : a;
  return b.remaining < a.remaining ? b : a;
}

}  // namespace

std::string FormatRateDuration(absl::Duration duration) {
  const int64_t num_ms = absl::ToInt64Milliseconds(absl::Ceil(duration, absl::Milliseconds(1)));
  if (num_ms == 0) return "0s";
  if (num_ms < 1000) return absl::StrCat(num_ms, "ms");
  const int64_t num_minutes = num_ms / kUnits;
  std::string text = num_minutes > 0 ? absl::StrCat(num_minutes, "m") : "";
  absl::StrAppend(&text, num_ms % kUnits / 1000);
  if (num_ms % 1000 != 0) {
    absl::StrAppend(&text, absl::StrFormat(".%03d", num_ms % 1000));
    while (text.back() == '0') text.pop_back();
  }
  return text + "s";
}

void TokenBucket::SetLimit(int64_t per_minute, absl::Time now) {
  Refill(now);
  const int64_t spent = per_minute_ * kUnits - level_;
  per_minute_ = per_minute;
  level_ = per_minute * kUnits - (per_minute > 0 ? spent : 0);
}

void TokenBucket::Refill(absl::Time now) {
  const int64_t full = per_minute_ * kUnits;
  // A clock that was set back must not stop the refilling until it has caught up.
  if (now < filled_ || now - filled_ > absl::Hours(1)) {
    if (now > filled_) level_ = std::max(level_, full);
    filled_ = now;
    return;
  }
  const int64_t num_ms = absl::ToInt64Milliseconds(now - filled_);
  filled_ += absl::Milliseconds(num_ms);
  level_ = std::min(full, level_ + num_ms * per_minute_);
}

absl::Duration TokenBucket::WaitFor(int64_t count, absl::Time now) {
  if (per_minute_ == 0) return absl::ZeroDuration();
  Refill(now);
  if (count > per_minute_) return absl::InfiniteDuration();
  const int64_t missing = count * kUnits - level_;
  if (missing <= 0) return absl::ZeroDuration();
  return absl::Milliseconds((missing + per_minute_ - 1) / per_minute_);
}

void TokenBucket::Take(int64_t count) {
  if (per_minute_ > 0) level_ -= count * kUnits;
}

void TokenBucket::Give(int64_t count, absl::Time now) {
  if (per_minute_ == 0) return;
  Refill(now);
  level_ = std::min(per_minute_ * kUnits, level_ + count * kUnits);
}

BucketState TokenBucket::state(absl::Time now) {
  if (per_minute_ == 0) return {};
  Refill(now);
  const int64_t missing = per_minute_ * kUnits - level_;
  return {.limit = per_minute_,
          .remaining = std::max<int64_t>(0, level_) / kUnits,
          .reset = absl::Milliseconds((missing + per_minute_ - 1) / per_minute_)};
}

Budget::Budget(std::string owner, const RateLimits& limits, absl::Time now) : owner_(std::move(owner)) {
  SetLimits(limits, now);
}

void Budget::SetLimits(const RateLimits& limits, absl::Time now) {
  absl::MutexLock lock(&mu_);
  requests_.SetLimit(limits.requests_per_minute, now);
  tokens_.SetLimit(limits.tokens_per_minute, now);
  max_running_ = limits.concurrent_requests;
}

absl::Status Budget::Check(int64_t num_tokens, absl::Time now) {
  if (max_running_ > 0 && num_running_ >= max_running_) {
    return LimitError(
        absl::StrCat(num_running_, " requests of ", owner_, " run already, and its limit is ", max_running_),
        "concurrency", absl::Seconds(1));
  }
  if (const absl::Duration wait = requests_.WaitFor(1, now); wait > absl::ZeroDuration()) {
    return LimitError(absl::StrCat("Rate limit reached for ", owner_, " on requests per minute: limit ",
                                   requests_.limit(), ". Please try again in ", FormatRateDuration(wait), "."),
                      "requests_per_minute", wait);
  }
  const absl::Duration wait = tokens_.WaitFor(num_tokens, now);
  if (wait == absl::InfiniteDuration()) {
    return WithErrorCode(absl::InvalidArgumentError(
                             absl::StrCat("This request may use ", num_tokens, " tokens (prompt and max_tokens), and ",
                                          owner_, " has ", tokens_.limit(), " per minute. Please reduce it.")),
                         "tokens_limit_exceeded");
  }
  if (wait > absl::ZeroDuration()) {
    return LimitError(absl::StrCat("Rate limit reached for ", owner_, " on tokens per minute: limit ", tokens_.limit(),
                                   ", remaining ", tokens_.state(now).remaining, ", requested ", num_tokens,
                                   ". Please try again in ", FormatRateDuration(wait), "."),
                      "tokens_per_minute", wait);
  }
  return absl::OkStatus();
}

void Budget::Take(int64_t num_tokens) {
  requests_.Take(1);
  tokens_.Take(num_tokens);
  ++num_running_;
}

void Budget::GiveBack(int64_t num_requests, int64_t num_tokens, absl::Time now) {
  absl::MutexLock lock(&mu_);
  requests_.Give(num_requests, now);
  tokens_.Give(num_tokens, now);
  --num_running_;
}

void Lease::Settle(int64_t num_used_tokens) {
  if (auto quota = std::exchange(quota_, nullptr)) quota->GiveBack(0, num_tokens_ - num_used_tokens);
}

void Lease::Return() {
  if (auto quota = std::exchange(quota_, nullptr)) quota->GiveBack(1, num_tokens_);
}

absl::StatusOr<Lease> Quota::Reserve(int64_t num_tokens) const {
  const absl::Time now = clock_();
  absl::MutexLock key_lock(&key_->mu_);
  if (absl::Status status = key_->Check(num_tokens, now); !status.ok()) return status;
  absl::MutexLock tenant_lock(&tenant_->mu_);
  if (absl::Status status = tenant_->Check(num_tokens, now); !status.ok()) return status;
  key_->Take(num_tokens);
  tenant_->Take(num_tokens);
  return Lease(shared_from_this(), num_tokens);
}

absl::Status Quota::Check() const {
  const absl::Time now = clock_();
  for (Budget* budget : {key_.get(), tenant_.get()}) {
    absl::MutexLock lock(&budget->mu_);
    if (absl::Status status = budget->Check(1, now); !status.ok()) return status;
  }
  return absl::OkStatus();
}

int64_t Quota::max_tokens() const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (Budget* budget : {key_.get(), tenant_.get()}) {
    absl::MutexLock lock(&budget->mu_);
    if (budget->tokens_.limit() > 0) least = std::min(least, budget->tokens_.limit());
  }
  return least;
}

RateState Quota::state() const {
  const absl::Time now = clock_();
  RateState state;
  for (Budget* budget : {key_.get(), tenant_.get()}) {
    absl::MutexLock lock(&budget->mu_);
    state.requests = Tighter(state.requests, budget->requests_.state(now));
    state.tokens = Tighter(state.tokens, budget->tokens_.state(now));
  }
  return state;
}

void Quota::GiveBack(int64_t num_requests, int64_t num_tokens) const {
  const absl::Time now = clock_();
  key_->GiveBack(num_requests, num_tokens, now);
  tenant_->GiveBack(num_requests, num_tokens, now);
}

}  // namespace millrace
