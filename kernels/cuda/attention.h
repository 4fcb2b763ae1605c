// SPDX-License-Identifier: Apache-2.0
#pragma once
// Paged attention: out = softmax(q k^T * scale) v per row and head, causal, with an optional sliding window.
// A step calls LaunchAttentionPlan once and LaunchAttention once per layer. Everything step-shaped is read on the
// device and grids depend only on num_sequences, q.rows and the machine, so a captured graph replays at any lengths.
//
//   sequences with one row    -> decode kernel: the query heads of a KV head share each load of K and V; long
//                                sequences are cut into chunks, merged by whoever finishes last, in fixed order
//   few rows that see much    -> decode kernel, row by row (attention_plan.h says how few and how much)
//   sequences with more rows  -> prefill kernel: tiles of rows and heads over tiles of keys; on sm_90a the warpgroup
//                                kernel, where it takes the shape: head_dim 64 and 128, rows of q aligned
//   what neither takes        -> the plain kernel (LaunchAttentionPlainly): any head dimension and KV dtype
//
// A row's bits depend on its own sequence only, never on the rest of the step: chunks are cut by the sequence's
// length alone, tiles of keys start at multiples of their length.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layer.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

// One sequence's part of a step, on the device. Its pages are pages[first_page ...], ceil((context + rows) /
// page_tokens) of them; those wholly before every row's window are never read.
struct DeviceSequence {
  int32_t first_row = 0;  // its rows are [first_row, first_row + num_rows) of q
  int32_t num_rows = 0;   // 0: padding, the rest is not read
  int32_t context_tokens = 0;
  int32_t first_page = 0;
};

// What plan, workspace and kernels are laid out for; the same in all launches of a step.
struct AttentionShape {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int32_t window_tokens = 0;  // 0: none; a row sees at most this many tokens, itself included
};

struct AttentionPlanLaunch {
  AttentionShape shape;
  const DeviceSequence* sequences = nullptr;
  int num_sequences = 0;
  void* plan = nullptr;       // AttentionPlanBytes(shape, at least num_sequences), 16-byte aligned
  bool is_dependent = false;  // programmatic dependent launch on the stream's previous kernel
};

enum class AttentionMix : uint8_t {
  kDecode,  // no sequence has more than one row: the prefill kernel is not launched
  kMixed,
};

struct AttentionLaunch {
  Matrix q;  // [T, H * D] BF16 or F16 (may be a view into qkv: stride >= H * D)
  int num_heads = 0;
  KvLayer kv;  // BF16, F16, I8 or F8E4M3; the step's own tokens already appended
  const DeviceSequence* sequences = nullptr;
  int num_sequences = 0;
  const int32_t* pages = nullptr;
  void* plan = nullptr;       // of the same sequences, window and heads; counters in it return to zero
  void* workspace = nullptr;  // AttentionWorkspaceBytes, 16-byte aligned, any content
  float scale = 0;
  int32_t window_tokens = 0;
  Matrix out;  // [T, H * D] in q's dtype; rows of no sequence are left as they are
  AttentionMix mix = AttentionMix::kMixed;
  int num_multiprocessors = 0;  // of the device
  bool has_warpgroups = false;  // of the device: FindWarpgroups
  bool is_dependent = false;    // programmatic dependent launch on the stream's previous kernel
};

size_t AttentionPlanBytes(const AttentionShape& shape, int max_sequences);
// For steps of up to max_sequences sequences of up to max_tokens tokens each, context and rows together.
size_t AttentionWorkspaceBytes(const AttentionShape& shape, int max_sequences, int32_t max_tokens);

cudaError_t LaunchAttentionPlan(const AttentionPlanLaunch& launch, cudaStream_t stream);

// REQUIRES: num_heads divisible by kv.num_kv_heads, head_dim at most 512, plan made since the plan's last use by a
// step with other sequences. cudaErrorInvalidValue: a dtype no kernel takes.
cudaError_t LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream);

// The plain twin: one warp per row and head, reads neither plan nor workspace.
cudaError_t LaunchAttentionPlainly(const AttentionLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
