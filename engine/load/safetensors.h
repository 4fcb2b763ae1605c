// SPDX-License-Identifier: Apache-2.0
#pragma once
// The tensors of a .safetensors file's bytes, checked: header limits, dtypes, shapes, offsets. Plain functions, any
// thread. Views stay valid while the bytes live.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace millrace {

struct TensorView {
  std::string dtype;  // as spelled in the file: F32, F16, BF16, I32, I64, U8, I8, ...
  std::vector<int64_t> shape;
  const void* data = nullptr;
  size_t num_bytes = 0;
};

using TensorMap = absl::flat_hash_map<std::string, TensorView>;

// Bytes of one element of a safetensors dtype; 0 for an unknown one.
size_t SafetensorsDTypeBytes(std::string_view dtype);

// The tensors of a file's bytes; views point into `bytes`. InvalidArgument names the tensor and the fault.
absl::StatusOr<TensorMap> ParseSafetensors(std::string_view bytes);

}  // namespace millrace
