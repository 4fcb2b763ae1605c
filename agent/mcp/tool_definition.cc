// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/tool_definition.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "agent/mcp/json_rpc.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr size_t kMaxNameBytes = 128;  // MCP's own limit
constexpr size_t kMaxDescriptionBytes = 4096;
constexpr size_t kMaxSchemaBytes = 32 << 10;
constexpr size_t kMaxAnnotationBytes = 4096;
constexpr size_t kMaxModelNameBytes = 64;  // OpenAI's limit for functions
constexpr size_t kDigestDigits = 8;        // that tell names apart which were cut
constexpr std::string_view kAnyObject = R"({"type":"object"})";

std::string Digest(std::string_view bytes) {
  std::array<unsigned char, 32> digest{};
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

bool IsNameByte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '_' ||
         byte == '-' || byte == '.' || byte == '/';
}

const TemplateValue* Member(const TemplateValue& value, std::string_view name) {
  return value.is_dict() ? value.as_dict().Find(name) : nullptr;
}

std::string TextOf(const TemplateValue& value, std::string_view name) {
  const TemplateValue* member = Member(value, name);
  return member != nullptr && member->is_string() ? std::string(member->text()) : "";
}

bool IsTrue(const TemplateValue& value, std::string_view name) {
  const TemplateValue* member = Member(value, name);
  return member != nullptr && member->is_bool() && member->as_bool();
}

// Nobody sees them, or they change how what is beside them is seen: a reader would approve another text than the model
// reads.
bool IsHidden(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x34F || c == 0x61C || c == 0x180E ||
         (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
         (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

// The end of an escape sequence of terminals that begins at `begin`.
size_t EndOfEscape(std::string_view text, size_t begin) {
  size_t at = begin + 1;
  if (at >= text.size()) return at;
  if (text[at] == '[') {
    ++at;
    while (at < text.size() && (text[at] < 0x40 || text[at] > 0x7E)) ++at;
    return std::min(at + 1, text.size());
  }
  const bool is_ascii = static_cast<unsigned char>(text[at]) < 0x80;
  if (text[at] != ']') return is_ascii ? at + 1 : at;
  // Of a title or a link: up to BEL or the next ESC.
  while (at < text.size() && text[at] != '\a' && text[at] != '\x1B') ++at;
  return at < text.size() && text[at] == '\a' ? at + 1 : at;
}

// What is offered to a model: the schema where it can be followed, else any object, with the schema for it to read.
void TakeSchema(const TemplateValue& schema, std::string json, McpToolDefinition& tool) {
  if (CompileJsonSchema(schema).ok()) {
    tool.parameters = std::move(json);
    return;
  }
  tool.parameters = kAnyObject;
  absl::StrAppend(&tool.description, tool.description.empty() ? "" : "\n",
                  "Arguments, as a JSON schema: ", VisibleText(json, kMaxDescriptionBytes));
}

absl::StatusOr<McpToolDefinition> ReadTool(const TemplateValue& value) {
  McpToolDefinition tool{.name = TextOf(value, "name")};
  if (tool.name.empty() || tool.name.size() > kMaxNameBytes ||
      !std::all_of(tool.name.begin(), tool.name.end(), IsNameByte)) {
    return absl::InvalidArgumentError(absl::StrCat("the name '", VisibleText(tool.name, 64),
                                                   "' has other characters than A-Z a-z 0-9 _ - . / or is ",
                                                   "too long"));
  }
  const TemplateValue* schema = Member(value, "inputSchema");
  if (schema == nullptr || !schema->is_dict()) {
    return absl::InvalidArgumentError(absl::StrCat("the inputSchema of '", tool.name, "' is no object"));
  }
  absl::StatusOr<std::string> json = CompactJson(*schema);
  if (!json.ok() || json->size() > kMaxSchemaBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the inputSchema of '", tool.name, "' is larger than ", kMaxSchemaBytes, " bytes"));
  }
  const std::string description = TextOf(value, "description");
  // In an order of its own: a server may write the members of an object in any.
  const absl::StatusOr<std::string> sorted = CompactJson(*schema, /*sorts_keys=*/true);
  tool.digest = Digest(absl::StrCat(tool.name.size(), " ", description.size(), " ", tool.name, description,
                                    sorted.ok() ? *sorted : *json));
  tool.description = VisibleText(description, kMaxDescriptionBytes);
  TakeSchema(*schema, *std::move(json), tool);
  const TemplateValue* annotations = Member(value, "annotations");
  const auto shown = annotations != nullptr && annotations->is_dict() ? CompactJson(*annotations)
                                                                      : absl::StatusOr<std::string>("null");
  tool.annotations = shown.ok() && shown->size() <= kMaxAnnotationBytes ? *shown : "null";
  if (annotations != nullptr) {
    tool.is_read_only = IsTrue(*annotations, "readOnlyHint");
    tool.is_idempotent = IsTrue(*annotations, "idempotentHint");
  }
  return tool;
}

}  // namespace

absl::StatusOr<McpToolPage> ReadMcpToolPage(const TemplateValue& result) {
  const TemplateValue* tools = Member(result, "tools");
  if (tools == nullptr || !tools->is_list()) return absl::InvalidArgumentError("the list of tools is none");
  McpToolPage page{.next_cursor = TextOf(result, "nextCursor")};
  if (tools->as_list().items.size() > kMaxMcpTools) {
    return absl::InvalidArgumentError(absl::StrCat("there are more than ", kMaxMcpTools, " tools"));
  }
  for (const TemplateValue& each : tools->as_list().items) {
    absl::StatusOr<McpToolDefinition> tool = ReadTool(each);
    if (tool.ok()) {
      page.tools.push_back(*std::move(tool));
    } else {
      page.left_out.emplace_back(tool.status().message());
    }
  }
  return page;
}

std::string McpToolName(std::string_view server, std::string_view tool) {
  const std::string whole = absl::StrCat(std::string(server), "__", std::string(tool));
  std::string name = whole;
  for (char& byte : name) {
    if (!IsNameByte(byte) || byte == '.' || byte == '/') byte = '_';
  }
  if (name.size() <= kMaxModelNameBytes) return name;
  return absl::StrCat(name.substr(0, kMaxModelNameBytes - kDigestDigits - 1), "_",
                      Digest(whole).substr(0, kDigestDigits));
}

std::string VisibleText(std::string_view raw, size_t max_bytes) {
  std::string text, visible;
  AppendRepairedUtf8(raw.substr(0, 4 * max_bytes), text);
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\x1B') {
      at = EndOfEscape(text, at);
      continue;
    }
    const Utf8Char next = Utf8At(text, at);
    if (visible.size() + next.num_bytes > max_bytes) break;
    if (next.code_point == '\n' || next.code_point == '\t' || !IsHidden(next.code_point)) {
      visible.append(text, at, next.num_bytes);
    }
    at += next.num_bytes;
  }
  return visible;
}

}  // namespace millrace
