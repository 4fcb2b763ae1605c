// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_ops.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_append.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

int64_t QuantizedStride(int64_t cols) { return (cols + 15) / 16 * 16; }

AttentionShape ShapeOf(const StepLimits& limits) {
  return {.num_heads = limits.num_heads,
          .num_kv_heads = limits.num_kv_heads,
          .head_dim = limits.head_dim,
          .window_tokens = limits.window_tokens};
}

int32_t MaxTokens(const StepLimits& limits) {
  return static_cast<int32_t>(limits.max_sequence_pages * limits.page_tokens);
}

int64_t MaxMatmulRows(const StepLimits& limits) { return std::max(limits.max_rows, limits.max_logit_rows); }

size_t PlanBytes(const StepLimits& limits) {
  return AttentionPlanBytes(ShapeOf(limits), static_cast<int>(limits.max_sequences));
}

size_t AttentionBytes(const StepLimits& limits) {
  return AttentionWorkspaceBytes(ShapeOf(limits), static_cast<int>(limits.max_sequences), MaxTokens(limits));
}

size_t MatmulBytes(const StepLimits& limits) {
  return MatmulWorkspaceBytes(MaxMatmulRows(limits), limits.max_outputs, limits.max_inputs);
}

size_t QuantizedBytes(const StepLimits& limits) {
  return static_cast<size_t>(MaxMatmulRows(limits) * QuantizedStride(limits.max_inputs));
}

size_t ScaleBytes(const StepLimits& limits) { return static_cast<size_t>(MaxMatmulRows(limits)) * sizeof(float); }

// A recorded decode step has a row for each sequence.
int64_t MaxRecordedRows(const StepLimits& limits) { return std::min(limits.max_rows, limits.max_sequences); }

size_t RecordedBytes(const StepLimits& limits) {
  return GraphCache::NumBytes(MaxRecordedRows(limits), limits.num_layers);
}

// For kernels that are loaded when they are first launched, and what libraries take for themselves.
constexpr size_t kLeastFreeBytes = size_t{256} << 20;

const CudaWeight& ToCudaWeight(const PackedWeight* weight) { return static_cast<const CudaWeight&>(*weight); }

}  // namespace

absl::StatusOr<std::unique_ptr<PackedWeight>> CudaOps::Pack(const WeightSource& source) {
  static_cast<void>(cudaSetDevice(config_.ordinal));
  ASSIGN_OR_RETURN(std::unique_ptr<PackedWeight> packed, CudaWeight::Pack(source, activation_dtype(), stream_));
  return packed;
}

bool CudaOps::takes_kv_dtype(DType dtype) const {
  return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kI8 || dtype == DType::kF8E4M3;
}

size_t CudaOps::PackedBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size) const {
  return CudaWeight::NumBytes({.format = format,
                               .dtype = format == WeightFormat::kDense ? activation_dtype() : dtype,
                               .n = n,
                               .k = k,
                               .group_size = group_size,
                               .has_zeros = format == WeightFormat::kInt4});
}

size_t CudaOps::WorkspaceBytes(const StepLimits& limits) const {
  return StepStaging::NumBytes(limits) + Sampler::NumBytes(limits) + PlanBytes(limits) + AttentionBytes(limits) +
         MatmulBytes(limits) + QuantizedBytes(limits) + ScaleBytes(limits) + CudaExpertOps::WorkspaceBytes(limits) +
         (cublaslt_ == nullptr ? 0 : CublasLt::kWorkspaceBytes) + (config_.uses_graphs ? RecordedBytes(limits) : 0);
}

absl::Status CudaOps::ReserveWorkspace(const StepLimits& limits) {
  static_cast<void>(cudaSetDevice(config_.ordinal));
  limits_ = limits;
  RETURN_IF_ERROR(staging_.Reserve(limits, stream_));
  RETURN_IF_ERROR(sampler_.Reserve(limits, stream_));
  for (CudaEvent& event : step_done_) RETURN_IF_ERROR(event.Create());
  ASSIGN_OR_RETURN(matmul_workspace_, DeviceMemory::Allocate(MatmulBytes(limits), stream_));
  ASSIGN_OR_RETURN(attention_plan_, DeviceMemory::Allocate(PlanBytes(limits), stream_));
  ASSIGN_OR_RETURN(attention_workspace_, DeviceMemory::Allocate(AttentionBytes(limits), stream_));
  ASSIGN_OR_RETURN(quantized_values_, DeviceMemory::Allocate(QuantizedBytes(limits), stream_));
  ASSIGN_OR_RETURN(quantized_scales_, DeviceMemory::Allocate(ScaleBytes(limits), stream_));
  RETURN_IF_ERROR(experts_.ReserveWorkspace(limits, staging_.slots()));
  if (cublaslt_ != nullptr) {
    ASSIGN_OR_RETURN(cublaslt_workspace_, DeviceMemory::Allocate(CublasLt::kWorkspaceBytes, stream_));
  }
  graphs_ = std::make_unique<GraphCache>(config_.uses_graphs ? MaxRecordedRows(limits) : 0);
  return stream_.Synchronize();
}

void CudaOps::BeginStep(const StepInputs& inputs) {
  static_cast<void>(cudaSetDevice(config_.ordinal));
  MILLRACE_CHECK(num_ended_ - num_collected_ < 2, "at most one step is ended and not collected");
  if (is_step_open_) static_cast<void>(stream_.Synchronize());  // its side is used again
  is_step_open_ = true;
  const int side = static_cast<int>(num_ended_ % 2);
  staging_.BeginStep(side);
  sampler_.BeginStep(side);
  const int64_t num_rows = static_cast<int64_t>(inputs.tokens.size());
  const int64_t num_sequences = static_cast<int64_t>(inputs.sequences.size());
  step_ = {.tokens = inputs.tokens.data(),
           .positions = inputs.positions.data(),
           .sequences = inputs.sequences.data(),
           .num_rows = num_rows,
           .num_sequences = static_cast<int>(num_sequences),
           .is_decode = num_rows == num_sequences};
  if (step_.is_decode) step_.rounded_rows = graphs_->RoundedRows(num_rows);
  if (step_.rounded_rows > 0) {
    step_.num_rows = step_.rounded_rows;
    step_.num_sequences = static_cast<int>(step_.rounded_rows);
  }
  quantized_reader_ = nullptr;
  staging_.Upload(inputs, step_.num_rows, stream_);
}

void CudaOps::EndStep() {
  is_step_open_ = false;
  step_done_[num_ended_++ % 2].Record(stream_);
}

absl::Status CudaOps::CollectStep() {
  MILLRACE_CHECK(num_collected_ < num_ended_, "only a step that was ended is collected");
  const size_t side = num_collected_++ % 2;
  const absl::Status status = step_done_[side].Synchronize(stream_);
  sampler_.Collect(static_cast<int>(side), stream_);
  return status;
}

void CudaOps::Replay(absl::FunctionRef<void(int64_t num_rows)> body) {
  const auto launch = [&] {
    LaunchPlan();
    body(step_.num_rows);
  };
  if (step_.rounded_rows == 0) return launch();
  graphs_->Run(step_.rounded_rows, stream_, launch);
}

absl::Status CudaOps::ComputePadding(int64_t num_rows, absl::FunctionRef<void(const StepInputs&)> forward) {
  const std::vector<int32_t> zeros(static_cast<size_t>(num_rows), 0);
  const std::vector<int64_t> no_slots(zeros.size(), -1);
  const std::vector<AttentionSequence> nobody(zeros.size());
  forward({.tokens = zeros, .positions = zeros, .slots = no_slots, .sequences = nobody});
  EndStep();
  return CollectStep();
}

absl::Status CudaOps::RecordSteps(absl::FunctionRef<void(const StepInputs&)> forward) {
  static_cast<void>(cudaSetDevice(config_.ordinal));
  const std::vector<int64_t> recorded_rows = graphs_->RecordedRows();
  // Called once first, which loads their kernels: what those take is no graph's.
  for (const int64_t num_rows : recorded_rows) RETURN_IF_ERROR(ComputePadding(num_rows, forward));
  size_t free_before = 0, free_after = 0, total = 0;
  RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_before, &total), "asking for the device's memory"));
  for (const int64_t num_rows : recorded_rows) RETURN_IF_ERROR(ComputePadding(num_rows, forward));
  RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_after, &total), "asking for the device's memory"));
  const size_t taken = free_before - std::min(free_before, free_after);
  const size_t planned = RecordedBytes(limits_);
  // What is beyond the plan comes out of the memory that the plan leaves alone, as long as that lasts.
  if (taken <= planned || free_after >= kLeastFreeBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the recorded decode steps take ", taken >> 20,
                                                   " MiB of the device's memory, the memory plan has ", planned >> 20,
                                                   " MiB for them, and ", free_after >> 20,
                                                   " MiB are left: lower --max-num-seqs or --gpu-memory-utilization"));
}

void CudaOps::LaunchPlan() {
  stream_.Keep(LaunchAttentionPlan({.shape = ShapeOf(limits_),
                                    .sequences = staging_.sequences(),
                                    .num_sequences = step_.num_sequences,
                                    .plan = attention_plan_->data()},
                                   stream_.get()),
               "planning attention");
}

QuantizedRows CudaOps::QuantizedFor(const PackedWeight* reader, const Matrix& out) {
  if (reader == nullptr || !ToCudaWeight(reader).takes_int8_rows()) return {};
  quantized_reader_ = reader;
  return {.values = static_cast<int8_t*>(quantized_values_->data()),
          .scales = static_cast<float*>(quantized_scales_->data()),
          .stride = QuantizedStride(out.cols)};
}

void CudaOps::Matmul(const MatmulArgs& args) {
  MILLRACE_CHECK(
      args.w != nullptr && args.x.cols == args.w->k() && args.out.cols == args.w->n() && args.x.rows == args.out.rows,
      "the shapes of a matmul fit each other");
  MatmulLaunch launch{.x = args.x,
                      .w = ToCudaWeight(args.w).on_device(),
                      .bias = args.bias,
                      .out = args.out,
                      .residual = args.residual,
                      .workspace = matmul_workspace_->data(),
                      .workspace_bytes = matmul_workspace_->num_bytes(),
                      .num_multiprocessors = config_.num_multiprocessors,
                      .has_warpgroups = config_.has_warpgroups,
                      .is_dependent = stream_.overlaps_kernels(),
                      .resident_clusters = config_.resident_clusters};
  if (std::exchange(quantized_reader_, nullptr) == args.w) launch.x_quantized = QuantizedFor(args.w, args.x);
  quantized_reader_ = nullptr;
  if (cublaslt_ != nullptr && cublaslt_->Launch(launch, cublaslt_workspace_->data(), stream_.get())) return;
  stream_.Keep(LaunchMatmul(launch, stream_.get()), "a matmul");
}

void CudaOps::Embed(const EmbedArgs& args) {
  MILLRACE_CHECK(args.tokens.data() == step_.tokens && args.out.rows == step_.num_rows, "the open step's tokens");
  stream_.Keep(LaunchEmbed({.table = args.table,
                            .tokens = staging_.tokens(),
                            .drawn = sampler_.drawn(),
                            .out = args.out,
                            .scale = args.scale,
                            .first_token = args.first_token,
                            .whole_tokens = args.whole_tokens,
                            .is_dependent = stream_.overlaps_kernels()},
                           stream_.get()),
               "embedding");
}

void CudaOps::RmsNorm(const RmsNormArgs& args) {
  RmsNormLaunch launch{.x = args.x, .weight = args.weight, .eps = args.eps, .out = args.out};
  launch.is_dependent = stream_.overlaps_kernels();
  launch.quantized = QuantizedFor(args.reader, args.out);
  if (launch.quantized.values != nullptr) launch.out.data = nullptr;
  stream_.Keep(LaunchRmsNorm(launch, stream_.get()), "a norm");
}

void CudaOps::SwiGlu(const SwiGluArgs& args) {
  SwiGluLaunch launch{.gate_up = args.gate_up, .out = args.out};
  launch.is_dependent = stream_.overlaps_kernels();
  launch.quantized = QuantizedFor(args.reader, args.out);
  if (launch.quantized.values != nullptr) launch.out.data = nullptr;
  stream_.Keep(LaunchSwiGlu(launch, stream_.get()), "SwiGLU");
}

void CudaOps::RopeAppend(const RopeAppendArgs& args) {
  MILLRACE_CHECK(args.positions.data() == step_.positions && args.qkv.rows == step_.num_rows,
                 "the open step's positions");
  stream_.Keep(LaunchRopeAppend({.qkv = args.qkv,
                                 .num_heads = args.num_heads,
                                 .q_norm = args.q_norm,
                                 .k_norm = args.k_norm,
                                 .norm_eps = args.norm_eps,
                                 .rope = args.rope,
                                 .positions = staging_.positions(),
                                 .slots = staging_.slots(),
                                 .kv = args.kv,
                                 .is_dependent = stream_.overlaps_kernels()},
                                stream_.get()),
               "RoPE and the append of keys and values");
}

void CudaOps::Attention(const AttentionArgs& args) {
  MILLRACE_CHECK(args.sequences.data() == step_.sequences && args.q.rows == step_.num_rows,
                 "the open step's sequences");
  MILLRACE_CHECK(args.window_tokens == limits_.window_tokens, "the plan was made for one window");
  stream_.Keep(LaunchAttention({.q = args.q,
                                .num_heads = args.num_heads,
                                .kv = args.kv,
                                .sequences = staging_.sequences(),
                                .num_sequences = step_.num_sequences,
                                .pages = staging_.pages(),
                                .plan = attention_plan_->data(),
                                .workspace = attention_workspace_->data(),
                                .scale = args.scale,
                                .window_tokens = args.window_tokens,
                                .out = args.out,
                                .mix = step_.is_decode ? AttentionMix::kDecode : AttentionMix::kMixed,
                                .num_multiprocessors = config_.num_multiprocessors,
                                .has_warpgroups = config_.has_warpgroups,
                                .is_dependent = stream_.overlaps_kernels()},
                               stream_.get()),
               "attention");
}

void CudaOps::GatherRows(const GatherRowsArgs& args) {
  MILLRACE_CHECK(static_cast<int64_t>(args.rows.size()) == args.out.rows, "a row for each");
  const int32_t* rows = staging_.UploadRows(args.rows, stream_);
  stream_.Keep(LaunchGatherRows({.x = args.x, .rows = rows, .out = args.out}, stream_.get()), "gathering rows");
}

void CudaOps::Sample(const SampleArgs& args) { sampler_.Sample(args, stream_); }
void CudaOps::Logprobs(const LogprobsArgs& args) { sampler_.Logprobs(args, stream_); }

}  // namespace millrace::cuda
