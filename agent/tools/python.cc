// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/python.h"

#include "absl/strings/str_cat.h"
#include "agent/tool_arguments.h"

namespace millrace {
namespace {

constexpr size_t kMaxErrorBytes = 2000;

// The last whole lines; a traceback's end says most.
std::string LastLines(const std::string& text) {
  if (text.size() <= kMaxErrorBytes) return text;
  const size_t begin = text.size() - kMaxErrorBytes;
  const size_t line = text.find('\n', begin);
  return text.substr(line == text.npos || line + 1 == text.size() ? begin : line + 1);
}

std::string WhyEnded(const SandboxOutcome& outcome, const SandboxLimits& limits) {
  switch (outcome.end) {
    case SandboxEnd::kExited:
      return absl::StrCat("the program ended with exit code ", outcome.code);
    case SandboxEnd::kSignalled:
      return absl::StrCat("the program was ended by signal ", outcome.code, "; it may compute for ", limits.cpu_seconds,
                          " s and use ", limits.memory_bytes >> 20, " MiB");
    case SandboxEnd::kDeadline:
      return "the program was stopped: its time is over";
    case SandboxEnd::kCancelled:
      return "the program was stopped: the call was cancelled";
    case SandboxEnd::kTooMuchOutput:
      return absl::StrCat("the program was stopped: it printed more than ", limits.output_bytes, " bytes");
    case SandboxEnd::kTooMuchDisk:
      return absl::StrCat("the program was stopped: its files are more than ", limits.work_bytes >> 20, " MiB or ",
                          limits.work_files);
    case SandboxEnd::kTooManyThreads:
      return absl::StrCat("the program was stopped: it has more than ", limits.threads, " threads");
  }
  return "";
}

}  // namespace

ToolResult PythonTool::Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) {
  absl::StatusOr<ToolArguments> parsed = ParseStringArguments(arguments, {"code"});
  if (!parsed.ok()) return ToolError(std::string(parsed.status().message()));
  SandboxedProgram program{.command = {config_.interpreter, "-I", "-S", "main.py"},
                           .readable = {"/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo"},
                           .files = {{"main.py", std::move(parsed->at("code"))}},
                           .input = "",
                           .scratch_folder = config_.scratch_folder,
                           .limits = config_.limits};
  absl::StatusOr<SandboxOutcome> outcome = RunSandboxed(program, deadline, cancellation);
  if (!outcome.ok()) return ToolError(std::string(outcome.status().message()));
  if (outcome->end == SandboxEnd::kExited && outcome->code == 0) return {.text = std::move(outcome->output)};
  return ToolError(absl::StrCat(LastLines(outcome->errors), outcome->errors.empty() ? "" : "\n",
                                WhyEnded(*outcome, config_.limits)));
}

}  // namespace millrace
