// SPDX-License-Identifier: Apache-2.0
#pragma once
// Answers of /v1/responses that clients may come back to, in SQLite. Every question names its tenant: what belongs to
// another does not exist. Thread-safe; a call may wait for the disk.
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/storage/database.h"

namespace millrace {

struct StoredResponse {
  std::string id;
  std::string previous_id;  // empty: it began a conversation
  std::string body;         // the response object, JSON
  std::string input;        // what was new in its request: a JSON list of items, each with an id
};

struct ResponseStoreOptions {
  std::string path;                            // of the database; empty: in memory, gone with the process
  absl::Duration lifetime = absl::Hours(720);  // thirty days
  int64_t max_bytes = int64_t{1} << 30;        // of all responses; beyond, the largest tenant's oldest go
};

class ResponseStore {
 public:
  // FailedPrecondition: the file is damaged or not ours. Unavailable: another process holds it.
  static absl::StatusOr<std::unique_ptr<ResponseStore>> Open(const ResponseStoreOptions& options);

  // `item_ids`: of the items in it, for FindItem. ResourceExhausted: it alone is beyond the limit, or the disk is full.
  absl::Status Put(std::string_view tenant, const StoredResponse& response, const std::vector<std::string>& item_ids,
                   absl::Time now);
  // NotFound for all four: unknown, expired, or another tenant's.
  absl::StatusOr<StoredResponse> Get(std::string_view tenant, std::string_view id, absl::Time now);
  absl::Status Delete(std::string_view tenant, std::string_view id, absl::Time now);
  // The response and those before it, oldest first. OutOfRange: more than kMaxChain or kMaxChainBytes.
  absl::StatusOr<std::vector<StoredResponse>> Chain(std::string_view tenant, std::string_view id, absl::Time now);
  // The response that holds the item.
  absl::StatusOr<StoredResponse> FindItem(std::string_view tenant, std::string_view item_id, absl::Time now);

  static constexpr size_t kMaxChain = 4096;
  static constexpr int64_t kMaxChainBytes = 64 << 20;

 private:
  explicit ResponseStore(const ResponseStoreOptions& options) : options_(options) {}
  absl::Status CountBytes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Insert(std::string_view tenant, const StoredResponse& response, const std::vector<std::string>& item_ids,
                      absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status MakeRoom(int64_t num_bytes, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<StoredResponse> Find(std::string_view tenant, std::string_view id, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Remove(const std::string& tenant, const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ResponseStoreOptions options_;
  absl::Mutex mu_;
  std::unique_ptr<Database> database_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t, std::less<>> bytes_by_tenant_ ABSL_GUARDED_BY(mu_);
  int64_t num_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace millrace
