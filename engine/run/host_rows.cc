// SPDX-License-Identifier: Apache-2.0
#include "engine/run/host_rows.h"

#include <cstring>

#include "engine/load/float_bits.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {

absl::Status HostRows::Fetch(const Matrix& matrix, Device& device) {
  stride_ = matrix.stride;
  if (device.shares_host_memory() && matrix.dtype == DType::kF32) {
    rows_ = static_cast<const float*>(matrix.data);
    return absl::OkStatus();
  }
  const size_t count = static_cast<size_t>(matrix.rows) * static_cast<size_t>(matrix.stride);
  bytes_.resize(count * DTypeBytes(matrix.dtype));
  RETURN_IF_ERROR(device.CopyToHost(bytes_.data(), matrix.data, bytes_.size()));
  floats_.resize(count);
  rows_ = floats_.data();
  if (matrix.dtype == DType::kF32) {
    std::memcpy(floats_.data(), bytes_.data(), bytes_.size());
    return absl::OkStatus();
  }
  MILLRACE_CHECK(matrix.dtype == DType::kF16 || matrix.dtype == DType::kBF16, "activations are floats");
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes_.data() + 2 * i, sizeof(bits));
    floats_[i] = matrix.dtype == DType::kBF16 ? FromBFloat16(bits) : FromFloat16(bits);
  }
  return absl::OkStatus();
}

}  // namespace millrace
