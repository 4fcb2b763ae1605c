// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/call_result.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "agent/mcp/json_rpc.h"
#include "agent/mcp/tool_definition.h"

namespace millrace {
namespace {

constexpr std::string_view kCut = "\n[cut: there is more]";
constexpr size_t kMaxNamedBytes = 200;  // of a type or an address in the line that names something

std::string TextOf(const TemplateValue& value, std::string_view name) {
  const TemplateValue* member = value.is_dict() ? value.as_dict().Find(name) : nullptr;
  return member != nullptr && member->is_string() ? std::string(member->text()) : "";
}

std::string InOneLine(const std::string& text) {
  std::string line = VisibleText(text, kMaxNamedBytes);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::string Named(std::string_view kind, const std::string& type, const std::string& address) {
  std::string line = absl::StrCat("[", std::string(kind));
  if (!type.empty()) absl::StrAppend(&line, " of type ", InOneLine(type));
  if (!address.empty()) absl::StrAppend(&line, ": ", InOneLine(address));
  return line + "]";
}

std::string ReadBlock(const TemplateValue& block) {
  const std::string type = TextOf(block, "type");
  if (type == "text") return TextOf(block, "text");
  if (type == "resource_link") return Named("resource", TextOf(block, "mimeType"), TextOf(block, "uri"));
  if (type == "image" || type == "audio") return Named(type, TextOf(block, "mimeType"), "");
  if (type != "resource") return Named("content that is not supported", type, "");
  const TemplateValue* resource = block.as_dict().Find("resource");
  if (resource == nullptr) return Named("resource", "", "");
  const std::string text = TextOf(*resource, "text");
  return absl::StrCat(Named("resource", TextOf(*resource, "mimeType"), TextOf(*resource, "uri")),
                      text.empty() ? "" : "\n", text);
}

}  // namespace

ToolResult ReadMcpCallResult(const TemplateValue& result) {
  if (!result.is_dict()) return ToolError("the tool server's result is no object");
  const std::string kind = TextOf(result, "resultType");
  if (kind == "input_required") {
    return ToolError("the tool asks its user for more input, which is not supported here");
  }
  if (!kind.empty() && kind != "complete") {
    return ToolError(absl::StrCat("the tool server's result is of an unknown kind: ", VisibleText(kind, 64)));
  }
  const TemplateDict& dict = result.as_dict();
  ToolResult out;
  const TemplateValue* is_error = dict.Find("isError");
  out.is_error = is_error != nullptr && is_error->is_bool() && is_error->as_bool();
  const TemplateValue* content = dict.Find("content");
  if (content != nullptr && content->is_list()) {
    for (const TemplateValue& block : content->as_list().items) {
      if (out.text.size() > kMaxToolResultBytes) break;  // what follows would be cut off
      if (!block.is_dict()) continue;
      absl::StrAppend(&out.text, out.text.empty() ? "" : "\n", ReadBlock(block));
    }
  }
  const TemplateValue* structured = dict.Find("structuredContent");
  if (out.text.empty() && structured != nullptr && !structured->is_none()) {
    const absl::StatusOr<std::string> json = CompactJson(*structured);
    if (json.ok()) out.text = *json;
  }
  if (out.text.size() > kMaxToolResultBytes) {
    out.text.resize(kMaxToolResultBytes - kCut.size());
    out.text += kCut;
  }
  return out;
}

}  // namespace millrace
