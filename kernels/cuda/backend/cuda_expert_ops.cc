// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_expert_ops.h"

#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/backend/cuda_experts.h"
#include "kernels/cuda/expert_combine.h"
#include "kernels/cuda/expert_route.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/quantize_rows.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

int64_t QuantizedStride(int64_t cols) { return (cols + 15) / 16 * 16; }

int64_t MaxChoices(const StepLimits& limits) { return limits.max_rows * limits.num_expert_choices; }

size_t QuantizedBytes(const StepLimits& limits) {
  return static_cast<size_t>(MaxChoices(limits) * QuantizedStride(limits.max_inputs));
}

size_t ScaleBytes(const StepLimits& limits) { return static_cast<size_t>(MaxChoices(limits)) * sizeof(float); }

}  // namespace

size_t CudaExpertOps::WorkspaceBytes(const StepLimits& limits) { return QuantizedBytes(limits) + ScaleBytes(limits); }

absl::Status CudaExpertOps::ReserveWorkspace(const StepLimits& limits, const int64_t* slots) {
  slots_ = slots;
  if (limits.num_expert_choices == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(quantized_values_, DeviceMemory::Allocate(QuantizedBytes(limits), stream_));
  ASSIGN_OR_RETURN(quantized_scales_, DeviceMemory::Allocate(ScaleBytes(limits), stream_));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PackedExperts>> CudaExpertOps::Pack(
    int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source) {
  static_cast<void>(cudaSetDevice(config_.ordinal));
  ASSIGN_OR_RETURN(std::unique_ptr<PackedExperts> packed,
                   CudaExperts::Pack(num_experts, source, config_.activation_dtype, stream_));
  return packed;
}

void CudaExpertOps::Route(const RouteArgs& args) {
  stream_.Keep(LaunchExpertRoute({.logits = args.logits,
                                  .is_normalized = args.is_normalized,
                                  .slots = slots_,
                                  .routes = args.routes,
                                  .is_dependent = stream_.overlaps_kernels()},
                                 stream_.get()),
               "choosing experts");
}

void CudaExpertOps::Dispatch(const DispatchArgs& args) {
  MILLRACE_CHECK(args.out.rows == args.x.rows * args.routes.num_choices, "a row for every choice");
  stream_.Keep(LaunchGatherRows(
                   {.x = args.x, .rows = args.routes.rows, .out = args.out, .is_dependent = stream_.overlaps_kernels()},
                   stream_.get()),
               "sending rows to experts");
}

void CudaExpertOps::Matmul(const ExpertMatmulArgs& args) {
  const auto& w = static_cast<const CudaExperts&>(*args.w);
  MILLRACE_CHECK(w.num_experts() == args.routes.num_experts && args.x.cols == w.k() && args.out.cols == w.n() &&
                     args.x.rows == args.out.rows,
                 "the shapes of the experts' matmul fit each other");
  ExpertMatmulLaunch launch{.x = args.x,
                            .w = w.shape(),
                            .experts = w.parts(),
                            .routes = args.routes,
                            .out = args.out,
                            .num_multiprocessors = config_.num_multiprocessors,
                            .is_dependent = stream_.overlaps_kernels()};
  if (w.takes_int8_rows()) {
    launch.x_quantized = {.values = static_cast<int8_t*>(quantized_values_->data()),
                          .scales = static_cast<float*>(quantized_scales_->data()),
                          .stride = QuantizedStride(args.x.cols)};
    stream_.Keep(LaunchQuantizeRows({.x = args.x, .out = launch.x_quantized, .is_dependent = launch.is_dependent},
                                    stream_.get()),
                 "quantising rows for experts");
  }
  stream_.Keep(LaunchExpertMatmul(launch, stream_.get()), "a matmul of experts");
}

void CudaExpertOps::Combine(const CombineArgs& args) {
  stream_.Keep(LaunchExpertCombine({.x = args.x,
                                    .routes = args.routes,
                                    .out = args.out,
                                    .residual = args.residual,
                                    .is_dependent = stream_.overlaps_kernels()},
                                   stream_.get()),
               "adding up experts");
}

}  // namespace millrace::cuda
