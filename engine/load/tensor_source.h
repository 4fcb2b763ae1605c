// SPDX-License-Identifier: Apache-2.0
#pragma once
// What every checkpoint format offers to the assembler: tensors by their Hugging Face names. Loading thread.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/model_weights.h"
#include "engine/load/weight_builder.h"

namespace millrace {

// How a checkpoint's own quantiser left a matrix.
struct StoredForm {
  WeightKind kind;       // what to load it as
  bool is_exact = true;  // Stored() gives it in `kind` unchanged; else its float rows are quantised anew
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Whether the tensor `name`, e.g. "model.layers.0.self_attn.q_proj.weight", is there in any form.
  virtual bool Has(const std::string& name) const = 0;
  // A matrix [n, k] as float rows, dequantised where needed. InvalidArgument names the tensor and the fault.
  virtual absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) = 0;
  virtual absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) = 0;

  // How the matrix is quantised in the checkpoint; nothing when it is stored as floats. Reads no weights.
  virtual absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& /*name*/, int64_t /*n*/, int64_t /*k*/) {
    return std::nullopt;
  }
  // REQUIRES: FormOf says it is exact.
  virtual absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& name, int64_t /*n*/, int64_t /*k*/) {
    return absl::InternalError(name + " is not stored quantised");
  }
  // What was read so far will not be read again: its file pages may be dropped.
  virtual void Release() {}
};

// The tensors of the model's files (or random ones), headers checked and no weight read: of a part, its slices.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(const ModelInfo& info, const LoadOptions& options);

}  // namespace millrace
