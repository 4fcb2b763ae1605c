// SPDX-License-Identifier: Apache-2.0
// Bytes as an inference request: the message, its tensors (raw or typed), its parameters and their JSON.
#include <cstddef>
#include <cstdint>

#include "server/grpc/kserve_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  inference::ModelInferRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(num_bytes))) return 0;
  const auto task = millrace::ReadInferRequest(request);
  if (!task.ok()) return 0;
  inference::ModelInferResponse response;
  const std::vector<millrace::InferOutput> outputs(task->request.prompts.size());
  millrace::WriteInferResponse(*task, "model", outputs, &response);
  return 0;
}
