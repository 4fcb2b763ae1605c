// SPDX-License-Identifier: Apache-2.0
// Bytes as each of millrace.v1's requests, through the conversion to typed ones (tools, schemas and template variables
// are JSON). The limits of a run are never wider than they were.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "server/grpc/chat_messages.h"
#include "server/grpc/inference_messages.h"
#include "server/grpc/run_messages.h"

namespace {

template <typename Message>
void Try(const uint8_t* data, size_t num_bytes) {
  Message message;
  if (message.ParseFromArray(data, static_cast<int>(num_bytes))) (void)millrace::FromMessage(message);
}

void TryRun(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  static const ToolSet tools = *ToolSet::Create({});
  v1::StartRunRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(num_bytes))) return;
  (void)ToolsOf(message, nullptr, tools);
  const RunLimits most{.max_output_tokens = 100, .deadline = absl::FromUnixSeconds(1000)};
  RunLimits limits = most;
  if (!Tighten(message.limits(), absl::UnixEpoch(), limits).ok()) return;
  if (limits.max_turns < 1 || limits.max_turns > most.max_turns || limits.max_tool_calls < 0 ||
      limits.max_tool_calls > most.max_tool_calls || limits.max_output_tokens < 1 || limits.max_output_tokens > 100 ||
      limits.deadline > most.deadline || limits.tool_time > most.tool_time ||
      limits.tool_time <= absl::ZeroDuration()) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  Try<millrace::v1::GenerateRequest>(data, num_bytes);
  Try<millrace::v1::ChatRequest>(data, num_bytes);
  Try<millrace::v1::EmbedRequest>(data, num_bytes);
  Try<millrace::v1::TokenizeRequest>(data, num_bytes);
  Try<millrace::v1::StartRunRequest>(data, num_bytes);
  TryRun(data, num_bytes);
  return 0;
}
