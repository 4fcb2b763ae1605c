// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CUDA backend's ExpertOps: checks the arguments and calls the launcher of each operation. Owned by CudaOps; engine
// thread (Pack: the loading thread before that).
#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/backend/cuda_stream.h"
#include "kernels/ops.h"

namespace millrace::cuda {

struct CudaExpertOpsConfig {
  int ordinal = 0;
  int num_multiprocessors = 1;
  DType activation_dtype = DType::kBF16;
};

class CudaExpertOps final : public ExpertOps {
 public:
  // REQUIRES: `stream` outlives this and belongs to the device.
  CudaExpertOps(CudaStream& stream, const CudaExpertOpsConfig& config) : stream_(stream), config_(config) {}

  // For steps within the limits; nothing for a model without experts.
  static size_t WorkspaceBytes(const StepLimits& limits);
  // `slots`: where every step's lie on the device; rows without one ask no expert.
  absl::Status ReserveWorkspace(const StepLimits& limits, const int64_t* slots);

  // Also InvalidArgument: matrices of different shapes or formats.
  absl::StatusOr<std::unique_ptr<PackedExperts>> Pack(
      int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source) override;
  void Route(const RouteArgs& args) override;
  void Dispatch(const DispatchArgs& args) override;
  void Matmul(const ExpertMatmulArgs& args) override;
  void Combine(const CombineArgs& args) override;

 private:
  CudaStream& stream_;
  const CudaExpertOpsConfig config_;
  const int64_t* slots_ = nullptr;
  std::unique_ptr<DeviceMemory> quantized_values_;  // of sorted rows, where weights take int8
  std::unique_ptr<DeviceMemory> quantized_scales_;
};

}  // namespace millrace::cuda
