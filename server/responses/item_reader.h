// SPDX-License-Identifier: Apache-2.0
#pragma once
// Items of the Responses API, as clients send them and as we stored them, to the messages of a conversation. Stack
// object, one thread.
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/text/conversation.h"

namespace millrace {

class ItemReader {
 public:
  // Appends to `messages`, which outlive it.
  explicit ItemReader(std::vector<ChatMessage>& messages) : messages_(messages) {}

  // `path` names the item in errors: "input[2]". InvalidArgument: not an item that a text model can read.
  absl::Status Add(const nlohmann::json& item, const std::string& path);

  // Labels of tool servers whose tools an item listed.
  const std::set<std::string>& listed_servers() const { return listed_servers_; }

 private:
  absl::Status AddMessage(const nlohmann::json& item, const std::string& path);
  absl::Status AddReasoning(const nlohmann::json& item);
  absl::Status AddCall(const nlohmann::json& item, const std::string& path);
  absl::Status AddCallOutput(const nlohmann::json& item, const std::string& path);
  absl::Status AddServerCall(const nlohmann::json& item, const std::string& path);
  absl::Status AddCodeCall(const nlohmann::json& item, const std::string& path);
  void AppendCall(ChatToolCall call);
  void AppendResult(std::string call_id, std::string text);

  std::vector<ChatMessage>& messages_;
  std::string reasoning_;           // belongs to the assistant's message that comes next
  std::set<std::string> call_ids_;  // that a result may name
  std::set<std::string> listed_servers_;
};

// The item as it is stored and listed: with an id, a type, a status, and content as a list. REQUIRES: Add took it.
void CompleteItem(nlohmann::json& item);

// What reasoning.encrypted_content holds, and back; empty: not ours.
std::string PackReasoning(std::string_view text);
std::string UnpackReasoning(std::string_view packed);

}  // namespace millrace
