// SPDX-License-Identifier: Apache-2.0
#include "agent/call_tools.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "agent/argument_check.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr std::string_view kCut = "\n[cut: there is more]";

// What a tool gave may be anything; what the model reads is text, and not more than its share.
std::string ReadableText(std::string_view raw) {
  std::string text;
  AppendRepairedUtf8(raw.substr(0, kMaxToolResultBytes + 1), text);
  if (text.size() <= kMaxToolResultBytes) return text;
  size_t end = kMaxToolResultBytes - kCut.size();
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return text.append(kCut);
}

ToolResult UnknownTool(const std::vector<std::shared_ptr<Tool>>& tools, std::string_view name) {
  std::string text = absl::StrCat("there is no tool '", std::string(name.substr(0, 100)), "'; there are: ");
  for (size_t i = 0; i < tools.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", std::string(tools[i]->name()));
  }
  return ToolError(std::move(text));
}

// False: there is no point in going on.
bool Pause(absl::Duration pause, absl::Duration time_left, const Cancellation& cancellation) {
  if (pause >= time_left) return false;
  pollfd poller{cancellation.fd(), POLLIN, 0};
  poll(&poller, 1, static_cast<int>(absl::ToInt64Milliseconds(pause)));
  return !cancellation.is_cancelled();
}

ToolResult Attempt(Tool& tool, const ToolCall& call, const CallToolsOptions& options,
                   const Cancellation& cancellation) {
  const std::string_view arguments = call.arguments.empty() ? "{}" : std::string_view(call.arguments);
  if (const absl::Status status = CheckArguments(tool.parameters(), arguments); !status.ok()) {
    return ToolError(std::string(status.message()));
  }
  const absl::Time deadline = std::min(options.now() + options.tool_time, options.deadline);
  absl::Duration pause = options.first_retry_pause;
  for (int attempt = 1;; ++attempt) {
    ToolResult result = tool.Call(arguments, deadline, cancellation);
    if (!result.is_transient || !tool.is_idempotent() || attempt >= options.max_attempts) return result;
    if (!Pause(pause, deadline - options.now(), cancellation)) return result;
    pause *= 2;
  }
}

ToolOutcome CallOne(const std::vector<std::shared_ptr<Tool>>& tools, const ToolCall& call,
                    const CallToolsOptions& options, const Cancellation& cancellation) {
  const absl::Time begin = options.now();
  Tool* tool = FindTool(tools, call.name);
  ToolResult result = cancellation.is_cancelled() ? ToolError("the call was cancelled")
                      : tool == nullptr           ? UnknownTool(tools, call.name)
                                                  : Attempt(*tool, call, options, cancellation);
  result.text = ReadableText(result.text);
  return {.result = std::move(result), .duration = options.now() - begin};
}

}  // namespace

Tool* FindTool(const std::vector<std::shared_ptr<Tool>>& tools, std::string_view name) {
  for (const std::shared_ptr<Tool>& tool : tools) {
    if (tool->name() == name) return tool.get();
  }
  return nullptr;
}

std::vector<ToolOutcome> CallTools(const std::vector<std::shared_ptr<Tool>>& tools, const std::vector<ToolCall>& calls,
                                   const CallToolsOptions& options, const Cancellation& cancellation) {
  std::vector<ToolOutcome> outcomes(calls.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < calls.size(); i = next++) {
      outcomes[i] = CallOne(tools, calls[i], options, cancellation);
    }
  };
  std::vector<std::thread> threads;
  const size_t num_threads = std::min(calls.size(), static_cast<size_t>(std::max(1, options.max_parallel)));
  try {
    for (size_t i = 1; i < num_threads; ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are, at least this one, do all.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

}  // namespace millrace
