// SPDX-License-Identifier: Apache-2.0
#pragma once
// What an MCP server says of its tools, made safe to show a model, and its fingerprint. Pure functions.
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/template_value.h"

namespace millrace {

// Of one server.
inline constexpr size_t kMaxMcpTools = 512;
inline constexpr size_t kMaxMcpDefinitionBytes = 4 << 20;  // of all tools together
inline constexpr int kMaxMcpToolPages = 64;

struct McpToolDefinition {
  std::string name;         // at its server: letters, digits, "_", "-", "." and "/"
  std::string description;  // printable text; bounded
  std::string parameters;   // JSON schema of an object, which grammars and argument checks can follow
  std::string annotations;  // JSON, for clients that ask; "null": none
  // As the server claims, which need not be true.
  bool is_read_only = false;
  bool is_idempotent = false;
  std::string digest;  // SHA-256, in hex, of name, description and schema as the server gave them
};

struct McpToolPage {
  std::vector<McpToolDefinition> tools;
  std::vector<std::string> left_out;  // why, one sentence each: tools that cannot be offered
  std::string next_cursor;            // empty: the last page
};
// The result of tools/list. InvalidArgument: it is none.
absl::StatusOr<McpToolPage> ReadMcpToolPage(const TemplateValue& result);

// The name by which models call a server's tool: "server__tool", in the letters that OpenAI allows and no longer than
// it allows; what does not fit is cut and told apart by a digest.
std::string McpToolName(std::string_view server, std::string_view tool);

// `text` without control characters, escape sequences, and characters that nobody sees or that turn the direction of
// what they stand in; at most `max_bytes`, cut between characters.
std::string VisibleText(std::string_view text, size_t max_bytes);

}  // namespace millrace
