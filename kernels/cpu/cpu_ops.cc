// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/status_macros.h"

namespace millrace::cpu {

absl::StatusOr<std::unique_ptr<PackedWeight>> CpuOps::Pack(const WeightSource& source) {
  ASSIGN_OR_RETURN(std::unique_ptr<PackedWeight> packed, PackWeight(source, context_));
  return packed;
}

bool CpuOps::takes_kv_dtype(DType dtype) const {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kI8;
}

size_t CpuOps::PackedBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size) const {
  return PackedWeightBytes(format, dtype, n, k, group_size, context_.path);
}

absl::Status CpuOps::ReserveWorkspace(const StepLimits& limits) {
  return matmul_workspace_.Reserve(std::max(limits.max_rows, limits.max_logit_rows), limits.max_inputs,
                                   pool_.num_threads());
}

size_t CpuOps::WorkspaceBytes(const StepLimits& limits) const {
  return MatmulWorkspace::BytesFor(std::max(limits.max_rows, limits.max_logit_rows), limits.max_inputs,
                                   pool_.num_threads());
}

void CpuOps::BeginStep(const StepInputs& inputs) {
  tokens_.assign(inputs.tokens.begin(), inputs.tokens.end());
  for (int32_t& token : tokens_) {
    if (token >= 0) continue;
    const size_t index = static_cast<size_t>(-1 - token);
    MILLRACE_CHECK(index < drawn_.size(), "a drawn token is one of the step before");
    token = std::max(drawn_[index], 0);  // a row that failed drew none; what comes of this one is thrown away
  }
  drawn_.clear();
}
void CpuOps::Replay(absl::FunctionRef<void(int64_t num_rows)> body) { body(static_cast<int64_t>(tokens_.size())); }

void CpuOps::Matmul(const MatmulArgs& args) { cpu::Matmul(args, context_, matmul_workspace_); }
void CpuOps::Embed(const EmbedArgs& args) {
  EmbedArgs known = args;
  known.tokens = tokens_;
  cpu::Embed(known, context_);
}
void CpuOps::RmsNorm(const RmsNormArgs& args) { cpu::RmsNorm(args, context_); }
void CpuOps::RopeAppend(const RopeAppendArgs& args) { cpu::RopeAppend(args, context_); }
void CpuOps::Attention(const AttentionArgs& args) { cpu::Attention(args, context_); }
void CpuOps::SwiGlu(const SwiGluArgs& args) { cpu::SwiGlu(args, context_); }
void CpuOps::GatherRows(const GatherRowsArgs& args) { cpu::GatherRows(args, context_); }
void CpuOps::Sample(const SampleArgs& args) {
  cpu::Sample(args, context_);
  for (const SampleResult& result : args.results) drawn_.push_back(result.token);
}
void CpuOps::Logprobs(const LogprobsArgs& args) { cpu::Logprobs(args, context_); }

}  // namespace millrace::cpu
