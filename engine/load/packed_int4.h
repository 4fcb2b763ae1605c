// SPDX-License-Identifier: Apache-2.0
#pragma once
// The 4-bit layouts of GPTQ and AWQ checkpoints: eight values to an int32, zero points, scales. Plain functions over
// views of a checkpoint's bytes; loading thread.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/load/model_info.h"
#include "engine/load/safetensors.h"
#include "engine/load/tensor_source.h"
#include "engine/load/weight_builder.h"

namespace millrace {

// One matrix [n, k]; w = (q - zero) * scale, scale and zero per group of inputs and output.
//   GPTQ: qweight [k/8, n], value j of word (r, c) is input 8r + j, output c; zeros [groups, n/8], stored less one
//         (modulo 16) unless gptq_v2; g_idx [k] tells each input's group, k / group_size when absent.
//   AWQ:  qweight [k, n/8] ("gemm"), value i of word (r, c) is input r, output 8c + {0, 2, 4, 6, 1, 3, 5, 7}[i];
//         zeros [groups, n/8] in the same order.
struct PackedInt4 {
  std::string name;
  int64_t n = 0;
  int64_t k = 0;
  int64_t group_size = 0;  // of the checkpoint, 1..k, dividing k
  bool is_awq = false;
  int zero_offset = 0;  // added to stored zeros
  TensorView qweight, qzeros, scales;
  const void* group_of_input = nullptr;  // [k] int32, in range; null: k / group_size

  int64_t num_groups() const { return k / group_size; }
};

// Finds and checks the tensors of matrix `name` (without suffix). InvalidArgument names the tensor and the fault.
absl::StatusOr<PackedInt4> FindPackedInt4(const TensorMap& tensors, const CheckpointQuantization& quantization,
                                          const std::string& name, int64_t n, int64_t k);

// Groups of 32, 64 or 128 stay exact (larger ones are split); others, and inputs whose groups are scattered
// (activation order), become int8.
StoredForm FormOfPackedInt4(const PackedInt4& packed);

// REQUIRES: FormOfPackedInt4 is exact. InvalidArgument: a scale is not finite.
absl::StatusOr<std::unique_ptr<BuiltWeight>> UnpackInt4(const PackedInt4& packed);

// Dequantised rows; the views must outlive them.
MatrixRows DequantizedRows(const PackedInt4& packed);

}  // namespace millrace
