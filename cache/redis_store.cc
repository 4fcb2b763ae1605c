// SPDX-License-Identifier: Apache-2.0
#include "cache/redis_store.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cache/redis_connection.h"

namespace millrace {
namespace {

constexpr char kPrefix[] = "millrace:1:";

// Without the bytes that part keys or mean something in a pattern.
std::string Escape(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.') {
      out += c;
    } else {
      absl::StrAppend(&out, "%", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  return out;
}

std::string KeyText(const CacheKey& key) {
  const absl::string_view digest(reinterpret_cast<const char*>(key.digest.data()), key.digest.size());
  return absl::StrCat(kPrefix, Escape(key.tenant), ":", Escape(key.model), ":", absl::BytesToHexString(digest));
}

std::string Pattern(const PurgeScope& scope) {
  return absl::StrCat(kPrefix, scope.tenant ? Escape(*scope.tenant) : "*", ":",
                      scope.model ? Escape(*scope.model) : "*", ":*");
}

class RedisStoreImpl : public RedisStore {
 public:
  explicit RedisStoreImpl(const RedisStoreOptions& options)
      : options_(options), pause_(options.min_pause), thread_([this] { Run(); }) {}

  ~RedisStoreImpl() override {
    {
      absl::MutexLock lock(&mu_);
      is_stopping_ = true;
    }
    thread_.join();
  }

  std::shared_ptr<const std::string> Get(const CacheKey& key) override {
    std::unique_ptr<RedisConnection> connection = Take(options_.command_limit);
    if (connection == nullptr) return nullptr;
    auto reply = connection->Run({"GET", KeyText(key)});
    GiveBack(std::move(connection), reply.status());
    if (!reply.ok() || reply->kind != RedisReply::Kind::kString) return nullptr;
    return std::make_shared<const std::string>(std::move(reply->text));
  }

  void Put(const CacheKey& key, std::string bytes) override {
    absl::MutexLock lock(&mu_);
    if (!is_connected() || num_queued_bytes_ + bytes.size() > options_.max_queued_bytes) {
      ++num_errors_;
      return;
    }
    num_queued_bytes_ += bytes.size();
    queue_.push_back({KeyText(key), std::move(bytes)});
  }

  absl::StatusOr<int64_t> Purge(const PurgeScope& scope) override {
    const absl::Time deadline = absl::Now() + options_.purge_limit;
    ForgetQueued(deadline);
    std::unique_ptr<RedisConnection> connection = Take(options_.purge_limit);
    if (connection == nullptr) return absl::UnavailableError("there is no connection to Redis");
    absl::StatusOr<int64_t> num_purged = PurgeWith(*connection, Pattern(scope), deadline);
    GiveBack(std::move(connection), num_purged.status());
    return num_purged;
  }

  StoreStats stats() const override {
    absl::MutexLock lock(&mu_);
    return {.num_errors = num_errors_};
  }

  bool AwaitReady(absl::Duration limit) const override {
    const auto is_ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return is_connected() && queue_.empty() && !is_writing_;
    };
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&is_ready), limit);
  }

 private:
  struct Write {
    std::string key, bytes;
  };

  bool is_connected() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return num_open_ > 0; }

  // Nothing that was put before a purge is written after it.
  void ForgetQueued(absl::Time deadline) {
    const auto is_still = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !is_writing_; };
    absl::MutexLock lock(&mu_);
    queue_.clear();
    num_queued_bytes_ = 0;
    mu_.AwaitWithDeadline(absl::Condition(&is_still), deadline);
  }

  // Null: there is no connection, or none was free in time.
  std::unique_ptr<RedisConnection> Take(absl::Duration limit) {
    const auto is_decided = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !idle_.empty() || !is_connected(); };
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&is_decided), limit);
    if (idle_.empty()) return nullptr;
    std::unique_ptr<RedisConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
  }

  // After a connection broke the others are likely to be broken, too: waiting for each to time out would take longer
  // than connecting anew.
  void GiveBack(std::unique_ptr<RedisConnection> connection, const absl::Status& status) {
    std::vector<std::unique_ptr<RedisConnection>> dropped;  // closed after the lock is gone
    absl::MutexLock lock(&mu_);
    if (!status.ok()) ++num_errors_;
    if (absl::IsUnavailable(status)) {
      dropped.swap(idle_);
      num_open_ -= static_cast<int>(dropped.size()) + 1;
      dropped.push_back(std::move(connection));
      retry_at_ = absl::Now() + pause_;
      pause_ = std::min(pause_ * 2, options_.max_pause);
      return;
    }
    if (status.ok()) pause_ = options_.min_pause;
    idle_.push_back(std::move(connection));
  }

  static absl::StatusOr<int64_t> PurgeWith(RedisConnection& connection, const std::string& pattern,
                                           absl::Time deadline) {
    int64_t num_purged = 0;
    std::string cursor = "0";
    do {
      if (absl::Now() > deadline) return absl::DeadlineExceededError(absl::StrCat("purged ", num_purged, " so far"));
      auto reply = connection.Run({"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"});
      if (!reply.ok()) return reply.status();
      if (reply->items.size() != 2) return absl::UnavailableError("Redis: SCAN's reply has an unknown shape");
      cursor = reply->items[0].text;
      std::vector<std::string_view> command = {"UNLINK"};
      for (const RedisReply& key : reply->items[1].items) command.push_back(key.text);
      if (command.size() == 1) continue;
      const auto unlinked = connection.Run(command);
      if (!unlinked.ok()) return unlinked.status();
      num_purged += unlinked->number;
    } while (cursor != "0");
    return num_purged;
  }

  // The store's thread.
  void Run() {
    while (true) {
      Write write;
      switch (AwaitTask(write)) {
        case Task::kStop:
          return;
        case Task::kConnect:
          Connect();
          break;
        case Task::kWrite:
          WriteOut(write);
          break;
      }
    }
  }

  enum class Task : uint8_t { kStop, kConnect, kWrite };
  Task AwaitTask(Write& write) {
    absl::MutexLock lock(&mu_);
    while (true) {
      const int num_open = num_open_;
      const auto has_news = [this, num_open]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return is_stopping_ || !queue_.empty() || num_open_ != num_open;
      };
      const bool has_all = num_open == options_.num_connections;
      mu_.AwaitWithDeadline(absl::Condition(&has_news), has_all ? absl::InfiniteFuture() : retry_at_);
      if (is_stopping_) return Task::kStop;
      if (!queue_.empty()) {
        write = std::move(queue_.front());
        queue_.pop_front();
        num_queued_bytes_ -= write.bytes.size();
        is_writing_ = true;
        return Task::kWrite;
      }
      if (num_open_ < options_.num_connections && absl::Now() >= retry_at_) return Task::kConnect;
    }
  }

  void Connect() {
    auto connection = RedisConnection::Open(options_.address, options_.command_limit);
    absl::MutexLock lock(&mu_);
    if (connection.ok()) {
      idle_.push_back(*std::move(connection));
      ++num_open_;
      return;
    }
    ++num_errors_;
    retry_at_ = absl::Now() + pause_;
    pause_ = std::min(pause_ * 2, options_.max_pause);
  }

  void WriteOut(const Write& write) {
    std::unique_ptr<RedisConnection> connection = Take(options_.command_limit);
    const bool has_connection = connection != nullptr;
    if (has_connection) {
      const std::string ttl = absl::StrCat(std::max<int64_t>(1, absl::ToInt64Milliseconds(options_.ttl)));
      const auto reply = connection->Run({"SET", write.key, write.bytes, "PX", ttl});
      GiveBack(std::move(connection), reply.status());
    }
    absl::MutexLock lock(&mu_);
    if (!has_connection) ++num_errors_;
    is_writing_ = false;
  }

  const RedisStoreOptions options_;
  mutable absl::Mutex mu_;
  std::vector<std::unique_ptr<RedisConnection>> idle_ ABSL_GUARDED_BY(mu_);
  int num_open_ ABSL_GUARDED_BY(mu_) = 0;  // idle or in use
  std::deque<Write> queue_ ABSL_GUARDED_BY(mu_);
  size_t num_queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_writing_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t num_errors_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time retry_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Duration pause_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<RedisStore> RedisStore::Start(const RedisStoreOptions& options) {
  return std::make_unique<RedisStoreImpl>(options);
}

}  // namespace millrace
