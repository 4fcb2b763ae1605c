// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/session.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

constexpr std::string_view kStatelessVersion = "2026-07-28";
constexpr std::string_view kHandshakeVersions[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};
// Of the time a server has to start: an old one need not answer a question it does not know.
constexpr double kProbeShare = 0.4;

bool IsHandshakeVersion(std::string_view version) {
  return std::find(std::begin(kHandshakeVersions), std::end(kHandshakeVersions), version) !=
         std::end(kHandshakeVersions);
}

const TemplateValue* Member(const TemplateValue& value, std::string_view name) {
  return value.is_dict() ? value.as_dict().Find(name) : nullptr;
}

TemplateValue ClientInfo() {
  TemplateValue info = TemplateValue::Dict();
  info.as_dict().Set("name", TemplateValue::Text("millrace"));
  info.as_dict().Set("version", TemplateValue::Text("1"));
  return info;
}

// What every request of the stateless era carries.
TemplateValue RequestMeta() {
  TemplateValue meta = TemplateValue::Dict();
  meta.as_dict().Set("io.modelcontextprotocol/protocolVersion", TemplateValue::Text(kStatelessVersion));
  meta.as_dict().Set("io.modelcontextprotocol/clientInfo", ClientInfo());
  meta.as_dict().Set("io.modelcontextprotocol/clientCapabilities", TemplateValue::Dict());
  return meta;
}

std::vector<std::string> TextsOf(const TemplateValue* list) {
  std::vector<std::string> texts;
  if (list == nullptr || !list->is_list()) return texts;
  for (const TemplateValue& item : list->as_list().items) {
    if (item.is_string()) texts.emplace_back(item.text());
  }
  return texts;
}

bool Contains(const std::vector<std::string>& texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

absl::Status NoCommonVersion(const std::vector<std::string>& versions) {
  std::string listed;
  for (const std::string& version : versions) absl::StrAppend(&listed, listed.empty() ? "" : ", ", version);
  return absl::FailedPreconditionError(
      absl::StrCat("it speaks no version of MCP that this server knows, but: ", VisibleText(listed, 200)));
}

absl::Status Refused(std::string_view method, const RpcFailure& failure) {
  return absl::FailedPreconditionError(absl::StrCat("it refuses ", std::string(method), ": ",
                                                    VisibleText(failure.message, 300), " (", failure.code, ")"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<McpSession>> McpSession::Open(const std::function<absl::StatusOr<McpPeer>()>& launch,
                                                             const McpChannel::Events& events,
                                                             const Patience& patience) {
  absl::Status status;
  for (const Era first : {Era::kStateless, Era::kHandshake}) {
    absl::StatusOr<std::unique_ptr<McpChannel>> channel = McpChannel::Open(launch, events);
    if (!channel.ok()) return channel.status();
    std::unique_ptr<McpSession> session(new McpSession(*std::move(channel), first));
    status = first == Era::kStateless ? session->Negotiate(patience) : session->Initialize(patience);
    if (status.ok()) return session;
    // Some old servers leave when the first word is no handshake.
    if (!absl::IsUnavailable(status)) break;
  }
  return status;
}

absl::StatusOr<McpChannel::Answer> McpSession::Ask(std::string_view method, TemplateValue params,
                                                   const Patience& patience) {
  if (era_ == Era::kStateless) params.as_dict().Set("_meta", RequestMeta());
  // The two that open a conversation must not be cancelled.
  const bool is_opening = method == "server/discover" || method == "initialize";
  return channel_->Request(
      {.method = method,
       .params = params,
       .deadline = patience.deadline,
       .on_abandon = is_opening ? McpChannel::OnAbandon::kSayNothing : McpChannel::OnAbandon::kTellServer},
      patience.cancellation);
}

// The new way first. Whatever does not show that the server knows it is taken for an old server.
absl::Status McpSession::Negotiate(const Patience& patience) {
  const absl::Time now = absl::Now();
  const Patience probe{.deadline = std::min(now + (patience.deadline - now) * kProbeShare, patience.deadline),
                       .cancellation = patience.cancellation};
  const absl::StatusOr<bool> is_stateless = Discover(probe);
  if (!is_stateless.ok() && !absl::IsDeadlineExceeded(is_stateless.status())) return is_stateless.status();
  if (is_stateless.ok() && *is_stateless) return absl::OkStatus();
  era_ = Era::kHandshake;
  return Initialize(patience);
}

// False: an old server.
absl::StatusOr<bool> McpSession::Discover(const Patience& patience) {
  era_ = Era::kStateless;
  const absl::StatusOr<McpChannel::Answer> answer = Ask("server/discover", TemplateValue::Dict(), patience);
  if (!answer.ok()) return answer.status();
  if (const auto* failure = std::get_if<RpcFailure>(&*answer)) {
    const std::vector<std::string> versions = TextsOf(Member(failure->data, "supported"));
    const bool is_old = failure->code != kMcpUnsupportedVersion || versions.empty() ||
                        std::any_of(versions.begin(), versions.end(), IsHandshakeVersion);
    return is_old ? absl::StatusOr<bool>(false) : NoCommonVersion(versions);
  }
  const TemplateValue& result = std::get<RpcResult>(*answer).result;
  if (!Contains(TextsOf(Member(result, "supportedVersions")), kStatelessVersion)) return false;
  const TemplateValue* capabilities = Member(result, "capabilities");
  const TemplateValue* tools = capabilities != nullptr ? Member(*capabilities, "tools") : nullptr;
  const TemplateValue* changes = tools != nullptr ? Member(*tools, "listChanged") : nullptr;
  if (changes != nullptr && changes->is_bool() && changes->as_bool()) AskForChanges();
  return true;
}

// Answered when the server stops, if ever.
void McpSession::AskForChanges() {
  TemplateValue wanted = TemplateValue::Dict();
  wanted.as_dict().Set("toolsListChanged", TemplateValue::Bool(true));
  TemplateValue params = TemplateValue::Dict();
  params.as_dict().Set("notifications", std::move(wanted));
  params.as_dict().Set("_meta", RequestMeta());
  // A server that has ended already shows that at the next question.
  (void)channel_->Send("subscriptions/listen", params);
}

absl::Status McpSession::Initialize(const Patience& patience) {
  TemplateValue params = TemplateValue::Dict();
  params.as_dict().Set("protocolVersion", TemplateValue::Text(kHandshakeVersions[0]));
  params.as_dict().Set("capabilities", TemplateValue::Dict());
  params.as_dict().Set("clientInfo", ClientInfo());
  const absl::StatusOr<McpChannel::Answer> answer = Ask("initialize", std::move(params), patience);
  if (!answer.ok()) return answer.status();
  if (const auto* failure = std::get_if<RpcFailure>(&*answer)) {
    const std::vector<std::string> versions = TextsOf(Member(failure->data, "supported"));
    const bool is_new = failure->code == kMcpUnsupportedVersion && Contains(versions, kStatelessVersion);
    if (!is_new) return Refused("initialize", *failure);
    // It was too slow for the first question, and took it all the same.
    const absl::StatusOr<bool> again = Discover(patience);
    return again.ok() && !*again ? NoCommonVersion(versions) : again.status();
  }
  const TemplateValue* version = Member(std::get<RpcResult>(*answer).result, "protocolVersion");
  const std::string named = version != nullptr && version->is_string() ? std::string(version->text()) : "";
  if (!IsHandshakeVersion(named)) return NoCommonVersion({named});
  return channel_->Notify("notifications/initialized", TemplateValue::Dict());
}

absl::StatusOr<McpSession::ToolList> McpSession::ListTools(const Patience& patience) {
  ToolList list;
  std::set<std::string> cursors;
  size_t num_bytes = 0;
  std::string cursor;
  for (int page = 0; page < kMaxMcpToolPages; ++page) {
    TemplateValue params = TemplateValue::Dict();
    if (!cursor.empty()) params.as_dict().Set("cursor", TemplateValue::Text(cursor));
    const absl::StatusOr<McpChannel::Answer> answer = Ask("tools/list", std::move(params), patience);
    if (!answer.ok()) return answer.status();
    if (const auto* failure = std::get_if<RpcFailure>(&*answer)) return Refused("tools/list", *failure);
    absl::StatusOr<McpToolPage> read = ReadMcpToolPage(std::get<RpcResult>(*answer).result);
    if (!read.ok()) return absl::FailedPreconditionError(read.status().message());
    for (McpToolDefinition& tool : read->tools) {
      num_bytes += tool.description.size() + tool.parameters.size();
      list.tools.push_back(std::move(tool));
    }
    list.left_out.insert(list.left_out.end(), read->left_out.begin(), read->left_out.end());
    if (list.tools.size() + list.left_out.size() > kMaxMcpTools || num_bytes > kMaxMcpDefinitionBytes) {
      return absl::FailedPreconditionError(
          absl::StrCat("it lists more than ", kMaxMcpTools, " tools or ", kMaxMcpDefinitionBytes, " bytes of them"));
    }
    cursor = std::move(read->next_cursor);
    if (cursor.empty()) return list;
    if (!cursors.insert(cursor).second) return absl::FailedPreconditionError("its list of tools goes round in circles");
  }
  return absl::FailedPreconditionError(absl::StrCat("its list of tools has more than ", kMaxMcpToolPages, " pages"));
}

}  // namespace millrace
