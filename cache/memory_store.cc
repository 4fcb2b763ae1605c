// SPDX-License-Identifier: Apache-2.0
#include "cache/memory_store.h"

#include <list>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

constexpr int64_t kEntryBytes = 256;  // of the list, the table and the allocator, about

class MemoryStore : public AnswerStore {
 public:
  explicit MemoryStore(MemoryStoreOptions options) : options_(std::move(options)) {}

  std::shared_ptr<const std::string> Get(const CacheKey& key) override {
    std::shared_ptr<const std::string> expired;  // dies after the lock is gone
    absl::MutexLock lock(&mu_);
    const auto found = table_.find(key.digest);
    if (found == table_.end() || found->second->key != key) return nullptr;
    if (Now() >= found->second->expires) {
      expired = Remove(found->second);
      return nullptr;
    }
    order_.splice(order_.begin(), order_, found->second);
    return found->second->bytes;
  }

  void Put(const CacheKey& key, std::string bytes) override {
    const int64_t num_bytes = static_cast<int64_t>(bytes.size() + key.tenant.size() + key.model.size()) + kEntryBytes;
    if (num_bytes > options_.max_bytes) return;
    auto value = std::make_shared<const std::string>(std::move(bytes));
    std::list<std::shared_ptr<const std::string>> dropped;  // die after the lock is gone
    absl::MutexLock lock(&mu_);
    if (const auto found = table_.find(key.digest); found != table_.end()) dropped.push_back(Remove(found->second));
    while (stats_.num_bytes + num_bytes > options_.max_bytes) {
      if (Now() < order_.back().expires) ++stats_.num_evictions;
      dropped.push_back(Remove(std::prev(order_.end())));
    }
    order_.push_front({.key = key, .bytes = std::move(value), .num_bytes = num_bytes, .expires = Now() + options_.ttl});
    table_[key.digest] = order_.begin();
    stats_.num_bytes += num_bytes;
    ++stats_.num_entries;
  }

  absl::StatusOr<int64_t> Purge(const PurgeScope& scope) override {
    std::list<std::shared_ptr<const std::string>> dropped;
    absl::MutexLock lock(&mu_);
    for (auto entry = order_.begin(); entry != order_.end();) {
      const auto next = std::next(entry);
      if (scope.Covers(entry->key)) dropped.push_back(Remove(entry));
      entry = next;
    }
    return static_cast<int64_t>(dropped.size());
  }

  StoreStats stats() const override {
    absl::MutexLock lock(&mu_);
    return stats_;
  }

 private:
  struct Entry {
    CacheKey key;
    std::shared_ptr<const std::string> bytes;
    int64_t num_bytes = 0;
    absl::Time expires;
  };
  using Order = std::list<Entry>;  // the most recently used first

  absl::Time Now() const { return options_.now ? options_.now() : absl::Now(); }

  std::shared_ptr<const std::string> Remove(Order::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    std::shared_ptr<const std::string> bytes = std::move(entry->bytes);
    stats_.num_bytes -= entry->num_bytes;
    --stats_.num_entries;
    table_.erase(entry->key.digest);
    order_.erase(entry);
    return bytes;
  }

  const MemoryStoreOptions options_;
  mutable absl::Mutex mu_;
  Order order_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Digest, Order::iterator> table_ ABSL_GUARDED_BY(mu_);
  StoreStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::unique_ptr<AnswerStore> MakeMemoryStore(MemoryStoreOptions options) {
  return std::make_unique<MemoryStore>(std::move(options));
}

}  // namespace millrace
