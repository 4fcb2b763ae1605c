// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CPU backend's Ops: forwards each operation to its file in kernels/cpu, with the threads and the instruction set
// chosen at start. Owned by CpuDevice; engine thread (Pack: the loading thread before that).
#include <memory>

#include "kernels/cpu/cpu_expert_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/op_context.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace millrace::cpu {

class CpuOps final : public Ops {
 public:
  // REQUIRES: num_threads >= 1; `path` supported by this processor and not kAuto.
  CpuOps(int num_threads, CpuPath path) : pool_(num_threads), context_{pool_, path} {}

  const OpContext& context() const { return context_; }

  DType activation_dtype() const override { return DType::kF32; }
  bool takes_kv_dtype(DType dtype) const override;
  absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(const WeightSource& source) override;
  size_t PackedBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size) const override;
  absl::Status ReserveWorkspace(const StepLimits& limits) override;
  size_t WorkspaceBytes(const StepLimits& limits) const override;
  void BeginStep(const StepInputs& inputs) override;
  void Replay(absl::FunctionRef<void(int64_t num_rows)> body) override;

  void Matmul(const MatmulArgs& args) override;
  void Embed(const EmbedArgs& args) override;
  void RmsNorm(const RmsNormArgs& args) override;
  void RopeAppend(const RopeAppendArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void SwiGlu(const SwiGluArgs& args) override;
  void GatherRows(const GatherRowsArgs& args) override;
  void Sample(const SampleArgs& args) override;
  void Logprobs(const LogprobsArgs& args) override;
  ExpertOps& experts() override { return experts_; }

 private:
  ThreadPool pool_;
  const OpContext context_;
  MatmulWorkspace matmul_workspace_;
  CpuExpertOps experts_{context_, matmul_workspace_};
  int64_t step_rows_ = 0;
};

}  // namespace millrace::cpu
