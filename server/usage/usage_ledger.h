// SPDX-License-Identifier: Apache-2.0
#pragma once
// What each tenant has used, since the start and by day (UTC): the numbers behind a bill. Counts the same events as the
// metrics, so the sums of both are equal. In memory; thread-safe.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/auth/budget.h"

namespace millrace {

struct UsageCounts {
  int64_t num_completed = 0;  // requests that came to their end
  int64_t num_cancelled = 0;  // the client left, or a deadline passed
  int64_t num_failed = 0;
  int64_t num_rejected = 0;       // never ran: a limit, a full queue, not ready
  int64_t num_prompt_tokens = 0;  // computed or found in the cache
  int64_t num_cached_tokens = 0;  // of these, found
  int64_t num_generated_tokens = 0;
  void Add(const UsageCounts& other);
  friend bool operator==(const UsageCounts&, const UsageCounts&) = default;
};

struct UsageDay {
  absl::CivilDay day;
  UsageCounts counts;
};
struct TenantUsage {
  std::string tenant;  // "anonymous" without a name
  UsageCounts total;
  std::vector<UsageDay> days;  // oldest first; the oldest of all are dropped beyond max_rows
};

class UsageLedger {
 public:
  struct Options {
    size_t max_tenants = 10'000;  // further ones are counted as "other"
    size_t max_rows = 200'000;    // days of tenants
  };
  explicit UsageLedger(Clock clock) : UsageLedger(std::move(clock), Options{}) {}
  UsageLedger(Clock clock, const Options& options) : clock_(std::move(clock)), options_(options), since_(clock_()) {}

  void OnPrefilled(const std::string& tenant, int64_t num_prompt_tokens, int64_t num_cached_tokens);
  void OnGenerated(const std::string& tenant, int64_t num_tokens);
  void OnFinished(const std::string& tenant, FinishReason finish);
  void OnRejected(const std::string& tenant);

  absl::Time since() const { return since_; }
  std::vector<TenantUsage> Report() const;  // by name

 private:
  void Count(const std::string& tenant, const UsageCounts& counts);

  const Clock clock_;
  const Options options_;
  const absl::Time since_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, UsageCounts> totals_ ABSL_GUARDED_BY(mu_);
  std::map<absl::CivilDay, absl::flat_hash_map<std::string, UsageCounts>> days_ ABSL_GUARDED_BY(mu_);
  size_t num_rows_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace millrace
