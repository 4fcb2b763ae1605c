// SPDX-License-Identifier: Apache-2.0
#pragma once
// Open Inference Protocol requests to typed ones and answers back: BYTES tensors carry the text, scalar tensors and
// parameters the sampling. Parses bytes of clients: every size is checked. Pure functions, any thread.
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/kserve/v2/inference.pb.h"
#include "server/grpc/generation_job.h"
#include "server/pipeline/requests.h"

namespace millrace {

using ParamValue = std::variant<bool, int64_t, double, std::string>;

// A tensor's elements, whatever form they came in.
struct InputTensor {
  std::string name;
  std::vector<ParamValue> values;
};

// InvalidArgument names the tensor: an unknown type, a shape that does not fit the contents, both raw and typed
// contents, too many elements.
absl::StatusOr<std::vector<InputTensor>> ReadTensors(const inference::ModelInferRequest& message);

enum class TensorForm : uint8_t { kTyped, kRaw };

struct InferTask {
  CompletionRequest request;  // a prompt per element of text_input
  std::string id;
  AnswerMode mode = AnswerMode::kWhole;
  TensorForm form = TensorForm::kTyped;  // of the answer: as the request's
  bool repeats_input = false;            // exclude_input_in_output is given and false
  std::vector<std::string> outputs;      // wanted; empty: all
};

absl::StatusOr<InferTask> ReadInferRequest(const inference::ModelInferRequest& message);

// One element of an answer.
struct InferOutput {
  std::string text;
  std::string finish_reason;  // empty: not finished
  int32_t num_tokens = 0;
};

// A whole answer (one element per prompt) or a piece of one (one element).
void WriteInferResponse(const InferTask& task, const std::string& model, const std::vector<InferOutput>& outputs,
                        inference::ModelInferResponse* message);

// The tensors that ModelMetadata tells of.
void WriteTensorMetadata(inference::ModelMetadataResponse* message);

}  // namespace millrace
