// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/http_get.h"

#include "absl/strings/str_cat.h"
#include "agent/tool_arguments.h"

namespace millrace {
namespace {

constexpr std::string_view kCut = "\n[cut: there is more]";

}  // namespace

ToolResult HttpGetTool::Call(std::string_view arguments, absl::Time deadline, const Cancellation& cancellation) {
  const absl::StatusOr<ToolArguments> parsed = ParseStringArguments(arguments, {"url"});
  if (!parsed.ok()) return ToolError(std::string(parsed.status().message()));
  const absl::StatusOr<EgressAnswer> answer = broker_.Get(parsed->at("url"), deadline, cancellation);
  if (!answer.ok()) {
    return {.is_error = true,
            .is_transient = answer.status().code() == absl::StatusCode::kUnavailable,
            .text = std::string(answer.status().message())};
  }
  ToolResult result{.is_error = answer->code < 200 || answer->code > 299,
                    .is_transient = answer->code == 429 || (answer->code >= 502 && answer->code <= 504),
                    .text = absl::StrCat("HTTP ", answer->code, " ", answer->content_type, "\n\n", answer->body)};
  if (result.text.size() > kMaxToolResultBytes) {
    result.text.resize(kMaxToolResultBytes - kCut.size());
    result.text += kCut;
  }
  return result;
}

}  // namespace millrace
