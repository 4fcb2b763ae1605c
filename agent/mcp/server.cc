// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/server.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "agent/mcp/call_result.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

constexpr absl::Duration kFirstPause = absl::Seconds(1);  // between starts; doubled
constexpr absl::Duration kLongestPause = absl::Minutes(1);
constexpr absl::Duration kLook = absl::Milliseconds(20);  // at a start that another call has begun
constexpr size_t kMaxToldBytes = 1000;
constexpr int kMaxErrorLines = 200;  // of one run of a server, that are told

absl::Duration PauseAfter(int num_failures) {
  if (num_failures == 0) return absl::ZeroDuration();
  return std::min(kFirstPause * (1 << std::min(num_failures - 1, 16)), kLongestPause);
}

ToolResult Transient(std::string text) { return {.is_error = true, .is_transient = true, .text = std::move(text)}; }

class McpTool : public Tool {
 public:
  McpTool(std::shared_ptr<McpServer> server, const McpToolDefinition& definition)
      : server_(std::move(server)),
        definition_(definition),
        name_(McpToolName(server_->config().name, definition.name)) {}

  std::string_view name() const override { return name_; }
  std::string_view description() const override { return definition_.description; }
  std::string_view parameters() const override { return definition_.parameters; }
  bool is_idempotent() const override {
    return server_->config().trusts_annotations && (definition_.is_read_only || definition_.is_idempotent);
  }
  ToolResult Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) override {
    return server_->Call(definition_, arguments, deadline, cancellation);
  }

 private:
  const std::shared_ptr<McpServer> server_;
  const McpToolDefinition& definition_;  // the server's
  const std::string name_;
};

}  // namespace

void McpServer::Tell(std::string_view event, std::string_view text) const {
  if (parts_.log) parts_.log(event, VisibleText(text, kMaxToldBytes));
}

absl::StatusOr<std::shared_ptr<McpServer>> McpServer::Start(McpServerConfig config, McpServerParts parts) {
  std::shared_ptr<McpServer> server(new McpServer(std::move(config), std::move(parts)));
  const Cancellation never;
  const Patience patience{.deadline = absl::Now() + server->config_.start_time, .cancellation = never};
  absl::StatusOr<std::shared_ptr<Incarnation>> first = server->Connect(patience);
  if (!first.ok()) return first.status();
  absl::StatusOr<McpSession::ToolList> list = (*first)->session->ListTools(patience);
  if (!list.ok()) return list.status();
  if (absl::Status status = server->SettleTools(*std::move(list)); !status.ok()) return status;
  absl::MutexLock lock(&server->mu_);
  server->current_ = *std::move(first);
  return server;
}

absl::StatusOr<std::shared_ptr<McpServer::Incarnation>> McpServer::Connect(const Patience& patience) const {
  auto incarnation = std::make_shared<Incarnation>();
  // The channel is the incarnation's own, and ends before it does.
  const McpChannel::Events events{.on_error_line =
                                      [this, num_told = 0](std::string_view line) mutable {
                                        if (num_told++ < kMaxErrorLines) Tell(kToolServerSays, line);
                                      },
                                  .on_fault = [this](std::string_view what) { Tell("breaks the protocol", what); },
                                  .on_tools_changed = [changed = incarnation.get()] { ++changed->num_changes; }};
  absl::StatusOr<std::unique_ptr<McpSession>> session = McpSession::Open(parts_.launch, events, patience);
  if (!session.ok()) return session.status();
  incarnation->session = *std::move(session);
  return incarnation;
}

absl::Status McpServer::SettleTools(McpSession::ToolList list) {
  for (const std::string& why : list.left_out) Tell("offers a tool that is left out", why);
  std::set<std::string> names;
  for (McpToolDefinition& tool : list.tools) {
    if (!names.insert(tool.name).second) {
      return absl::FailedPreconditionError(absl::StrCat("it lists the tool '", tool.name, "' twice"));
    }
    const bool is_allowed = !config_.allowed_tools ||
                            std::count(config_.allowed_tools->begin(), config_.allowed_tools->end(), tool.name) > 0;
    if (is_allowed) tools_.push_back(std::move(tool));
  }
  for (const std::string& name : config_.allowed_tools.value_or(std::vector<std::string>{})) {
    if (!names.contains(name)) {
      return absl::FailedPreconditionError(absl::StrCat("it does not offer the tool '", name, "', which is allowed"));
    }
  }
  return absl::OkStatus();
}

absl::Status McpServer::CompareTools(McpSession& session, const Patience& patience) {
  const absl::StatusOr<McpSession::ToolList> list = session.ListTools(patience);
  if (!list.ok()) return list.status();
  std::vector<std::string_view> changed;
  for (const McpToolDefinition& settled : tools_) {
    const auto is_same = [&settled](const McpToolDefinition& now) {
      return now.name == settled.name && now.digest == settled.digest;
    };
    if (std::any_of(list->tools.begin(), list->tools.end(), is_same)) continue;
    absl::MutexLock lock(&mu_);
    if (refused_.emplace(settled.name).second) changed.push_back(settled.name);
  }
  for (const std::string_view name : changed) Tell("changed a tool, which is refused from now on", name);
  return absl::OkStatus();
}

// ---- a server that is there -------------------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<McpServer::Incarnation>> McpServer::Ready(const Patience& patience) {
  std::shared_ptr<Incarnation> gone;  // ended outside the lock
  {
    absl::MutexLock lock(&mu_);
    while (is_starting_) {
      mu_.AwaitWithTimeout(absl::Condition(+[](bool* is_starting) { return !*is_starting; }, &is_starting_), kLook);
      if (patience.cancellation.is_cancelled()) return absl::CancelledError("the call was cancelled");
      if (absl::Now() >= patience.deadline) return absl::DeadlineExceededError("the tool server is being started");
    }
    if (current_ != nullptr && current_->session->is_open()) return current_;
    if (current_ != nullptr) {
      num_failures_ = current_->has_answered ? 0 : num_failures_ + 1;
      next_start_ = parts_.now() + PauseAfter(num_failures_);
      gone = std::move(current_);
      current_ = nullptr;
    }
    if (const absl::Duration wait = next_start_ - parts_.now(); wait > absl::ZeroDuration()) {
      return absl::UnavailableError(absl::StrCat("the tool server has ended; it is started again in ",
                                                 absl::ToInt64Seconds(wait) + 1, " s at the earliest"));
    }
    is_starting_ = true;
  }
  gone.reset();
  absl::StatusOr<std::shared_ptr<Incarnation>> started = Restart(patience);
  absl::MutexLock lock(&mu_);
  is_starting_ = false;
  if (started.ok()) {
    current_ = *started;
  } else if (!absl::IsCancelled(started.status())) {
    next_start_ = parts_.now() + PauseAfter(++num_failures_);
  }
  return started;
}

absl::StatusOr<std::shared_ptr<McpServer::Incarnation>> McpServer::Restart(const Patience& patience) {
  Tell("is started again", "");
  const Patience own{.deadline = std::min(patience.deadline, absl::Now() + config_.start_time),
                     .cancellation = patience.cancellation};
  absl::StatusOr<std::shared_ptr<Incarnation>> started = Connect(own);
  absl::Status status = started.status();
  if (status.ok()) status = CompareTools(*(*started)->session, own);
  if (status.ok()) return started;
  Tell("could not be started again", std::string(status.message()));
  return status;
}

bool McpServer::IsRefused(const McpToolDefinition& tool) {
  absl::MutexLock lock(&mu_);
  return refused_.contains(tool.name);
}

ToolResult McpServer::Call(const McpToolDefinition& tool, std::string_view arguments, absl::Time deadline,
                           const Cancellation& cancellation) {
  if (arguments.size() > kMaxToolArgumentsBytes) return ToolError("the arguments are too long");
  absl::StatusOr<TemplateValue> parsed = ParseJsonValue(arguments);
  if (!parsed.ok() || !parsed->is_dict()) return ToolError("the arguments are no JSON object");
  const Patience patience{.deadline = std::min(deadline, absl::Now() + config_.tool_time),
                          .cancellation = cancellation};
  const absl::StatusOr<std::shared_ptr<Incarnation>> ready = Ready(patience);
  if (!ready.ok()) {
    const bool may_pass = absl::IsUnavailable(ready.status()) || absl::IsDeadlineExceeded(ready.status());
    std::string text = VisibleText(std::string(ready.status().message()), kMaxToldBytes);
    return may_pass ? Transient(std::move(text)) : ToolError(std::move(text));
  }
  Incarnation& incarnation = **ready;
  // Each call that finds a change looks for itself: none goes past one that is still being looked at.
  if (const int num_changes = incarnation.num_changes; incarnation.num_compared < num_changes) {
    if (absl::Status status = CompareTools(*incarnation.session, patience); !status.ok()) {
      return ToolError(
          absl::StrCat("the tool server changed its tools and does not list them: ", std::string(status.message())));
    }
    incarnation.num_compared = num_changes;
  }
  if (IsRefused(tool)) {
    return ToolError("the tool server has changed this tool since it was agreed to; it is not called any more");
  }
  TemplateValue params = TemplateValue::Dict();
  params.as_dict().Set("name", TemplateValue::Text(tool.name));
  params.as_dict().Set("arguments", *std::move(parsed));
  const absl::StatusOr<McpChannel::Answer> answer = incarnation.session->Ask("tools/call", std::move(params), patience);
  if (!answer.ok()) {
    std::string text(answer.status().message());
    return absl::IsUnavailable(answer.status()) ? Transient(std::move(text)) : ToolError(std::move(text));
  }
  incarnation.has_answered = true;
  if (const auto* failure = std::get_if<RpcFailure>(&*answer)) {
    return ToolError(absl::StrCat("the tool server refused the call: ", failure->message, " (", failure->code, ")"));
  }
  return ReadMcpCallResult(std::get<RpcResult>(*answer).result);
}

std::vector<std::shared_ptr<Tool>> MakeMcpTools(const std::shared_ptr<McpServer>& server) {
  std::vector<std::shared_ptr<Tool>> tools;
  for (const McpToolDefinition& tool : server->tools()) tools.push_back(std::make_shared<McpTool>(server, tool));
  return tools;
}

}  // namespace millrace
