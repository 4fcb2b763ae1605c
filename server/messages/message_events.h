// SPDX-License-Identifier: Apache-2.0
#pragma once
// A run's events to Anthropic's message and its stream of events. The message is put together from the same blocks that
// the stream shows. Owned by one request, used by its run's thread.
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/run.h"

namespace millrace {

// What offers a tool of ours, and its name there.
struct ToolSource {
  std::string server;
  std::string name;
};

struct MessageEventsArgs {
  std::string id;
  std::string model;
  int64_t max_tokens = 0;
  bool shows_thinking = true;
  std::function<ToolSource(std::string_view tool_name)> source_of;  // of a tool of ours; null: none has a name
  // Server-sent events as they come, each whole: "event: ...\ndata: ...\n\n". Null: nobody streams.
  std::function<void(std::string_view bytes)> stream;
};

class MessageEvents {
 public:
  explicit MessageEvents(MessageEventsArgs args) : args_(std::move(args)) {}

  // message_start and a first ping.
  void Begin(int64_t num_prompt_tokens);
  void Handle(const RunEvent& event);
  // message_delta and message_stop. REQUIRES: the run did not fail.
  void End(const RunResult& result);

  // The message. After End.
  std::string Object() const;
  bool has_blocks() const { return !blocks_.empty(); }

 private:
  enum class Open : uint8_t { kNothing, kThinking, kText };

  void On(const ReasoningPiece& piece);
  void On(const TextPiece& piece);
  void On(const CallMade& made);
  void On(const CallAnswered& answered);

  void OpenBlock(Open kind);
  void CloseBlock();
  std::string Message(std::string_view content, std::string_view usage) const;
  void StartBlock(std::string_view block);
  void Delta(std::string_view type, std::string_view name, std::string_view text);
  void StopBlock(std::string block);
  void Emit(std::string_view type, std::string_view members);

  const MessageEventsArgs args_;
  std::vector<std::string> blocks_;  // whole ones; the next one's index is their number
  Open open_ = Open::kNothing;
  std::string text_;                                                   // of the open block
  std::string stop_reason_ = "null", stop_sequence_ = "null", usage_;  // JSON
};

}  // namespace millrace
