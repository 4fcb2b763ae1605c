// SPDX-License-Identifier: Apache-2.0
#pragma once
// Quantised matrices as `millrace quantize` writes them into safetensors: NAME.weight_q (I8 [n, k] for int8; U8
// [n, k/2] for int4, low nibble first, symmetric around 8) and NAME.weight_scale (F32 [n, groups a row]; one group a
// row for int8). Plain functions, loading thread.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/load/safetensors.h"
#include "engine/load/tensor_source.h"
#include "engine/load/weight_builder.h"

namespace millrace {

inline constexpr char kStoredValuesSuffix[] = ".weight_q";
inline constexpr char kStoredScalesSuffix[] = ".weight_scale";

struct StoredInt {
  std::string name;
  WeightKind kind;
  int64_t n = 0;
  int64_t k = 0;
  TensorView values, scales;
};

// InvalidArgument names the tensor and the fault.
absl::StatusOr<StoredInt> FindStoredInt(const TensorMap& tensors, const std::string& name, int64_t n, int64_t k);

absl::StatusOr<std::unique_ptr<BuiltWeight>> ReadStoredInt(const StoredInt& stored);

// Rows of an int8 or int4 matrix as floats; `weight` lives as long as the rows.
MatrixRows DequantizedRows(std::shared_ptr<const BuiltWeight> weight);

}  // namespace millrace
