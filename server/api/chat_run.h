// SPDX-License-Identifier: Apache-2.0
#pragma once
// One agent run behind POST /v1/chat/completions: its events as OpenAI's chat.completion, whole or in chunks. What all
// turns say is one message; calls of the client's functions are its tool_calls, calls of ours are not shown. Used by
// the run's thread.
#include <memory>
#include <string>
#include <string_view>

#include "agent/run.h"
#include "server/api/answer_format.h"
#include "server/api/run_stream.h"
#include "server/pipeline/requests.h"

namespace millrace {

class ChatRun {
 public:
  ChatRun(std::shared_ptr<RunStream> out, const StreamChoices& stream, AnswerHead head)
      : out_(std::move(out)), stream_(stream), head_(std::move(head)) {}

  void OnEvent(const RunEvent& event);
  void OnDone(const RunResult& result);

 private:
  // What the turns said so far.
  struct Said {
    std::string text;
    int32_t last_turn = -1;
  };

  void Begin();
  void Say(const char* member, int32_t turn, const std::string& text, Said& said);
  void ShowCall(const ToolCall& call);
  void Fail(const absl::Status& status);
  std::string Whole(const RunResult& result) const;
  void WriteChunk(std::string_view delta, std::string_view finish);
  bool is_stream() const { return stream_.mode == AnswerMode::kStream; }

  const std::shared_ptr<RunStream> out_;
  const StreamChoices stream_;
  const AnswerHead head_;
  bool has_begun_ = false;
  Said content_, reasoning_;
  std::string calls_;  // JSON objects with commas between
  int32_t num_calls_ = 0;
};

}  // namespace millrace
