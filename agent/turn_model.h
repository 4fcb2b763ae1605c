// SPDX-License-Identifier: Apache-2.0
#pragma once
// What an agent run asks of a model: one turn at a time. The server's is made for one run and brings what all of its
// turns share (who asks, how tokens are drawn); tests have one with a script.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/tool.h"
#include "engine/text/conversation.h"

namespace millrace {

enum class CallsPerTurn : uint8_t { kAny, kOne };

struct TurnRequest {
  const Conversation& conversation;         // with the tools that are offered; lives until the turn is over
  std::vector<std::string> required_tools;  // one of them must be called; empty: the model decides
  CallsPerTurn calls = CallsPerTurn::kAny;  // of a turn in which tools are required
  int64_t max_output_tokens = 0;            // 0: what the context leaves
  absl::Time deadline = absl::InfiniteFuture();
};

// A piece of a turn, in the order in which the model wrote it. A call comes whole.
struct TurnDelta {
  int64_t num_prompt_tokens = 0;  // not 0, in the first delta alone: the prompt was taken, and is this long
  std::string reasoning;
  std::string text;
  std::vector<ToolCall> calls;
};

struct TurnUsage {
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // of the prompt: found, not computed
  int64_t num_output_tokens = 0;
  int64_t num_reasoning_tokens = 0;  // of the output

  TurnUsage& operator+=(const TurnUsage& other) {
    num_prompt_tokens += other.num_prompt_tokens;
    num_cached_tokens += other.num_cached_tokens;
    num_output_tokens += other.num_output_tokens;
    num_reasoning_tokens += other.num_reasoning_tokens;
    return *this;
  }
};

enum class TurnFinish : uint8_t {
  kStop,    // the model was done, or a stop string came
  kLength,  // cut off by max_output_tokens or the end of the context
};

// What the model wrote: all of it, or where `status` is an error, what there was until then.
struct Turn {
  // InvalidArgument: the conversation cannot be a prompt (too long, say); ResourceExhausted, Unavailable: no room now;
  // DeadlineExceeded; Cancelled; else the engine failed.
  absl::Status status;
  std::string reasoning;
  std::string text;
  std::vector<ToolCall> calls;
  TurnFinish finish = TurnFinish::kStop;
  std::string stop_sequence;  // the client's own that ended it; empty: none
  TurnUsage usage;
};

class TurnModel {
 public:
  virtual ~TurnModel() = default;

  // Blocks until the turn is over; the deltas go to `sink` on the caller's thread, and together are the turn. One turn
  // at a time.
  virtual Turn Run(const TurnRequest& request, const std::function<void(TurnDelta&&)>& sink,
                   const Cancellation& cancellation) = 0;
};

}  // namespace millrace
