// SPDX-License-Identifier: Apache-2.0
#pragma once
// A conversation as a chat template sees it: messages, tools and switches, free of any wire format. Plain data, made
// by the server from a request. All text in it is the client's and can never become a control token.
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "engine/text/template_value.h"

namespace millrace {

struct ContentPart {
  std::string type = "text";  // what else a template knows ("image", "audio") is passed on as a bare {"type": ...}
  std::string text;
};

struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text, usually an object; empty counts as {}
};

// std::monostate: the message has no content (null or left out).
using ChatContent = std::variant<std::monostate, std::string, std::vector<ContentPart>>;

struct ChatMessage {
  std::string role;
  ChatContent content;
  std::string name;                      // empty: none; so for all below
  std::vector<ChatToolCall> tool_calls;  // of an assistant
  std::string tool_call_id;              // of a tool's answer
  std::string reasoning_content;         // of an assistant that thinks
};

struct Conversation {
  std::vector<ChatMessage> messages;
  // A list of {"type": "function", "function": {"name", "description", "parameters"}} (ParseJsonValue makes it from
  // JSON text); undefined or None: no tools.
  TemplateValue tools;
  // A dict of further variables for the template, e.g. enable_thinking; undefined: none. It cannot replace messages,
  // tools, add_generation_prompt or the special tokens.
  TemplateValue template_variables;
  bool adds_generation_prompt = true;     // ends with the opening of the assistant's turn
  bool continues_final_message = false;   // ends within the last message, which the model goes on with
  absl::Time now = absl::InfinitePast();  // for templates that print the date; InfinitePast: the clock of the machine
};

}  // namespace millrace
