// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CPU backend's ExpertOps. Owned by CpuOps, whose threads and workspace it uses; engine thread (Pack: the loading
// thread before that).
#include <memory>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/op_context.h"
#include "kernels/expert_ops.h"

namespace millrace::cpu {

class CpuExpertOps final : public ExpertOps {
 public:
  CpuExpertOps(const OpContext& context, MatmulWorkspace& workspace) : context_(context), workspace_(workspace) {}

  absl::StatusOr<std::unique_ptr<PackedExperts>> Pack(
      int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source) override;
  void Route(const RouteArgs& args) override;
  void Dispatch(const DispatchArgs& args) override;
  void Matmul(const ExpertMatmulArgs& args) override;
  void Combine(const CombineArgs& args) override;

 private:
  const OpContext& context_;
  MatmulWorkspace& workspace_;
};

}  // namespace millrace::cpu
