// SPDX-License-Identifier: Apache-2.0
#include "server/storage/response_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr int32_t kApplicationId = 0x4d526573;  // "MRes"
constexpr int32_t kVersion = 1;
constexpr int kMaxExpiredAtOnce = 64;  // a request should not pay for a night's worth

const std::vector<std::string>& Schema() {
  static const auto& schema = *new std::vector<std::string>{
      "CREATE TABLE responses (tenant TEXT NOT NULL, id TEXT NOT NULL, previous TEXT NOT NULL, created INTEGER NOT "
      "NULL, bytes INTEGER NOT NULL, body TEXT NOT NULL, input TEXT NOT NULL, PRIMARY KEY (tenant, id)) STRICT",
      "CREATE INDEX responses_by_age ON responses (created)",
      "CREATE INDEX responses_by_tenant_and_age ON responses (tenant, created)",
      "CREATE TABLE items (tenant TEXT NOT NULL, id TEXT NOT NULL, response TEXT NOT NULL, PRIMARY KEY (tenant, id)) "
      "STRICT, WITHOUT ROWID",
      "CREATE INDEX items_by_response ON items (tenant, response)"};
  return schema;
}

absl::Status Unknown(std::string_view id) {
  const absl::string_view shown(id.data(), std::min<size_t>(id.size(), 100));
  return absl::NotFoundError(absl::StrCat("Response with id '", shown, "' not found."));
}

int64_t StoredBytes(const StoredResponse& response) {
  return static_cast<int64_t>(response.body.size() + response.input.size() + response.id.size() +
                              response.previous_id.size());
}

StoredResponse ReadRow(const Statement& row) {
  return {.id = row.Text(0), .previous_id = row.Text(1), .body = row.Text(2), .input = row.Text(3)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ResponseStore>> ResponseStore::Open(const ResponseStoreOptions& options) {
  auto database =
      Database::Open({.path = options.path, .application_id = kApplicationId, .version = kVersion, .schema = Schema()});
  if (!database.ok()) return database.status();
  std::unique_ptr<ResponseStore> store(new ResponseStore(options));
  absl::MutexLock lock(&store->mu_);
  store->database_ = *std::move(database);
  if (absl::Status status = store->CountBytes(); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(options.path, ": ", status.message()));
  }
  return store;
}

absl::Status ResponseStore::CountBytes() {
  bytes_by_tenant_.clear();
  num_bytes_ = 0;
  Statement sums = database_->Prepare("SELECT tenant, SUM(bytes) FROM responses GROUP BY tenant");
  while (true) {
    auto has_row = sums.Step();
    if (!has_row.ok()) return has_row.status();
    if (!*has_row) return absl::OkStatus();
    bytes_by_tenant_[sums.Text(0)] = sums.Int(1);
    num_bytes_ += sums.Int(1);
  }
}

absl::Status ResponseStore::Put(std::string_view tenant, const StoredResponse& response,
                                const std::vector<std::string>& item_ids, absl::Time now) {
  const int64_t num_bytes = StoredBytes(response);
  if (num_bytes > options_.max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the response has ", num_bytes, " bytes, and at most ", options_.max_bytes, " can be stored"));
  }
  absl::MutexLock lock(&mu_);
  absl::Status status = database_->Begin();
  if (status.ok()) status = MakeRoom(num_bytes, now);
  if (status.ok()) status = Insert(tenant, response, item_ids, now);
  if (status.ok()) status = database_->Commit();
  if (status.ok()) {
    bytes_by_tenant_[std::string(tenant)] += num_bytes;
    num_bytes_ += num_bytes;
    return status;
  }
  database_->Rollback();
  // What MakeRoom took away is back.
  if (absl::Status counted = CountBytes(); !counted.ok()) return counted;
  return status;
}

absl::Status ResponseStore::Insert(std::string_view tenant, const StoredResponse& response,
                                   const std::vector<std::string>& item_ids, absl::Time now) {
  absl::Status status = database_->Prepare("INSERT INTO responses VALUES (?,?,?,?,?,?,?)")
                            .Bind(tenant)
                            .Bind(response.id)
                            .Bind(response.previous_id)
                            .Bind(absl::ToUnixMillis(now))
                            .Bind(StoredBytes(response))
                            .Bind(response.body)
                            .Bind(response.input)
                            .Run();
  // A client may send an item's id again; the newest holder counts.
  for (size_t i = 0; status.ok() && i < item_ids.size(); ++i) {
    status = database_->Prepare("INSERT OR REPLACE INTO items VALUES (?,?,?)")
                 .Bind(tenant)
                 .Bind(item_ids[i])
                 .Bind(response.id)
                 .Run();
  }
  return status;
}

// Within a transaction: what is too old goes first, then the oldest of whoever holds most.
absl::Status ResponseStore::MakeRoom(int64_t num_bytes, absl::Time now) {
  const auto drop = [this](Statement oldest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> absl::StatusOr<bool> {
    auto has_row = oldest.Step();
    if (!has_row.ok() || !*has_row) return has_row;
    if (absl::Status status = Remove(oldest.Text(0), oldest.Text(1)); !status.ok()) return status;
    return true;
  };
  for (int i = 0; i < kMaxExpiredAtOnce; ++i) {
    Statement expired = database_->Prepare("SELECT tenant, id FROM responses WHERE created <= ? ORDER BY created");
    expired.Bind(absl::ToUnixMillis(now - options_.lifetime));
    auto is_dropped = drop(std::move(expired));
    if (!is_dropped.ok()) return is_dropped.status();
    if (!*is_dropped) break;
  }
  while (num_bytes_ + num_bytes > options_.max_bytes) {
    const auto largest = std::max_element(bytes_by_tenant_.begin(), bytes_by_tenant_.end(),
                                          [](const auto& a, const auto& b) { return a.second < b.second; });
    if (largest == bytes_by_tenant_.end()) break;
    const std::string tenant = largest->first;
    Statement oldest = database_->Prepare("SELECT tenant, id FROM responses WHERE tenant = ? ORDER BY created LIMIT 1");
    oldest.Bind(tenant);
    auto is_dropped = drop(std::move(oldest));
    if (!is_dropped.ok()) return is_dropped.status();
    if (!*is_dropped) return absl::InternalError("the stored bytes do not add up");
  }
  return absl::OkStatus();
}

absl::Status ResponseStore::Remove(const std::string& tenant, const std::string& id) {
  Statement size = database_->Prepare("SELECT bytes FROM responses WHERE tenant = ? AND id = ?");
  auto has_row = size.Bind(tenant).Bind(id).Step();
  if (!has_row.ok()) return has_row.status();
  const int64_t num_bytes = *has_row ? size.Int(0) : 0;
  for (const char* sql :
       {"DELETE FROM items WHERE tenant = ? AND response = ?", "DELETE FROM responses WHERE tenant = ? AND id = ?"}) {
    if (absl::Status status = database_->Prepare(sql).Bind(tenant).Bind(id).Run(); !status.ok()) return status;
  }
  num_bytes_ -= num_bytes;
  const auto of_tenant = bytes_by_tenant_.find(tenant);
  if (of_tenant == bytes_by_tenant_.end()) return absl::OkStatus();
  of_tenant->second -= num_bytes;
  if (of_tenant->second <= 0) bytes_by_tenant_.erase(of_tenant);
  return absl::OkStatus();
}

absl::StatusOr<StoredResponse> ResponseStore::Find(std::string_view tenant, std::string_view id, absl::Time now) {
  Statement row =
      database_->Prepare("SELECT id, previous, body, input FROM responses WHERE tenant = ? AND id = ? AND created > ?");
  auto has_row = row.Bind(tenant).Bind(id).Bind(absl::ToUnixMillis(now - options_.lifetime)).Step();
  if (!has_row.ok()) return has_row.status();
  if (!*has_row) return Unknown(id);
  return ReadRow(row);
}

absl::StatusOr<StoredResponse> ResponseStore::Get(std::string_view tenant, std::string_view id, absl::Time now) {
  absl::MutexLock lock(&mu_);
  return Find(tenant, id, now);
}

absl::Status ResponseStore::Delete(std::string_view tenant, std::string_view id, absl::Time now) {
  absl::MutexLock lock(&mu_);
  if (auto found = Find(tenant, id, now); !found.ok()) return found.status();
  absl::Status status = database_->Begin();
  if (status.ok()) status = Remove(std::string(tenant), std::string(id));
  if (status.ok()) status = database_->Commit();
  if (status.ok()) {
    // Else the log would keep its text until it is written over.
    (void)database_->Run("PRAGMA wal_checkpoint(TRUNCATE)");
    return status;
  }
  database_->Rollback();
  if (absl::Status counted = CountBytes(); !counted.ok()) return counted;
  return status;
}

absl::StatusOr<std::vector<StoredResponse>> ResponseStore::Chain(std::string_view tenant, std::string_view id,
                                                                 absl::Time now) {
  std::vector<StoredResponse> chain;
  int64_t num_bytes = 0;
  std::string next(id);
  absl::MutexLock lock(&mu_);
  while (!next.empty()) {
    if (chain.size() == kMaxChain || num_bytes > kMaxChainBytes) {
      return absl::OutOfRangeError(
          absl::StrCat("the conversation has more than ", kMaxChain, " responses or ", kMaxChainBytes, " bytes"));
    }
    auto found = Find(tenant, next, now);
    if (!found.ok()) return found.status();
    next = found->previous_id;
    num_bytes += StoredBytes(*found);
    chain.push_back(*std::move(found));
  }
  std::reverse(chain.begin(), chain.end());
  return chain;
}

absl::StatusOr<StoredResponse> ResponseStore::FindItem(std::string_view tenant, std::string_view item_id,
                                                       absl::Time now) {
  absl::MutexLock lock(&mu_);
  Statement row = database_->Prepare("SELECT response FROM items WHERE tenant = ? AND id = ?");
  auto has_row = row.Bind(tenant).Bind(item_id).Step();
  if (!has_row.ok()) return has_row.status();
  if (!*has_row) {
    const absl::string_view shown(item_id.data(), std::min<size_t>(item_id.size(), 100));
    return absl::NotFoundError(absl::StrCat("Item with id '", shown, "' not found."));
  }
  return Find(tenant, row.Text(0), now);
}

}  // namespace millrace
