// SPDX-License-Identifier: Apache-2.0
#pragma once
// One connection to a Redis server: a command, its reply, within a time limit. One thread at a time. The process must
// ignore SIGPIPE.
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cache/redis_url.h"

struct redisContext;

namespace millrace {

struct RedisReply {
  enum class Kind : uint8_t { kNull, kString, kInteger, kList } kind = Kind::kNull;
  std::string text;               // of kString, too for +OK
  int64_t number = 0;             // kInteger
  std::vector<RedisReply> items;  // kList
};

class RedisConnection {
 public:
  // Connects, authenticates, chooses the database. Looks up the host's name, which may take longer than `limit`.
  // Unavailable: nobody there, or somebody who does not speak Redis; PermissionDenied: the password.
  static absl::StatusOr<std::unique_ptr<RedisConnection>> Open(const RedisAddress& address, absl::Duration limit);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  // Unavailable: the connection is broken and must be dropped. FailedPrecondition: the server's error.
  absl::StatusOr<RedisReply> Run(std::span<const std::string_view> command);
  absl::StatusOr<RedisReply> Run(std::initializer_list<std::string_view> command) {
    return Run(std::span(command.begin(), command.size()));
  }

 private:
  RedisConnection(redisContext* context, absl::Duration limit) : context_(context), limit_(limit) {}

  redisContext* const context_;
  const absl::Duration limit_;
};

}  // namespace millrace
