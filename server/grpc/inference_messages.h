// SPDX-License-Identifier: Apache-2.0
#pragma once
// Between millrace.v1's messages and the typed requests and deltas of server/api. Pure functions, any thread;
// InvalidArgument names the field at fault.
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/millrace/v1/inference.pb.h"
#include "server/grpc/generation_job.h"
#include "server/pipeline/generation.h"
#include "server/pipeline/requests.h"

namespace millrace {

// The ranges that HTTP's JSON reader checks too: a typed message can hold any number.
absl::Status CheckParams(const GenerationParams& params);

// But for the response_format, whose schema takes a while to compile (ReadResponseFormat).
absl::StatusOr<CompletionRequest> FromMessage(const v1::GenerateRequest& message);
absl::StatusOr<ChatRequest> FromMessage(const v1::ChatRequest& message);
absl::StatusOr<EmbeddingRequest> FromMessage(const v1::EmbedRequest& message);
// The conversation of messages and tools alone.
absl::StatusOr<ChatRequest> FromMessage(const v1::TokenizeRequest& message);

void ToMessage(const TextDelta& delta, v1::GenerateResponse* message);
void ToMessage(const TextDelta& delta, v1::ChatResponse* message);
void ToMessage(const GenerationTotals& totals, v1::Usage* message);

}  // namespace millrace
