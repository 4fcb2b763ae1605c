// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where finished answers are kept: bytes under a key, for a while. A store may forget anything at any time, and one
// that cannot answer has nothing. Thread-safe.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cache/cache_key.h"

namespace millrace {

struct StoreStats {
  int64_t num_bytes = 0;  // held in this process; 0 for a store outside it, and so the next
  int64_t num_entries = 0;
  uint64_t num_evictions = 0;  // dropped for want of room
  uint64_t num_errors = 0;     // calls that failed, and values that were not written
};

class AnswerStore {
 public:
  virtual ~AnswerStore() = default;
  // Null: nothing there. May block, but no longer than the store's time limit.
  virtual std::shared_ptr<const std::string> Get(const CacheKey& key) = 0;
  // Never blocks on anything outside the process.
  virtual void Put(const CacheKey& key, std::string bytes) = 0;
  // How many entries went. May block for seconds. Unavailable, DeadlineExceeded: some may be left.
  virtual absl::StatusOr<int64_t> Purge(const PurgeScope& scope) = 0;
  virtual StoreStats stats() const = 0;
};

}  // namespace millrace
