// SPDX-License-Identifier: Apache-2.0
#pragma once
// A run's events to OpenAI's response object and its stream of events. The object is put together from the same items
// that the stream shows, so both say the same. Owned by one request, used by its run's thread.
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/run.h"

namespace millrace {

// Which limit cut a run off, as clients are told; "" where none did.
std::string_view IncompleteReason(RunEnd end);

// How a call of one of our tools is shown.
struct CallLook {
  bool is_code = false;  // a code_interpreter_call, whose code is the argument "code"
  std::string label;     // else an mcp_call of this server
  std::string name;      // and of this tool there; empty: as the model called it
};

// What a tool server offers in this response, for its mcp_list_tools.
struct ToolListing {
  std::string label;
  std::string tools;  // JSON list of {name, description, input_schema, annotations}
};

struct ResponseEventsArgs {
  std::string id;
  std::string model;
  int64_t created = 0;  // Unix seconds
  float temperature = 1;
  float top_p = 1;
  std::string echo;  // the members that repeat the request, without braces
  bool shows_encrypted_reasoning = false;
  bool shows_code_outputs = false;
  std::vector<ToolListing> listings;                         // shown before everything else
  std::function<CallLook(std::string_view tool_name)> look;  // null: every call is an mcp_call without a label
  // Server-sent events as they come, each whole: "event: ...\ndata: ...\n\n". Null: nobody streams.
  std::function<void(std::string_view bytes)> stream;
};

class ResponseEvents {
 public:
  explicit ResponseEvents(ResponseEventsArgs args) : args_(std::move(args)) {}

  // response.created and response.in_progress, and what is offered. Left out where nobody streams.
  void Begin();
  void Handle(const RunEvent& event);
  // After RunEnded: the object is final, but for Fail.
  void Finish();
  // What was to follow the run (storing it, say) failed.
  void Fail(const absl::Status& status);
  // The last event, and the stream's end. After Finish.
  void End();

  // The response object as it stands.
  std::string Object() const;
  // The items so far, each whole JSON; with their ids.
  const std::vector<std::string>& items() const { return items_; }
  const std::vector<std::string>& item_ids() const { return item_ids_; }
  // Not OK: the run failed.
  const absl::Status& error() const { return error_; }

 private:
  enum class Open : uint8_t { kNothing, kReasoning, kMessage };
  struct Call {
    size_t index = 0;
    CallLook look;
    ToolCall made;
  };

  void On(const ReasoningPiece& piece);
  void On(const TextPiece& piece);
  void On(const CallMade& made);
  void On(const CallAnswered& answered);
  void On(const RunEnded& ended);

  void ShowListings();
  size_t AddItem(std::string_view id_prefix);
  void OpenText(Open kind);
  void CloseText(std::string_view status);
  std::string TextItem(std::string_view status, std::string_view text, bool has_part) const;
  std::string TextPart(std::string_view text) const;
  std::string CallItem(const Call& call, std::string_view status, const ToolResult* result) const;
  void ShowArguments(const Call& call);

  void EmitItem(std::string_view type, size_t index, std::string_view item);
  void EmitAt(std::string_view type, size_t index, std::string_view members);
  void Emit(std::string_view type, std::string_view members);
  void EmitResponse(std::string_view type) { Emit(type, "\"response\":" + Object()); }

  const ResponseEventsArgs args_;
  int64_t sequence_ = 0;
  std::vector<std::string> item_ids_;
  std::vector<std::string> items_;
  bool has_listings_ = false;
  Open open_ = Open::kNothing;     // the last item, while it grows
  std::string text_;               // of it
  std::map<int32_t, Call> calls_;  // of ours that have no result yet
  std::string_view status_ = "in_progress";
  int64_t completed_ = 0;
  std::string_view incomplete_reason_;
  absl::Status error_;
  TurnUsage usage_;
};

}  // namespace millrace
