// SPDX-License-Identifier: Apache-2.0
#include "server/caching/response_cache.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "cache/sealed_value.h"
#include "server/caching/stored_answer.h"

namespace millrace {

ResponseCache::ResponseCache(std::unique_ptr<AnswerStore> store, std::function<absl::Time()> now)
    : store_(std::move(store)), now_(std::move(now)) {}

absl::Time ResponseCache::Now() const { return now_ ? now_() : absl::Now(); }

std::optional<ResponseCache::Found> ResponseCache::Find(const CacheKey& key, int32_t num_choices,
                                                        absl::Duration max_age) {
  const std::shared_ptr<const std::string> bytes = store_->Get(key);
  if (bytes == nullptr) return std::nullopt;
  const auto opened = OpenValue(key, *bytes);
  if (!opened) return std::nullopt;
  const absl::Duration age = std::max(absl::ZeroDuration(), Now() - opened->stored);  // clocks of replicas differ
  if (age > max_age) return std::nullopt;
  auto deltas = DecodeAnswer(opened->payload, num_choices);
  if (!deltas) return std::nullopt;
  return Found{.deltas = *std::move(deltas), .age = age};
}

SharedGeneration::Hooks ResponseCache::MakeHooks(const CacheKey& key, std::function<void()> on_closed) {
  const auto num_purges = [this] {
    absl::ReaderMutexLock lock(&purge_mu_);
    return num_purges_;
  }();
  const auto keep = [this, key, num_purges](const std::vector<TextDelta>& deltas) {
    std::string value = SealValue(key, Now(), EncodeAnswer(deltas));
    absl::ReaderMutexLock lock(&purge_mu_);  // a purge that begins now finds it
    if (num_purges_ == num_purges) store_->Put(key, std::move(value));
  };
  return {.on_whole = keep, .on_closed = std::move(on_closed)};
}

ResponseCache::Place ResponseCache::JoinOrLead(const CacheKey& key, int32_t priority, int32_t num_choices) {
  const FlightName name(key.digest, priority);
  absl::MutexLock lock(&mu_);
  auto& flight = flights_[name];
  if (flight != nullptr) return {.generation = flight};
  const auto forget = [this, name] {
    std::shared_ptr<SharedGeneration> forgotten;  // dies after the lock is gone
    absl::MutexLock lock_of_table(&mu_);
    const auto found = flights_.find(name);
    if (found == flights_.end()) return;
    forgotten = std::move(found->second);
    flights_.erase(found);
  };
  flight = std::make_shared<SharedGeneration>(num_choices, MakeHooks(key, forget));
  return {.generation = flight, .is_new = true};
}

std::shared_ptr<SharedGeneration> ResponseCache::LeadAlone(const CacheKey& key, int32_t num_choices) {
  return std::make_shared<SharedGeneration>(num_choices, MakeHooks(key, [] {}));
}

absl::StatusOr<int64_t> ResponseCache::Purge(const PurgeScope& scope) {
  {
    absl::MutexLock lock(&purge_mu_);
    ++num_purges_;
  }
  return store_->Purge(scope);
}

void ResponseCache::Count(CacheOutcome outcome) {
  if (outcome == CacheOutcome::kHit) ++num_hits_;
  if (outcome == CacheOutcome::kMiss) ++num_misses_;
  if (outcome == CacheOutcome::kCoalesced) ++num_coalesced_;
  if (outcome == CacheOutcome::kBypass) ++num_bypassed_;
}

ResponseCacheStats ResponseCache::stats() const {
  return {.num_hits = num_hits_,
          .num_misses = num_misses_,
          .num_coalesced = num_coalesced_,
          .num_bypassed = num_bypassed_,
          .store = store_->stats()};
}

}  // namespace millrace
