// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rows of a matrix of the device as float32 the host may read: the matrix itself where it is that already, else a
// converted copy. Memory is reused. Engine thread.
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace millrace {

class HostRows {
 public:
  // REQUIRES: F32, F16 or BF16. Waits for what computes the matrix; rows are valid until the next call.
  absl::Status Fetch(const Matrix& matrix, Device& device);
  const float* row(int64_t index) const { return rows_ + index * stride_; }

 private:
  const float* rows_ = nullptr;
  int64_t stride_ = 0;
  std::vector<uint8_t> bytes_;
  std::vector<float> floats_;
};

}  // namespace millrace
