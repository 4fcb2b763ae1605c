// SPDX-License-Identifier: Apache-2.0
#pragma once
// Writes a quantised copy of a Hugging Face directory: the matrices as int8 or int4 (stored_int.h), everything else as
// it was, config.json with quantization_config. Loaded back it gives bit for bit what quantising on load gives. One
// matrix is in memory at a time. A plain function, any thread.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace {

struct QuantizeCheckpointOptions {
  std::string quantization = "int8";                                         // int8, int4, int4-g32
  std::function<void(std::string_view stage, double fraction)> on_progress;  // may be null
};

struct QuantizeCheckpointResult {
  uint64_t input_bytes = 0;   // of weights
  uint64_t output_bytes = 0;  // of weights
};

// The output appears whole or not at all: it is written beside its place and renamed. Tokenizer, templates and licence
// files come along. AlreadyExists: `output_dir` holds something. Unimplemented: the input is a GGUF file.
// InvalidArgument: it is quantised already, or its faults as of LoadWeights. FailedPrecondition: it cannot be written.
absl::StatusOr<QuantizeCheckpointResult> QuantizeCheckpoint(const std::string& input_dir, const std::string& output_dir,
                                                            const QuantizeCheckpointOptions& options);

}  // namespace millrace
