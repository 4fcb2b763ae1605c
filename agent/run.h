// SPDX-License-Identifier: Apache-2.0
#pragma once
// The agent loop: ask the model, run the tools that it calls, show it their results, until it answers. It knows no
// wire format and keeps nothing: what happens goes to a sink, in order, and what came of it is the result.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/tool.h"
#include "agent/turn_model.h"
#include "engine/text/conversation.h"

namespace millrace {

struct RunLimits {
  int32_t max_turns = 16;
  int32_t max_tool_calls = 64;    // of our tools, in the whole run
  int64_t max_total_tokens = 0;   // of prompts and outputs of all turns together; 0: no limit
  int64_t max_output_tokens = 0;  // of all turns together; 0: what the context leaves
  int32_t max_equal_calls = 3;    // the same tool with the same arguments
  int32_t max_parallel_tools = 4;
  int32_t max_tool_attempts = 3;  // of an idempotent tool whose failure may pass
  absl::Duration tool_time = absl::Seconds(30);
  absl::Duration first_retry_pause = absl::Milliseconds(200);  // doubled at each retry
  absl::Time deadline = absl::InfiniteFuture();
};

struct RunRequest {
  Conversation conversation;  // its tools are the client's: a call of one of them ends the run
  // Ours: offered after the client's, run here. No two tools of a run may have the same name.
  std::vector<std::shared_ptr<Tool>> tools;
  std::vector<std::string> required_tools;  // one of them must be called in the first turn; empty: the model decides
  CallsPerTurn calls = CallsPerTurn::kAny;
  RunLimits limits;
  std::function<absl::Time()> now = [] { return absl::Now(); };
};

enum class RunEnd : uint8_t {
  kAnswered,
  kClientCalls,   // the client is to run its tools and come back with the results
  kOutputTokens,  // the answer was cut off: max_output_tokens or the context
  kTotalTokens,
  kTurns,
  kToolCalls,
  kEqualCalls,  // the model went round in circles
  kTime,
  kCancelled,
  kFailed,  // see RunResult::status
};
// "answered", "client_calls", ...: for logs and metrics.
std::string_view RunEndName(RunEnd end);

enum class CallOwner : uint8_t { kServer, kClient };

// Turns and calls are counted through the run, from 0. A server's call always gets its result, in the order of the
// calls, before its turn has ended: where it could not be run, one that says so.
struct TurnBegan {
  int32_t turn = 0;
};
// The turn's prompt is no longer refused, only waited for. Left out where the model does not say.
struct PromptTaken {
  int32_t turn = 0;
  int64_t num_prompt_tokens = 0;
};
struct ReasoningPiece {
  int32_t turn = 0;
  std::string text;
};
struct TextPiece {
  int32_t turn = 0;
  std::string text;
};
struct CallMade {
  int32_t turn = 0;
  int32_t call = 0;
  CallOwner owner = CallOwner::kServer;
  ToolCall tool_call;
};
struct CallAnswered {
  int32_t turn = 0;
  int32_t call = 0;
  std::string id;     // of the call
  ToolResult result;  // as the model reads it: valid UTF-8, cut to its limit
  absl::Duration duration;
};
struct TurnEnded {
  int32_t turn = 0;
  TurnUsage usage;
};
struct RunEnded {
  RunEnd end = RunEnd::kAnswered;
  absl::Status status;
  TurnUsage usage;  // of all turns
};
using RunEvent =
    std::variant<TurnBegan, PromptTaken, ReasoningPiece, TextPiece, CallMade, CallAnswered, TurnEnded, RunEnded>;
// Called on the run's thread alone; may block it for a moment.
using RunSink = std::function<void(RunEvent&&)>;

struct RunResult {
  RunEnd end = RunEnd::kAnswered;
  absl::Status status;                // kFailed: why, as TurnModel says it; InvalidArgument also for two equal names
  std::vector<ChatMessage> messages;  // what the run adds to the conversation: turns and results of our tools
  std::vector<ToolCall> client_calls;
  std::string stop_sequence;
  TurnUsage usage;
  int32_t num_turns = 0;
  int32_t num_tool_calls = 0;
};

// Blocks until the run is over; runs tools on this thread and, for calls of one turn, on a few more that end before it
// does. Failures of tools, unknown names and arguments that break a tool's schema become results that the model reads;
// only the model's own failure ends the run. Where a limit ends it, what was written so far is kept.
RunResult RunAgent(TurnModel& model, RunRequest request, const RunSink& sink, const Cancellation& cancellation);

}  // namespace millrace
