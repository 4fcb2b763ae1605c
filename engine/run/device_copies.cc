// SPDX-License-Identifier: Apache-2.0
#include "engine/run/device_copies.h"

#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {

absl::StatusOr<const float*> DeviceCopies::Place(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  if (device_.shares_host_memory()) return values.data();
  ASSIGN_OR_RETURN(const void* copy, Copy(values.data(), values.size() * sizeof(float)));
  return static_cast<const float*>(copy);
}

absl::StatusOr<Matrix> DeviceCopies::Place(const Matrix& matrix) {
  if (device_.shares_host_memory()) return matrix;
  MILLRACE_CHECK(matrix.stride == matrix.cols, "only a matrix without padding is copied to the device");
  Matrix placed = matrix;
  const size_t num_elements = static_cast<size_t>(matrix.rows) * static_cast<size_t>(matrix.cols);
  ASSIGN_OR_RETURN(placed.data, Copy(matrix.data, num_elements * DTypeBytes(matrix.dtype)));
  return placed;
}

absl::StatusOr<void*> DeviceCopies::Copy(const void* host, size_t num_bytes) {
  ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer, device_.Allocate(num_bytes));
  RETURN_IF_ERROR(device_.CopyToDevice(buffer->data(), host, num_bytes));
  buffers_.push_back(std::move(buffer));
  return buffers_.back()->data();
}

}  // namespace millrace
