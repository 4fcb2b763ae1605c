// SPDX-License-Identifier: Apache-2.0
#pragma once
// A weight matrix in device memory, in the layout of matmul_pack.h. Made by the loading thread, immutable afterwards.
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

// A weight laid out for the device, still in the host's memory: values, scales, zeros; absent parts are empty.
struct WeightOnHost {
  WeightOnDevice weight;                           // its pointers are null
  std::array<absl::Span<const uint8_t>, 3> parts;  // of the source itself, or of
  std::array<std::vector<uint8_t>, 3> packed;
};
// Errors as of CudaWeight::Pack. What already lies as the device has it is not copied: the source must outlive it.
absl::StatusOr<WeightOnHost> PackOnHost(const WeightSource& source, DType dense_dtype);

class CudaWeight final : public PackedWeight {
 public:
  // Dense weights become `dense_dtype`, the activations' own: only equal types meet on tensor cores.
  // InvalidArgument names a shape, a group or a missing pointer; ResourceExhausted when memory is not to be had.
  static absl::StatusOr<std::unique_ptr<CudaWeight>> Pack(const WeightSource& source, DType dense_dtype,
                                                          CudaStream& stream);
  static size_t NumBytes(const WeightShape& shape);

  WeightFormat format() const override { return weight_.format; }
  int64_t n() const override { return weight_.n; }
  int64_t k() const override { return weight_.k; }
  size_t num_bytes() const override;
  const WeightOnDevice& on_device() const { return weight_; }
  // Its matmul takes activations quantised per row.
  bool takes_int8_rows() const { return weight_.format == WeightFormat::kInt8 && weight_.group_size == 0; }

 private:
  WeightOnDevice weight_;
  std::array<std::unique_ptr<DeviceMemory>, 3> memory_;  // values, scales, zeros
};

}  // namespace millrace::cuda
