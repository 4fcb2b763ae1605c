// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations a model's forward pass is made of; one Args struct each. An op enters here only when a model calls it.
// Shapes use T rows of a step, S sequences, H heads, G KV heads, D head dim, C hidden, F ffn, V vocab, P pages.
// Called from the engine thread; calls take effect in order. No op allocates; scratch comes with ReserveWorkspace.
// A backend may compute later: what an op writes for the host is there when the step was collected.
// Pointers into matrices, weights' vectors and tables are the device's; spans and results are the host's.
// REQUIRES on every Args: shapes as given; a violated one is our own fault and stops the process.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/expert_ops.h"
#include "kernels/kv_layer.h"
#include "kernels/step.h"
#include "kernels/tensor.h"

namespace millrace {

struct MatmulArgs {
  Matrix x;                         // [T, K] activations
  const PackedWeight* w = nullptr;  // [N, K]
  const float* bias = nullptr;      // [N] or null
  Matrix out;                       // [T, N] activations (float32 for logits)
  const void* residual = nullptr;   // null, or [T, N] of out's dtype and stride: out = residual + x*W^T (may alias out)
};

struct EmbedArgs {
  Matrix table;                      // [V, C] F32, F16 or BF16
  absl::Span<const int32_t> tokens;  // [T], each in [0, V) or a DrawnToken
  Matrix out;                        // [T, C]
  float scale = 1.0f;
  // A rank's part of a table: rows [first_token, first_token + table.rows) of whole_tokens. Other tokens' rows are 0.
  int32_t first_token = 0;
  int32_t whole_tokens = 0;  // 0: the table is whole
};

struct RmsNormArgs {
  Matrix x;                       // [T, C]
  const float* weight = nullptr;  // [C]
  float eps = 1e-6f;
  Matrix out;                            // [T, C], may alias x
  const PackedWeight* reader = nullptr;  // the only Matmul that reads `out`, or null: a backend may leave it quantised
};

// QK-norm (optional), RoPE, and the append of K and V into pages, in place on the fused projection.
struct RopeAppendArgs {
  Matrix qkv;  // [T, (H + 2G) * D]: q heads, then k heads, then v heads; q is rewritten in place
  int num_heads = 0;
  const float* q_norm = nullptr;  // [D] or null
  const float* k_norm = nullptr;  // [D] or null
  float norm_eps = 1e-6f;
  RopeTable rope;
  absl::Span<const int32_t> positions;  // [T]
  absl::Span<const int64_t> slots;      // [T]: page * page_tokens + offset; negative: padding, nothing is stored
  KvLayer kv;
};

struct AttentionArgs {
  Matrix q;  // [T, H * D] (may be a view into qkv: stride >= H * D)
  int num_heads = 0;
  KvLayer kv;
  absl::Span<const AttentionSequence> sequences;
  float scale = 0;            // usually 1/sqrt(D)
  int32_t window_tokens = 0;  // sliding window, 0: none; a row sees at most this many tokens, itself included
  Matrix out;                 // [T, H * D]
};

struct SwiGluArgs {
  Matrix gate_up;                        // [T, 2F]: gate then up
  Matrix out;                            // [T, F] = silu(gate) * up; must not alias
  const PackedWeight* reader = nullptr;  // as in RmsNormArgs
};

struct GatherRowsArgs {
  Matrix x;                        // [T, C]
  absl::Span<const int32_t> rows;  // [R], each in [0, T)
  Matrix out;                      // [R, C]
};

struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0;  // of the raw logits (before bias, penalties and temperature)
};

// How one row's next token is drawn. Order: bias, penalties, mask, temperature, then min-p, top-k, top-p.
struct SampleRow {
  int32_t row = 0;        // of logits
  float temperature = 1;  // 0: greedy (lowest id wins a tie)
  int32_t top_k = 0;      // 0: off
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;  // over prompt and output tokens
  float presence_penalty = 0;    // over output tokens
  float frequency_penalty = 0;   // over output tokens
  uint64_t seed = 0;             // noise is a function of (seed, position), never of the batch
  uint64_t position = 0;
  absl::Span<const int32_t> prompt_tokens;  // read only when a penalty is on
  absl::Span<const int32_t> output_tokens;
  absl::Span<const TokenLogprob> logit_bias;  // token and added bias (in `logprob`)
  absl::Span<const int32_t> banned_tokens;    // never drawn (min_tokens: the stop tokens)
  const uint32_t* mask = nullptr;             // [ceil(V/32)] bit set: allowed; null: all
  int32_t num_top_logprobs = -1;              // -1: no logprob wanted; 0: the drawn token's; n: and the n best
};

struct SampleResult {
  int32_t token = -1;
  bool is_failed = false;  // every token masked, or a logit that is not a number
  float logprob = 0;
  int32_t rank = 0;              // 1-based rank of the drawn token among raw logits, when logprobs are wanted
  absl::Span<TokenLogprob> top;  // storage given by the caller, room for num_top_logprobs; filled best first
};

struct SampleArgs {
  Matrix logits;  // [R, V] float32; overwritten
  absl::Span<const SampleRow> rows;
  absl::Span<SampleResult> results;  // one per row
};

// Log-probabilities of given tokens (prompt_logprobs): reads raw logits.
struct LogprobsArgs {
  Matrix logits;                      // [R, V] float32
  absl::Span<const int32_t> targets;  // [R]
  int32_t num_top = 0;
  absl::Span<SampleResult> results;  // one per row; token = target
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual DType activation_dtype() const = 0;          // of every activation Matrix but logits: float32 on the CPU
  virtual bool takes_kv_dtype(DType dtype) const = 0;  // of KvLayer

  // Lays a weight out for Matmul. InvalidArgument names a shape or group the backend cannot take.
  virtual absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(const WeightSource& source) = 0;
  // What Pack will hold at most: an int4 matrix is counted with zero points.
  virtual size_t PackedBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size) const = 0;
  // Scratch for steps within the limits; call once before the first step.
  virtual absl::Status ReserveWorkspace(const StepLimits& limits) = 0;
  virtual size_t WorkspaceBytes(const StepLimits& limits) const = 0;

  // Opens a step: Embed, RopeAppend and Attention are given these very spans. REQUIRES: at most one is not collected.
  virtual void BeginStep(const StepInputs& inputs) = 0;
  virtual void EndStep() = 0;  // nothing more is asked of it
  // Waits for the oldest step that was ended and not collected, and for no later one; then the results of its Sample
  // and Logprobs are filled. Internal: the first fault of anything launched.
  virtual absl::Status CollectStep() = 0;
  // Calls body(num_rows), which launches the open step's layers on matrices of so many rows: the step's own, or more
  // when a backend replays a launch sequence recorded for a rounded number (at most max_rows; rows of padding are
  // computed and mean nothing). A recorded body is not called again, so it may depend on num_rows alone.
  virtual void Replay(absl::FunctionRef<void(int64_t num_rows)> body) = 0;
  // Records what Replay will, before the first request: `forward` computes a step of padding. ResourceExhausted: that
  // takes more memory than WorkspaceBytes counts for it, and too little is left. Internal: a fault.
  virtual absl::Status RecordSteps(absl::FunctionRef<void(const StepInputs&)> forward) = 0;

  virtual void Matmul(const MatmulArgs& args) = 0;
  virtual void Embed(const EmbedArgs& args) = 0;
  virtual void RmsNorm(const RmsNormArgs& args) = 0;
  virtual void RopeAppend(const RopeAppendArgs& args) = 0;
  virtual void Attention(const AttentionArgs& args) = 0;
  virtual void SwiGlu(const SwiGluArgs& args) = 0;
  virtual void GatherRows(const GatherRowsArgs& args) = 0;
  virtual void Sample(const SampleArgs& args) = 0;  // its rows are read at once, its results filled by CollectStep
  virtual void Logprobs(const LogprobsArgs& args) = 0;
  virtual ExpertOps& experts() = 0;
};

}  // namespace millrace
