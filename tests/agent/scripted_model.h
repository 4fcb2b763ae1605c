// SPDX-License-Identifier: Apache-2.0
#pragma once
// A TurnModel that says what a test wants, and remembers what it was asked.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "agent/turn_model.h"

namespace millrace {

class ScriptedModel : public TurnModel {
 public:
  // What was asked in one turn, and with which conversation.
  struct Asked {
    Conversation conversation;
    std::vector<std::string> required_tools;
    int64_t max_output_tokens = 0;
  };

  // One turn after the other; beyond the last, the last again. A hook may look at what is asked, or cancel.
  explicit ScriptedModel(std::vector<Turn> turns) : turns_(std::move(turns)) {}
  std::function<void(int turn)> before_turn;
  bool tells_prompt = false;  // as the server's model does

  Turn Run(const TurnRequest& request, const std::function<void(TurnDelta&&)>& sink, const Cancellation&) override {
    if (before_turn) before_turn(static_cast<int>(asked_.size()));
    Turn turn = turns_[std::min(asked_.size(), turns_.size() - 1)];
    asked_.push_back({request.conversation, request.required_tools, request.max_output_tokens});
    if (tells_prompt && turn.status.ok()) sink({.num_prompt_tokens = turn.usage.num_prompt_tokens});
    if (!turn.reasoning.empty()) sink({.reasoning = turn.reasoning});
    if (!turn.text.empty()) sink({.text = turn.text});
    for (const ToolCall& call : turn.calls) sink({.calls = {call}});
    return turn;
  }

  const std::vector<Asked>& asked() const { return asked_; }

 private:
  const std::vector<Turn> turns_;
  std::vector<Asked> asked_;
};

inline Turn SaysText(std::string text) { return {.text = std::move(text), .usage = {10, 5, 3}}; }
inline Turn MakesCalls(std::vector<ToolCall> calls) { return {.calls = std::move(calls), .usage = {10, 5, 3}}; }

// A tool whose work is a function.
class ScriptedTool : public Tool {
 public:
  using Work = std::function<ToolResult(std::string_view arguments, absl::Time deadline, const Cancellation&)>;

  ScriptedTool(std::string name, Work work, bool is_idempotent = false)
      : name_(std::move(name)), work_(std::move(work)), is_idempotent_(is_idempotent) {}
  std::string_view name() const override { return name_; }
  std::string_view description() const override { return "does what the test says"; }
  std::string_view parameters() const override { return parameters_; }
  bool is_idempotent() const override { return is_idempotent_; }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override {
    return work_(arguments, deadline, cancellation);
  }
  void SetParameters(std::string schema) { parameters_ = std::move(schema); }

 private:
  const std::string name_;
  const Work work_;
  const bool is_idempotent_;
  std::string parameters_ = R"({"type":"object"})";
};

}  // namespace millrace
