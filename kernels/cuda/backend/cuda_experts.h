// SPDX-License-Identifier: Apache-2.0
#pragma once
// The same matrix of every expert in device memory, one behind the other in one piece each of values, scales and zeros:
// thousands of small allocations would waste what the driver rounds up. Made by the loading thread, immutable
// afterwards.
#include <array>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/backend/cuda_weight.h"
#include "kernels/cuda/expert_matmul.h"
#include "kernels/expert_ops.h"

namespace millrace::cuda {

class CudaExperts final : public PackedExperts {
 public:
  // As ExpertOps::Pack; dense matrices are rounded to `dense_dtype`. InvalidArgument: different shapes or formats.
  static absl::StatusOr<std::unique_ptr<CudaExperts>> Pack(
      int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source, DType dense_dtype,
      CudaStream& stream);

  int num_experts() const override { return static_cast<int>(parts_.size()); }
  int64_t n() const override { return shape_.n; }
  int64_t k() const override { return shape_.k; }
  size_t num_bytes() const override;
  const WeightOnDevice& shape() const { return shape_; }  // its parts are null
  const ExpertParts* parts() const { return static_cast<const ExpertParts*>(table_->data()); }
  bool takes_int8_rows() const { return shape_.format == WeightFormat::kInt8 && shape_.group_size == 0; }

 private:
  absl::Status Add(const WeightOnHost& host, size_t num_experts, CudaStream& stream);

  WeightOnDevice shape_;
  std::vector<ExpertParts> parts_;
  std::array<std::unique_ptr<DeviceMemory>, 3> memory_;  // values, scales, zeros
  std::unique_ptr<DeviceMemory> table_;                  // parts_ on the device
};

}  // namespace millrace::cuda
