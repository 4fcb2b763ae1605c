// SPDX-License-Identifier: Apache-2.0
#include "agent/run.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/call_tools.h"
#include "agent/offer_tools.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_value.h"

namespace millrace {
namespace {

class Run {
 public:
  Run(TurnModel& model, RunRequest request, const RunSink& sink, const Cancellation& cancellation)
      : model_(model), request_(std::move(request)), sink_(sink), cancellation_(cancellation) {}

  RunResult Go() {
    if (absl::Status status = Offer(); !status.ok()) return End(RunEnd::kFailed, std::move(status));
    while (true) {
      if (cancellation_.is_cancelled()) return End(RunEnd::kCancelled);
      if (request_.now() >= limits().deadline) return End(RunEnd::kTime);
      const Turn turn = TakeTurn();
      const std::optional<RunEnd> end = Act(turn);
      sink_(TurnEnded{.turn = result_.num_turns++, .usage = turn.usage});
      if (end.has_value()) return End(*end, turn.status);
    }
  }

 private:
  struct Made {
    int32_t call = 0;
    CallOwner owner = CallOwner::kServer;
    ToolCall tool_call;
  };

  const RunLimits& limits() const { return request_.limits; }
  absl::Status Offer();
  Turn TakeTurn();
  void OnDelta(TurnDelta&& delta);
  int64_t OutputTokensLeft() const;
  std::optional<RunEnd> Act(const Turn& turn);
  std::optional<RunEnd> EndOfTurn(const Turn& turn) const;
  std::optional<RunEnd> LimitReached() const;
  std::optional<RunEnd> RunCalls();
  void Answer(const Made& made, ToolOutcome outcome);
  void AnswerUnrun(const std::vector<Made>& calls, RunEnd end);
  CallOwner OwnerOf(std::string_view name) const;
  RunResult End(RunEnd end, absl::Status status = absl::OkStatus());

  TurnModel& model_;
  RunRequest request_;
  const RunSink& sink_;
  const Cancellation& cancellation_;
  RunResult result_;
  std::set<std::string, std::less<>> client_tools_;
  std::vector<Made> made_;  // the calls of this turn
  int32_t num_calls_ = 0;   // anyone's, in the whole run
  std::map<std::pair<std::string, std::string>, int32_t> equal_calls_;
};

absl::Status Run::Offer() {
  const TemplateValue& offered = request_.conversation.tools;
  if (offered.is_list()) {
    for (const TemplateValue& described : offered.as_list().items) {
      client_tools_.emplace(ReadOfferedFunction(described).name);
    }
  }
  return OfferTools(request_.tools, request_.conversation);
}

int64_t Run::OutputTokensLeft() const {
  const TurnUsage& used = result_.usage;
  int64_t left = 0;
  if (limits().max_output_tokens > 0) left = limits().max_output_tokens - used.num_output_tokens;
  if (limits().max_total_tokens > 0) {
    const int64_t of_total = limits().max_total_tokens - used.num_prompt_tokens - used.num_output_tokens;
    left = limits().max_output_tokens > 0 ? std::min(left, of_total) : of_total;
  }
  return left;
}

Turn Run::TakeTurn() {
  made_.clear();
  sink_(TurnBegan{.turn = result_.num_turns});
  TurnRequest request{.conversation = request_.conversation,
                      .calls = request_.calls,
                      .max_output_tokens = OutputTokensLeft(),
                      .deadline = limits().deadline};
  // Once a required call was made, requiring it again would never end.
  if (result_.num_turns == 0) request.required_tools = request_.required_tools;
  Turn turn = model_.Run(request, [this](TurnDelta&& delta) { OnDelta(std::move(delta)); }, cancellation_);
  result_.usage += turn.usage;
  result_.stop_sequence = turn.stop_sequence;
  if (turn.text.empty() && turn.reasoning.empty() && turn.calls.empty() && !turn.status.ok()) return turn;
  ChatMessage message{.role = "assistant", .reasoning_content = turn.reasoning};
  if (!turn.text.empty() || turn.calls.empty()) message.content = turn.text;
  for (const ToolCall& call : turn.calls) message.tool_calls.push_back({call.id, call.name, call.arguments});
  request_.conversation.messages.push_back(message);
  // A last message that was to be gone on with has been.
  request_.conversation.continues_final_message = false;
  request_.conversation.adds_generation_prompt = true;
  result_.messages.push_back(std::move(message));
  return turn;
}

void Run::OnDelta(TurnDelta&& delta) {
  const int32_t turn = result_.num_turns;
  if (delta.num_prompt_tokens > 0) sink_(PromptTaken{.turn = turn, .num_prompt_tokens = delta.num_prompt_tokens});
  if (!delta.reasoning.empty()) sink_(ReasoningPiece{.turn = turn, .text = std::move(delta.reasoning)});
  if (!delta.text.empty()) sink_(TextPiece{.turn = turn, .text = std::move(delta.text)});
  for (ToolCall& call : delta.calls) {
    made_.push_back({.call = num_calls_++, .owner = OwnerOf(call.name), .tool_call = std::move(call)});
    const Made& made = made_.back();
    sink_(CallMade{.turn = turn, .call = made.call, .owner = made.owner, .tool_call = made.tool_call});
  }
}

// A name that nobody knows is ours to answer, where we offered tools at all.
CallOwner Run::OwnerOf(std::string_view name) const {
  const bool is_clients = request_.tools.empty() || client_tools_.contains(name);
  return is_clients ? CallOwner::kClient : CallOwner::kServer;
}

// Why the turn itself ends the run, whatever it called.
std::optional<RunEnd> Run::EndOfTurn(const Turn& turn) const {
  if (cancellation_.is_cancelled()) return RunEnd::kCancelled;
  if (absl::IsDeadlineExceeded(turn.status)) return RunEnd::kTime;
  if (absl::IsCancelled(turn.status)) return RunEnd::kCancelled;
  if (!turn.status.ok()) return RunEnd::kFailed;
  if (turn.finish == TurnFinish::kLength) {
    const bool is_total = LimitReached() == RunEnd::kTotalTokens;
    return is_total ? RunEnd::kTotalTokens : RunEnd::kOutputTokens;
  }
  return made_.empty() ? std::optional(RunEnd::kAnswered) : std::nullopt;
}

// Whether another turn could follow this one.
std::optional<RunEnd> Run::LimitReached() const {
  const TurnUsage& used = result_.usage;
  if (limits().max_total_tokens > 0 && used.num_prompt_tokens + used.num_output_tokens >= limits().max_total_tokens) {
    return RunEnd::kTotalTokens;
  }
  if (limits().max_output_tokens > 0 && used.num_output_tokens >= limits().max_output_tokens) {
    return RunEnd::kOutputTokens;
  }
  if (result_.num_turns + 1 >= limits().max_turns) return RunEnd::kTurns;
  return std::nullopt;
}

std::optional<RunEnd> Run::Act(const Turn& turn) {
  const std::optional<RunEnd> end_of_turn = EndOfTurn(turn);
  bool has_client_calls = false;
  for (const Made& made : made_) {
    if (made.owner == CallOwner::kServer) continue;
    result_.client_calls.push_back(made.tool_call);
    has_client_calls = true;
  }
  if (end_of_turn.has_value()) {
    AnswerUnrun(made_, *end_of_turn);
    return end_of_turn;
  }
  if (!has_client_calls) {
    // Nobody would read the results.
    if (const std::optional<RunEnd> limit = LimitReached()) {
      AnswerUnrun(made_, *limit);
      return limit;
    }
  }
  const std::optional<RunEnd> end = RunCalls();
  if (end.has_value()) return end;
  return has_client_calls ? std::optional(RunEnd::kClientCalls) : std::nullopt;
}

std::optional<RunEnd> Run::RunCalls() {
  std::vector<Made> allowed, refused;
  std::optional<RunEnd> end;
  for (Made& made : made_) {
    if (made.owner == CallOwner::kClient) continue;
    if (!end && result_.num_tool_calls >= limits().max_tool_calls) end = RunEnd::kToolCalls;
    if (!end && ++equal_calls_[{made.tool_call.name, made.tool_call.arguments}] > limits().max_equal_calls) {
      end = RunEnd::kEqualCalls;
    }
    if (!end) ++result_.num_tool_calls;
    (end ? refused : allowed).push_back(std::move(made));
  }
  std::vector<ToolCall> calls;
  for (const Made& made : allowed) calls.push_back(made.tool_call);
  std::vector<ToolOutcome> outcomes = CallTools(request_.tools, calls,
                                                {.max_parallel = limits().max_parallel_tools,
                                                 .max_attempts = limits().max_tool_attempts,
                                                 .tool_time = limits().tool_time,
                                                 .first_retry_pause = limits().first_retry_pause,
                                                 .deadline = limits().deadline,
                                                 .now = request_.now},
                                                cancellation_);
  for (size_t i = 0; i < allowed.size(); ++i) Answer(allowed[i], std::move(outcomes[i]));
  if (end.has_value()) AnswerUnrun(refused, *end);
  return end;
}

void Run::Answer(const Made& made, ToolOutcome outcome) {
  ChatMessage message{.role = "tool",
                      .content = absl::StrCat(outcome.result.is_error ? "Error: " : "", outcome.result.text),
                      .name = made.tool_call.name,
                      .tool_call_id = made.tool_call.id};
  request_.conversation.messages.push_back(message);
  result_.messages.push_back(std::move(message));
  sink_(CallAnswered{.turn = result_.num_turns,
                     .call = made.call,
                     .id = made.tool_call.id,
                     .result = std::move(outcome.result),
                     .duration = outcome.duration});
}

void Run::AnswerUnrun(const std::vector<Made>& calls, RunEnd end) {
  for (const Made& made : calls) {
    if (made.owner == CallOwner::kClient) continue;
    Answer(made, {.result = ToolError(absl::StrCat("not run: the run ended (", std::string(RunEndName(end)), ")"))});
  }
}

RunResult Run::End(RunEnd end, absl::Status status) {
  result_.end = end;
  if (end == RunEnd::kFailed) result_.status = std::move(status);
  sink_(RunEnded{.end = end, .status = result_.status, .usage = result_.usage});
  return std::move(result_);
}

}  // namespace

RunResult RunAgent(TurnModel& model, RunRequest request, const RunSink& sink, const Cancellation& cancellation) {
  return Run(model, std::move(request), sink, cancellation).Go();
}

std::string_view RunEndName(RunEnd end) {
  switch (end) {
    case RunEnd::kAnswered:
      return "answered";
    case RunEnd::kClientCalls:
      return "client_calls";
    case RunEnd::kOutputTokens:
      return "output_tokens";
    case RunEnd::kTotalTokens:
      return "total_tokens";
    case RunEnd::kTurns:
      return "turns";
    case RunEnd::kToolCalls:
      return "tool_calls";
    case RunEnd::kEqualCalls:
      return "equal_calls";
    case RunEnd::kTime:
      return "time";
    case RunEnd::kCancelled:
      return "cancelled";
    case RunEnd::kFailed:
      return "failed";
  }
  return "";
}

}  // namespace millrace
