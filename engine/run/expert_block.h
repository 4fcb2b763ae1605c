// SPDX-License-Identifier: Apache-2.0
#pragma once
// The mixture of experts that takes the place of a layer's feed-forward network, and its activations. Owned by the
// model, engine thread only. Everything is allocated at creation.
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "engine/load/model_weights.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace millrace {

class ExpertBlock {
 public:
  // Bytes of activations for steps of `max_rows`; 0 for a model without experts.
  static size_t NumBytes(const ModelInfo& info, int64_t max_rows, DType activation_dtype);
  // Null for a model without experts.
  static absl::StatusOr<std::unique_ptr<ExpertBlock>> Create(const ModelInfo& info, int64_t max_rows, Device& device);

  // hidden = residual + the experts of `layer` on `normed`; all [T, C]. `residual`: as CombineArgs'. REQUIRES: a layer
  // with a router.
  void Forward(const LayerWeights& layer, const Matrix& normed, const Matrix& hidden, const void* residual);

 private:
  ExpertBlock(const ModelInfo& info, Device& device) : info_(info), ops_(device.ops()) {}
  ExpertRoutes Routes() const;
  Matrix View(Buffer& buffer, int64_t rows, int64_t cols) const;

  const ModelInfo& info_;
  Ops& ops_;
  int64_t max_choices_ = 0;          // rows of a step times k
  std::unique_ptr<Buffer> logits_;   // [T, E] float32
  std::unique_ptr<Buffer> routes_;   // experts, weights, places, rows: [T * k] each; starts [E + 1]
  std::unique_ptr<Buffer> sorted_;   // [T * k, C] what goes in, then what comes out
  std::unique_ptr<Buffer> gate_up_;  // [T * k, 2F]
  std::unique_ptr<Buffer> ffn_;      // [T * k, F]
};

}  // namespace millrace
