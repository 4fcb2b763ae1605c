// SPDX-License-Identifier: Apache-2.0
#pragma once
// Makes arrays of the host readable by the ops: the same memory where the device shares it, else a copy on the device.
// Owned by the model; filled at its creation, immutable afterwards.
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace millrace {

class DeviceCopies {
 public:
  explicit DeviceCopies(Device& device) : device_(device) {}

  // Null for an empty array. The host's memory must outlive this object only where the device shares it.
  absl::StatusOr<const float*> Place(const std::vector<float>& values);
  // REQUIRES: rows without padding (stride = cols).
  absl::StatusOr<Matrix> Place(const Matrix& matrix);

 private:
  absl::StatusOr<void*> Copy(const void* host, size_t num_bytes);

  Device& device_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace millrace
