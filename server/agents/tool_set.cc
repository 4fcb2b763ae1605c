// SPDX-License-Identifier: Apache-2.0
#include "server/agents/tool_set.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "agent/tools/calculator.h"
#include "agent/tools/clock.h"
#include "agent/tools/http_get.h"
#include "agent/tools/python.h"
#include "server/agents/mcp_tools.h"

namespace millrace {
namespace {

constexpr std::string_view kNames[] = {"calculator", "clock", "python", "http_get"};
// The sandbox lets a program read /usr/lib alone, so that an interpreter elsewhere would miss its library.
constexpr const char* kInterpreters[] = {"/usr/bin/python3"};
constexpr absl::Duration kTrialTime = absl::Seconds(20);

absl::StatusOr<std::shared_ptr<Tool>> MakePython(const ToolOptions& options) {
  PythonToolConfig config{.interpreter = options.python, .scratch_folder = options.scratch_folder};
  for (const char* path : kInterpreters) {
    if (config.interpreter.empty() && access(path, X_OK) == 0) config.interpreter = path;
  }
  if (config.interpreter.empty()) {
    return absl::FailedPreconditionError("the python tool needs /usr/bin/python3, which is not there");
  }
  const SandboxSupport support = ProbeSandbox();
  if (!support.is_complete()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the python tool needs a sandbox, which this kernel cannot give: ", absl::StrJoin(support.missing, "; ")));
  }
  auto tool = std::make_shared<PythonTool>(config);
  // Once really, so that what is wrong shows now and not in the middle of an answer.
  const ToolResult trial = tool->Call(R"json({"code":"print(6*7)"})json", absl::Now() + kTrialTime, Cancellation());
  if (trial.is_error || trial.text != "42\n") {
    return absl::FailedPreconditionError(
        absl::StrCat("the python tool does not work with ", config.interpreter, ": ", trial.text));
  }
  return tool;
}

absl::StatusOr<std::shared_ptr<Tool>> Make(std::string_view name, const ToolOptions& options) {
  if (name == "calculator") return std::make_shared<CalculatorTool>();
  if (name == "clock") return std::make_shared<ClockTool>([] { return absl::Now(); });
  if (name == "http_get") return std::make_shared<HttpGetTool>(EgressBroker({.hosts = options.http_get_hosts}));
  return MakePython(options);
}

}  // namespace

absl::Status CheckToolOptions(const ToolOptions& options) {
  for (size_t i = 0; i < options.enabled.size(); ++i) {
    const std::string& name = options.enabled[i];
    if (std::find(std::begin(kNames), std::end(kNames), name) == std::end(kNames)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--enable-tools: there is no tool '", name, "'; there are ",
                       absl::StrJoin(kNames, ", ", [](std::string* out, auto each) { out->append(each); })));
    }
    if (std::count(options.enabled.begin(), options.enabled.begin() + static_cast<int64_t>(i), name) > 0) {
      return absl::InvalidArgumentError(absl::StrCat("--enable-tools: '", name, "' again"));
    }
    if (name == "http_get" && options.http_get_hosts.empty()) {
      return absl::InvalidArgumentError("--enable-tools http_get needs --http-get-hosts: it may ask no other host");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ToolSet> ToolSet::Create(const ToolOptions& options, const ToolServerLog& log) {
  if (absl::Status status = CheckToolOptions(options); !status.ok()) return status;
  ToolSet set;
  for (const std::string& name : options.enabled) {
    auto tool = Make(name, options);
    if (!tool.ok()) return tool.status();
    absl::Status added = set.Add({.server = kOwnToolServer, .name = name, .tool = *std::move(tool)});
    if (!added.ok()) return added;
  }
  if (absl::Status status = AddMcpTools(options.mcp_servers, log, set); !status.ok()) return status;
  return set;
}

absl::Status ToolSet::Add(ServedTool served) {
  const std::string_view name = served.tool->name();
  if (const ServedTool* other = FindServed(name); other != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("two tools would be called '", std::string(name), "': '",
                                                   other->name, "' of ", other->server, " and '", served.name, "' of ",
                                                   served.server));
  }
  tools_.push_back(served.tool);
  served_.push_back(std::move(served));
  return absl::OkStatus();
}

std::shared_ptr<Tool> ToolSet::Find(std::string_view name) const {
  const ServedTool* served = FindServed(name);
  return served != nullptr ? served->tool : nullptr;
}

const ServedTool* ToolSet::FindServed(std::string_view name) const {
  for (const ServedTool& served : served_) {
    if (served.tool->name() == name) return &served;
  }
  return nullptr;
}

}  // namespace millrace
