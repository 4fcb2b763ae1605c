// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tensors of a GGUF file under their Hugging Face names: F32, F16, BF16 as floats, Q8_0 as int8 and Q4_0 as int4,
// both in groups of 32 with the file's own scales. Loading thread.
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/load/tensor_source.h"

namespace millrace {

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; empty for a name GGUF has no counterpart for. Experts
// are parts of one tensor: "model.layers.3.mlp.experts.7.up_proj.weight" -> "blk.3.ffn_up_exps.weight".
std::string GgufTensorName(const std::string& hf_name);

// Errors as of ParseGguf, with the path.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenGgufTensors(const std::string& path);

}  // namespace millrace
