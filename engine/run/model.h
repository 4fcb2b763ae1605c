// SPDX-License-Identifier: Apache-2.0
#pragma once
// The forward pass of the Llama family (Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3-MoE) over a step's rows, and the
// KV memory it fills.
// Where it is a rank's part of a model, rank 0's has the others compute along; only its results are read.
// Owned by the runner, engine thread only. Everything is allocated at creation; Forward allocates nothing.
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/load/model_info.h"
#include "engine/load/model_weights.h"
#include "engine/run/device_copies.h"
#include "engine/run/expert_block.h"
#include "engine/run/rope_table.h"
#include "kernels/communicator.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {

class RankGroup;

struct ModelLimits {
  int32_t max_rows = 0;        // rows of a step
  int32_t max_logit_rows = 0;  // rows of one call of Logits
  int32_t max_sequences = 0;   // of a step; 0: as many as rows
  int32_t max_positions = 0;   // tokens of one sequence
  int32_t num_pages = 0;
  int32_t page_tokens = 16;
  DType kv_dtype = DType::kBF16;
};

// Bytes of activations Forward and Logits hold for these limits, KV and workspace excluded.
size_t ActivationBytes(const ModelInfo& info, const ModelLimits& limits, DType activation_dtype);
// What the ops must have room for.
StepLimits ToStepLimits(const ModelInfo& info, const ModelLimits& limits);
// Bytes of KV memory of one page over all layers, scales included.
size_t KvPageBytes(const ModelInfo& info, int32_t page_tokens, DType kv_dtype);

class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(const ModelInfo& info, ModelWeights weights,
                                                       const ModelLimits& limits, Device& device);
  ~Model();

  // Makes this part one of the ranks that compute together; rank 0 leads the others, which compute what it computes.
  // REQUIRES: before the first step, where the model is a part.
  void Join(std::unique_ptr<Communicator> ranks) { ranks_ = std::move(ranks); }
  void Lead(std::unique_ptr<RankGroup> followers);

  // Computes all layers; hidden states (before the final norm) stay inside until the next call.
  void Forward(const StepInputs& inputs);
  // Final norm of the given rows: [R, C] in the ops' activation dtype, on the device, R <= max_logit_rows. Valid until
  // the next call.
  Matrix FinalHidden(absl::Span<const int32_t> rows);
  // Logits of the given rows: [R, V] float32 on the device, R <= max_logit_rows; the caller may overwrite them.
  Matrix Logits(absl::Span<const int32_t> rows);
  // Waits for everything launched so far, on every rank; an error means that a device is lost.
  absl::Status Wait();

  const ModelInfo& info() const { return info_; }
  const ModelLimits& limits() const { return limits_; }

 private:
  Model(const ModelInfo& info, ModelWeights weights, const ModelLimits& limits, Device& device);
  // One layer: its matrices, and where the device finds its vectors.
  struct Layer {
    const LayerWeights* weights;
    const float *attn_norm, *mlp_norm;
    const float *q_norm, *k_norm;                               // null without QK norm
    const float *qkv_bias, *o_bias, *gate_up_bias, *down_bias;  // null when absent
    KvLayer kv;
  };
  absl::Status Allocate();
  absl::Status PlaceWeights();
  absl::StatusOr<KvLayer> AllocateKv();
  Matrix FinalNorm(absl::Span<const int32_t> rows, const PackedWeight* reader);
  void AttentionBlock(const Layer& layer, const StepInputs& inputs, int64_t num_rows);
  void FfnBlock(const Layer& layer, int64_t num_rows);
  void ExpertsOrFfn(const Layer& layer, int64_t num_rows);
  Matrix View(Buffer& buffer, int64_t rows, int64_t cols) const;
  // What a projection back to the hidden state adds to: each rank's is a part of the sum, and one holds the rest.
  const void* Residual(const Matrix& hidden) const { return info_.part.rank == 0 ? hidden.data : nullptr; }
  void SumOverRanks(const Matrix& hidden);

  const ModelInfo info_;
  ModelWeights weights_;
  const ModelLimits limits_;
  Device& device_;
  Ops& ops_;
  std::optional<RopeTables> rope_;  // where the device shares the host's memory
  DeviceCopies copies_;
  RopeTable rope_table_;
  Matrix embedding_;
  const float* final_norm_ = nullptr;
  std::vector<Layer> layers_;
  std::vector<std::unique_ptr<Buffer>> kv_buffers_;
  std::unique_ptr<Buffer> hidden_;           // [T, C] the residual stream
  std::unique_ptr<Buffer> normed_;           // [T, C]
  std::unique_ptr<Buffer> qkv_;              // [T, (H + 2G) * D]
  std::unique_ptr<Buffer> attended_;         // [T, H * D]
  std::unique_ptr<Buffer> gate_up_;          // [T, 2F] of dense layers
  std::unique_ptr<Buffer> ffn_;              // [T, F]
  std::unique_ptr<ExpertBlock> experts_;     // null: every layer is dense
  std::unique_ptr<Buffer> gathered_;         // [R, C]
  std::unique_ptr<Buffer> logits_;           // [R, V]; of a part [N * R, V]: this rank's among the others'
  std::unique_ptr<Buffer> gathered_logits_;  // [R, N * V] of a part
  std::unique_ptr<Communicator> ranks_;      // null: the model is whole
  std::unique_ptr<RankGroup> followers_;     // of rank 0
};

}  // namespace millrace
