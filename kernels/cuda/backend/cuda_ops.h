// SPDX-License-Identifier: Apache-2.0
#pragma once
// The CUDA backend's Ops: checks the arguments and calls the launcher of each operation. Activations are
// bfloat16 or float16.
// Owned by CudaDevice; engine thread (Pack: the loading thread before that).
#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "kernels/cuda/backend/cublaslt.h"
#include "kernels/cuda/backend/cuda_expert_ops.h"
#include "kernels/cuda/backend/cuda_memory.h"
#include "kernels/cuda/backend/cuda_stream.h"
#include "kernels/cuda/backend/cuda_weight.h"
#include "kernels/cuda/backend/graph_cache.h"
#include "kernels/cuda/backend/sampler.h"
#include "kernels/cuda/backend/step_staging.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/ops.h"

namespace millrace::cuda {

struct CudaOpsConfig {
  int ordinal = 0;
  int num_multiprocessors = 1;
  bool has_warpgroups = false;  // FindWarpgroups
  std::optional<ResidentClusters> resident_clusters;
  bool uses_graphs = true;
  DType activation_dtype = DType::kBF16;  // or kF16
};

class CudaOps final : public Ops {
 public:
  // REQUIRES: `stream` outlives this and belongs to the device.
  CudaOps(CudaStream& stream, const CudaOpsConfig& config)
      : stream_(stream),
        config_(config),
        cublaslt_(CublasLt::Open()),
        experts_(stream, {.ordinal = config.ordinal,
                          .num_multiprocessors = config.num_multiprocessors,
                          .activation_dtype = config.activation_dtype}) {}

  DType activation_dtype() const override { return config_.activation_dtype; }
  bool takes_kv_dtype(DType dtype) const override;
  absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(const WeightSource& source) override;
  size_t PackedBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size) const override;
  absl::Status ReserveWorkspace(const StepLimits& limits) override;
  size_t WorkspaceBytes(const StepLimits& limits) const override;
  void BeginStep(const StepInputs& inputs) override;
  void EndStep() override;
  absl::Status CollectStep() override;
  void Replay(absl::FunctionRef<void(int64_t num_rows)> body) override;
  absl::Status RecordSteps(absl::FunctionRef<void(const StepInputs&)> forward) override;

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

  // Forgets recorded steps, with which goes what they hold on to. No step may follow.
  void DropGraphs() { graphs_ = nullptr; }
  int num_replays() const { return graphs_ == nullptr ? 0 : graphs_->num_replays(); }
  absl::Status recording_fault() const { return graphs_ == nullptr ? absl::OkStatus() : graphs_->fault(); }

 private:
  // The step at hand, as launched.
  struct Step {
    const int32_t* tokens = nullptr;     // of the host: whose spans the ops are given
    const int32_t* positions = nullptr;  // likewise
    const AttentionSequence* sequences = nullptr;
    int64_t num_rows = 0;      // with padding
    int64_t rounded_rows = 0;  // 0: not to be recorded
    int num_sequences = 0;     // with padding
    bool is_decode = false;    // no sequence has more than one row
  };
  void LaunchPlan();
  absl::Status ComputePadding(int64_t num_rows, absl::FunctionRef<void(const StepInputs&)> forward);
  // Where a norm or SwiGLU leaves its rows for `reader`; nothing when it does not read int8 rows.
  QuantizedRows QuantizedFor(const PackedWeight* reader, const Matrix& out);

  CudaStream& stream_;
  const CudaOpsConfig config_;
  const std::unique_ptr<CublasLt> cublaslt_;  // null where it is not installed
  StepLimits limits_;
  StepStaging staging_;
  Sampler sampler_;
  std::array<CudaEvent, 2> step_done_;  // step s has event and side s % 2
  bool is_step_open_ = false;
  uint64_t num_ended_ = 0;
  uint64_t num_collected_ = 0;
  std::unique_ptr<GraphCache> graphs_;
  std::unique_ptr<DeviceMemory> matmul_workspace_;
  std::unique_ptr<DeviceMemory> cublaslt_workspace_;
  std::unique_ptr<DeviceMemory> attention_plan_;
  std::unique_ptr<DeviceMemory> attention_workspace_;
  std::unique_ptr<DeviceMemory> quantized_values_;
  std::unique_ptr<DeviceMemory> quantized_scales_;
  const PackedWeight* quantized_reader_ = nullptr;  // whom the quantised rows are for; null: nobody
  Step step_;
  CudaExpertOps experts_;
};

}  // namespace millrace::cuda
