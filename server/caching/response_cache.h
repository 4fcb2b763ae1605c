// SPDX-License-Identifier: Apache-2.0
#pragma once
// The response cache of a server: answers that were given, and generations under way that several requests may share.
// Thread-safe; outlives every generator and generation that uses it.
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cache/answer_store.h"
#include "server/caching/shared_generation.h"

namespace millrace {

struct ResponseCacheStats {
  uint64_t num_hits = 0, num_misses = 0, num_coalesced = 0, num_bypassed = 0;  // requests
  StoreStats store;
};

class ResponseCache {
 public:
  // `now` null: the clock of the machine.
  explicit ResponseCache(std::unique_ptr<AnswerStore> store, std::function<absl::Time()> now = nullptr);

  struct Found {
    std::vector<TextDelta> deltas;
    absl::Duration age;
  };
  // An answer with that many choices, no older than `max_age`. May block as long as its store.
  std::optional<Found> Find(const CacheKey& key, int32_t num_choices, absl::Duration max_age);

  // The generation of that key and priority which is under way, or a new one that the caller must start.
  struct Place {
    std::shared_ptr<SharedGeneration> generation;
    bool is_new = false;
  };
  Place JoinOrLead(const CacheKey& key, int32_t priority, int32_t num_choices);
  // A generation that nobody finds, whose answer is kept all the same.
  std::shared_ptr<SharedGeneration> LeadAlone(const CacheKey& key, int32_t num_choices);

  // Answers that were under way meanwhile are not kept. May block for seconds.
  absl::StatusOr<int64_t> Purge(const PurgeScope& scope);
  void Count(CacheOutcome outcome);
  ResponseCacheStats stats() const;

 private:
  using FlightName = std::pair<Digest, int32_t>;  // of the key, and the priority

  absl::Time Now() const;
  SharedGeneration::Hooks MakeHooks(const CacheKey& key, std::function<void()> on_closed);

  const std::unique_ptr<AnswerStore> store_;
  const std::function<absl::Time()> now_;
  absl::Mutex purge_mu_;  // shared by those who put
  uint64_t num_purges_ ABSL_GUARDED_BY(purge_mu_) = 0;
  std::atomic<uint64_t> num_hits_{0}, num_misses_{0}, num_coalesced_{0}, num_bypassed_{0};
  absl::Mutex mu_;
  absl::flat_hash_map<FlightName, std::shared_ptr<SharedGeneration>> flights_ ABSL_GUARDED_BY(mu_);
};

}  // namespace millrace
