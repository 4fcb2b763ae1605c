// SPDX-License-Identifier: Apache-2.0
#pragma once
// The weights of a model in a device's own layout, and how they get there from files. Made by the loading thread,
// moved into the model, immutable afterwards.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace millrace {

struct LoadOptions {
  std::string dtype = "auto";        // auto (the checkpoint's), bfloat16, float16, float32: of dense weights
  std::string load_format = "auto";  // auto, safetensors, gguf, dummy
  std::string quantization;          // "", int8, int4 (groups of 128, or 32 where 128 does not divide), int4-g32
  uint64_t dummy_seed = 0;
  std::function<void(std::string_view stage, double fraction)> on_progress;  // may be null
};

struct LayerWeights {
  std::vector<float> attn_norm;                                  // [C]
  std::vector<float> mlp_norm;                                   // [C]
  std::vector<float> q_norm, k_norm;                             // [D], empty without QK norm
  std::unique_ptr<PackedWeight> qkv;                             // [(H + 2G) * D, C]: q rows, k rows, v rows
  std::unique_ptr<PackedWeight> o;                               // [C, H * D]
  std::unique_ptr<PackedWeight> gate_up;                         // [2F, C]: gate rows, up rows
  std::unique_ptr<PackedWeight> down;                            // [C, F]
  std::vector<float> qkv_bias, o_bias, gate_up_bias, down_bias;  // empty when absent
  // In a layer of experts, which has no gate_up and down; null in the others.
  std::unique_ptr<PackedWeight> router;           // [E, C]
  std::unique_ptr<PackedExperts> expert_gate_up;  // E times [2F, C]
  std::unique_ptr<PackedExperts> expert_down;     // E times [C, F]
};

struct ModelWeights {
  Matrix embedding;                       // [V, C] F32, F16 or BF16; memory held by `memory`
  std::vector<float> final_norm;          // [C]
  std::unique_ptr<PackedWeight> lm_head;  // [V, C]
  std::vector<LayerWeights> layers;
  std::vector<std::shared_ptr<void>> memory;  // whatever keeps the views alive (mapped files, buffers)
};

// Reads what a model is, weights untouched. `path`: a Hugging Face directory or a .gguf file.
// NotFound: no such model. InvalidArgument: names the file and the fault. Unimplemented: names what is supported.
absl::StatusOr<ModelInfo> ReadModelInfo(const std::string& path, const LoadOptions& options);

// Reads, quantises and packs the weights. InvalidArgument names the tensor and its fault.
absl::StatusOr<ModelWeights> LoadWeights(const ModelInfo& info, const LoadOptions& options, Device& device);

}  // namespace millrace
