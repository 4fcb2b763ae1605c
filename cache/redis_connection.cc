// SPDX-License-Identifier: Apache-2.0
#include "cache/redis_connection.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

constexpr size_t kMaxItems = 1 << 20;

struct ReplyDeleter {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using OwnedReply = std::unique_ptr<redisReply, ReplyDeleter>;

absl::Status Broken(const redisContext* context) {
  return absl::UnavailableError(absl::StrCat("Redis: ", context->err != 0 ? context->errstr : "no reply in time"));
}

// Commands here get flat lists at most within one list (SCAN's), so the depth is small.
RedisReply Convert(const redisReply& from, int depth = 0) {
  RedisReply reply;
  switch (from.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      reply.kind = RedisReply::Kind::kString;
      reply.text.assign(from.str, from.len);
      break;
    case REDIS_REPLY_INTEGER:
      reply.kind = RedisReply::Kind::kInteger;
      reply.number = from.integer;
      break;
    case REDIS_REPLY_ARRAY:
      reply.kind = RedisReply::Kind::kList;
      for (size_t i = 0; depth < 2 && i < std::min(from.elements, kMaxItems); ++i) {
        reply.items.push_back(Convert(*from.element[i], depth + 1));
      }
      break;
    default:
      break;
  }
  return reply;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisConnection::Open(const RedisAddress& address,
                                                                       absl::Duration limit) {
  const timeval time = absl::ToTimeval(limit);
  redisContext* context = redisConnectWithTimeout(address.host.c_str(), address.port, time);
  if (context == nullptr) return absl::UnavailableError("Redis: out of memory");
  std::unique_ptr<RedisConnection> connection(new RedisConnection(context, limit));
  if (context->err != 0 || redisSetTimeout(context, time) != REDIS_OK) return Broken(context);
  if (!address.password.empty()) {
    const auto reply = address.user.empty() ? connection->Run({"AUTH", address.password})
                                            : connection->Run({"AUTH", address.user, address.password});
    if (absl::IsFailedPrecondition(reply.status())) return absl::PermissionDeniedError(reply.status().message());
    if (!reply.ok()) return reply.status();
  }
  const auto reply = connection->Run({"SELECT", absl::StrCat(address.database)});
  if (!reply.ok()) return reply.status();
  return connection;
}

RedisConnection::~RedisConnection() { redisFree(context_); }

// Not redisCommand: its time limit begins anew with every byte that trickles in.
absl::StatusOr<RedisReply> RedisConnection::Run(std::span<const std::string_view> command) {
  const absl::Time deadline = absl::Now() + limit_;
  std::vector<const char*> texts;
  std::vector<size_t> num_bytes;
  for (const std::string_view word : command) {
    texts.push_back(word.data());
    num_bytes.push_back(word.size());
  }
  if (redisAppendCommandArgv(context_, static_cast<int>(command.size()), texts.data(), num_bytes.data()) != REDIS_OK) {
    return Broken(context_);
  }
  for (int is_written = 0; is_written == 0;) {
    if (redisBufferWrite(context_, &is_written) != REDIS_OK || absl::Now() > deadline) return Broken(context_);
  }
  void* raw = nullptr;
  while (true) {
    if (redisGetReplyFromReader(context_, &raw) != REDIS_OK) return Broken(context_);
    if (raw != nullptr) break;
    if (absl::Now() > deadline || redisBufferRead(context_) != REDIS_OK) return Broken(context_);
  }
  const OwnedReply reply(static_cast<redisReply*>(raw));
  if (reply->type == REDIS_REPLY_ERROR) {
    return absl::FailedPreconditionError(absl::StrCat("Redis: ", absl::string_view(reply->str, reply->len)));
  }
  return Convert(*reply);
}

}  // namespace millrace
