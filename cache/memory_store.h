// SPDX-License-Identifier: Apache-2.0
#pragma once
// A store in this process: bounded in bytes, the least recently used goes first, nothing stays beyond its time.
#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "cache/answer_store.h"

namespace millrace {

struct MemoryStoreOptions {
  int64_t max_bytes = 256 << 20;  // of values and what keeps them
  absl::Duration ttl = absl::Hours(1);
  std::function<absl::Time()> now;  // null: the clock of the machine
};

std::unique_ptr<AnswerStore> MakeMemoryStore(MemoryStoreOptions options);

}  // namespace millrace
