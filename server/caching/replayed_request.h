// SPDX-License-Identifier: Apache-2.0
#pragma once
// A request that is answered without being computed: passes deltas on, marks its prompt as cached, and tells the
// observer what the engine's way would have told of it. One thread at a time; dropped before its end, it was cancelled.
#include <memory>
#include <vector>

#include "server/pipeline/generation.h"

namespace millrace {

class ReplayedRequest {
 public:
  struct Args {
    RequestRecord record;                    // caller, cache, max_new_tokens
    std::vector<int32_t> num_prompt_tokens;  // by prompt
    int32_t num_choices_per_prompt = 1;
    RequestObserver* observer = nullptr;  // may be null
    DeltaSink sink;
    Lease lease;  // of the caller's quota: a request, and no tokens
  };
  explicit ReplayedRequest(Args args);
  ~ReplayedRequest();
  ReplayedRequest(const ReplayedRequest&) = delete;
  ReplayedRequest& operator=(const ReplayedRequest&) = delete;

  bool OnDelta(TextDelta&& delta);
  // It goes another way after all: nothing is told, or taken.
  void Discard() {
    args_.observer = nullptr;
    num_open_ = 0;
  }

 private:
  void Finish(FinishReason finish);

  Args args_;
  std::vector<int32_t> num_tokens_;  // by choice
  size_t num_open_;
};

}  // namespace millrace
