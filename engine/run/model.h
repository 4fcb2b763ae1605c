// SPDX-License-Identifier: Apache-2.0
#pragma once
// The forward pass of the Llama family (Llama, Mistral, Qwen2, Qwen3) over a step's rows, and the KV memory it fills.
// Owned by the runner, engine thread only. Everything is allocated at creation; Forward allocates nothing.
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/load/model_info.h"
#include "engine/load/model_weights.h"
#include "engine/run/rope_table.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {

struct ModelLimits {
  int32_t max_rows = 0;        // rows of a step
  int32_t max_logit_rows = 0;  // rows of one call of Logits
  int32_t max_positions = 0;   // tokens of one sequence
  int32_t num_pages = 0;
  int32_t page_tokens = 16;
  DType kv_dtype = DType::kBF16;
};

// Bytes of activations Forward and Logits hold for these limits, KV and workspace excluded.
size_t ActivationBytes(const ModelInfo& info, const ModelLimits& limits);
// Bytes of KV memory of one page over all layers, scales included.
size_t KvPageBytes(const ModelInfo& info, int32_t page_tokens, DType kv_dtype);

// One step's rows, laid out for the ops. Spans belong to the caller.
struct StepBatch {
  absl::Span<const int32_t> tokens;     // [T]
  absl::Span<const int32_t> positions;  // [T]
  absl::Span<const int64_t> slots;      // [T]
  absl::Span<const AttentionSequence> sequences;
};

class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(const ModelInfo& info, ModelWeights weights,
                                                       const ModelLimits& limits, Device& device);

  // Computes all layers; hidden states (before the final norm) stay inside until the next call.
  void Forward(const StepBatch& batch);
  // Final norm of the given rows: [R, C] float32, R <= max_logit_rows. Valid until the next call.
  Matrix FinalHidden(absl::Span<const int32_t> rows);
  // Logits of the given rows: [R, V] float32, R <= max_logit_rows; the caller may overwrite them.
  Matrix Logits(absl::Span<const int32_t> rows);

  const ModelInfo& info() const { return info_; }
  const ModelLimits& limits() const { return limits_; }

 private:
  Model(const ModelInfo& info, ModelWeights weights, const ModelLimits& limits, Device& device);
  absl::Status Allocate();
  void AttentionBlock(const LayerWeights& layer, const KvLayer& kv, const StepBatch& batch);
  void FfnBlock(const LayerWeights& layer, int64_t num_rows);
  Matrix View(Buffer& buffer, int64_t rows, int64_t cols) const;

  const ModelInfo info_;
  const ModelWeights weights_;
  const ModelLimits limits_;
  Device& device_;
  Ops& ops_;
  const RopeTables rope_;
  std::vector<std::unique_ptr<Buffer>> kv_buffers_;
  std::vector<KvLayer> kv_;           // one per layer
  std::unique_ptr<Buffer> hidden_;    // [T, C] the residual stream
  std::unique_ptr<Buffer> normed_;    // [T, C]
  std::unique_ptr<Buffer> qkv_;       // [T, (H + 2G) * D]
  std::unique_ptr<Buffer> attended_;  // [T, H * D]
  std::unique_ptr<Buffer> gate_up_;   // [T, 2F]
  std::unique_ptr<Buffer> ffn_;       // [T, F]
  std::unique_ptr<Buffer> gathered_;  // [R, C]
  std::unique_ptr<Buffer> logits_;    // [R, V]
};

}  // namespace millrace
