// SPDX-License-Identifier: Apache-2.0
// What an MCP server writes: lines in pieces of every size are the same lines, and each is a message, or none; of a
// result the list of tools and the text are read as if it were either.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/argument_check.h"
#include "agent/mcp/call_result.h"
#include "agent/mcp/json_rpc.h"
#include "agent/mcp/tool_definition.h"
#include "engine/text/utf8.h"

namespace {

constexpr size_t kMaxLine = 1 << 16;

void Require(bool holds) {
  if (!holds) std::abort();
}

void ReadResult(const millrace::TemplateValue& result) {
  using namespace millrace;
  Require(ReadMcpCallResult(result).text.size() <= kMaxToolResultBytes);
  const auto page = ReadMcpToolPage(result);
  if (!page.ok()) return;
  for (const McpToolDefinition& tool : page->tools) {
    Require(IsValidUtf8(tool.description) && tool.digest.size() == 64);
    Require(McpToolName("server", tool.name).size() <= 64);
    (void)CheckArguments(tool.parameters, R"({"a":1,"b":[{}]})");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  std::vector<std::string> lines, again;
  LineSplitter whole(kMaxLine), pieces(kMaxLine);
  const bool fits = whole.Push(text, lines).ok();
  bool fits_again = true;
  for (size_t at = 0; at < text.size() && fits_again; at += 3) fits_again = pieces.Push(text.substr(at, 3), again).ok();
  Require(fits == fits_again && lines == again);
  for (const std::string& line : lines) {
    const auto message = ParseRpcMessage(line);
    if (!message.ok()) continue;
    if (const auto* request = std::get_if<RpcRequest>(&*message)) Require(!request->id.empty());
    if (const auto* result = std::get_if<RpcResult>(&*message)) ReadResult(result->result);
  }
  const std::string visible = VisibleText(text, 100);
  Require(visible.size() <= 100 && IsValidUtf8(visible) && VisibleText(visible, 100) == visible);
  return 0;
}
