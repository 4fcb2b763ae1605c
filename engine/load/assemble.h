// SPDX-License-Identifier: Apache-2.0
#pragma once
// From named tensors to ModelWeights: the one place that knows which tensors a layer needs and how they are fused.
// Every file format brings a TensorSource. Loading thread.
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/model_weights.h"
#include "engine/load/weight_builder.h"

namespace millrace {

// Tensors by their Hugging Face names, e.g. "model.layers.0.self_attn.q_proj.weight".
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // A matrix [n, k] as float rows. NotFound or InvalidArgument names the tensor.
  virtual absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) = 0;
  virtual absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) = 0;
  // The matrix as the checkpoint's own quantiser stored it; null when it is stored as floats.
  virtual absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& /*name*/, int64_t /*n*/,
                                                              int64_t /*k*/) {
    return nullptr;
  }
  // A tensor will not be read again: its file pages may be dropped.
  virtual void Release() {}
};

absl::StatusOr<ModelWeights> AssembleWeights(const ModelInfo& info, const LoadOptions& options, TensorSource& source,
                                             Device& device);

}  // namespace millrace
