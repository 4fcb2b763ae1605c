// SPDX-License-Identifier: Apache-2.0
#pragma once
// A store in a Redis server, shared by replicas. Its own thread connects and writes; a reader waits for one command at
// most, and not at all while there is no connection: then everything is a miss, and the thread tries again with growing
// pauses. Redis drops what is too old (PX) and, as it is told, what is too much (maxmemory).
#include <memory>

#include "absl/time/time.h"
#include "cache/answer_store.h"
#include "cache/redis_url.h"

namespace millrace {

struct RedisStoreOptions {
  RedisAddress address;
  absl::Duration ttl = absl::Hours(1);
  absl::Duration command_limit = absl::Milliseconds(100);  // of a command, and of connecting
  absl::Duration min_pause = absl::Milliseconds(100);      // before connecting again; doubles up to the next
  absl::Duration max_pause = absl::Seconds(5);
  absl::Duration purge_limit = absl::Seconds(10);
  int num_connections = 4;
  size_t max_queued_bytes = 32 << 20;  // of values to write; beyond, values are dropped
};

class RedisStore : public AnswerStore {
 public:
  static std::unique_ptr<RedisStore> Start(const RedisStoreOptions& options);

  // False: not within the time. Connected, and nothing is left to write.
  virtual bool AwaitReady(absl::Duration limit) const = 0;
};

}  // namespace millrace
