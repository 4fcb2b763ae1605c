// SPDX-License-Identifier: Apache-2.0
#pragma once
// The memory that the passes of sampling share, and how they read a row. A row is cut into chunks of kChunkLogits whose
// number follows from the vocabulary alone, so sums do not depend on the batch; the block that finishes a pass of a row
// last goes on alone with what the others found. Weights are e^((logit - largest) / temperature), in the filters as
// fixed point: integers add up to the same in any order. Device code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/sample_types.h"

namespace millrace::cuda {

constexpr int kSampleThreads = 256;
constexpr int kThreadLogits = 16;
constexpr int kChunkLogits = kSampleThreads * kThreadLogits;
constexpr int kMaxChunks = static_cast<int>(kMaxSampledVocab / kChunkLogits);
constexpr int kDistanceBins = 1024;    // of a row's logits by their distance from the largest
constexpr float kBinsPerUnit = 32.0f;  // a unit is a factor e of weight; what is further than 32 shares the last bin
constexpr int kMaxCandidates = 2048;   // that are collected; more of them are looked up in the row itself
constexpr float kWeightOne = 0x1p40f;  // of fixed point
constexpr float kNegativeInfinity = -__builtin_huge_valf();
static_assert(kMaxChunks <= kSampleThreads);

using Mass = unsigned long long;  // a sum of weights or a count

struct ChunkState {
  Mass best;                       // see PackBest; all ones: broken
  float sum;                       // of weights relative to the chunk's own largest
  int32_t count;                   // logprobs: logits at least the token's own
  int32_t list_begin, list_count;  // its candidates in ids
};

struct RowState {
  uint32_t num_arrived[3];  // blocks, per pass
  uint32_t num_listed;
  float largest;
  int32_t is_filtered;  // the passes after the first have work
  int32_t last_bin;     // candidates lie in the bins up to this one
  uint32_t num_candidates;
  Mass total;         // of all that reach the threshold
  double normalizer;  // logprobs: log of the sum of e^logit
};

// What every pass is given.
struct SamplePass {
  float* logits;
  int64_t stride;
  int32_t vocab;
  int32_t num_chunks;
  const DeviceSampleRow* rows;  // null: log-probabilities of `targets`
  const int32_t* targets;
  int32_t num_top;  // of targets
  const int32_t* tokens;
  const float* biases;
  const uint32_t* masks;
  DeviceSampleResult* results;
  DeviceTokenLogprob* top;
  int32_t has_filters;
  RowState* states;      // [R]
  ChunkState* chunks;    // [R, num_chunks]
  uint32_t* bin_counts;  // [R, kDistanceBins]
  Mass* bin_masses;      // [R, kDistanceBins]
  int32_t* ids;          // [R, kMaxCandidates]
  float* saved;          // raw logits of `tokens`
};

enum class SampleMode : uint8_t { kDraw, kLogprobs };

// One row's view of a pass.
struct RowJob {
  const float* logits = nullptr;   // null: nothing to do
  const uint32_t* mask = nullptr;  // null: everything is allowed
  float temperature = 1;           // 0: greedy
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  int32_t token = -1;  // logprobs: whose
  int32_t num_top = 0;
  bool is_aligned = false;

  __device__ bool HasTopK() const { return top_k > 0; }
};

template <SampleMode kMode>
__device__ inline RowJob JobOf(const SamplePass& pass, int64_t index) {
  RowJob job;
  int64_t row = index;
  if (pass.rows == nullptr) {
    job.token = pass.targets[index];
    job.num_top = pass.num_top;
    if (job.token < 0 || job.token >= pass.vocab) return job;
  } else {
    const DeviceSampleRow& asked = pass.rows[index];
    row = asked.row;
    job.num_top = asked.num_top_logprobs;
    if (row < 0) return job;
    if constexpr (kMode == SampleMode::kDraw) {
      job.temperature = asked.temperature;
      job.top_k = asked.top_k < pass.vocab ? asked.top_k : 0;
      job.top_p = asked.top_p;
      job.min_p = min(asked.min_p, 1.0f);  // the best token always stays
      if (asked.mask_row >= 0) job.mask = pass.masks + asked.mask_row * ((int64_t{pass.vocab} + 31) / 32);
    } else {
      job.token = pass.results[index].token;
      if (job.num_top < 0 || job.token < 0) return job;
    }
  }
  if constexpr (kMode == SampleMode::kLogprobs) {
    job.num_top = min(job.num_top, kMaxTopLogprobs);
    job.top_k = job.num_top;
  }
  job.logits = pass.logits + row * pass.stride;
  job.is_aligned = reinterpret_cast<uintptr_t>(job.logits) % 16 == 0;
  return job;
}

__device__ inline float Allowed(float logit, bool is_allowed) {
  // A NaN stays where it is: the row is broken, and a mask must not hide that. Adding zero makes -0 equal to 0.
  return is_allowed || logit != logit ? logit + 0.0f : kNegativeInfinity;
}

// A logit as the mask leaves it; minus infinity past the end.
__device__ inline float LogitAt(const RowJob& job, int32_t id, int32_t vocab) {
  if (id >= vocab) return kNegativeInfinity;
  return Allowed(job.logits[id], job.mask == nullptr || (job.mask[id / 32] >> (id % 32) & 1u) != 0);
}

// Four of them from `id`, a multiple of four.
__device__ inline void LogitsAt(const RowJob& job, int32_t id, int32_t vocab, float (&logits)[4]) {
  if (id + 4 > vocab || !job.is_aligned) {
#pragma unroll
    for (int i = 0; i < 4; ++i) logits[i] = LogitAt(job, id + i, vocab);
    return;
  }
  const float4 four = *reinterpret_cast<const float4*>(job.logits + id);
  const uint32_t allowed = job.mask == nullptr ? 15u : job.mask[id / 32] >> (id % 32);
  logits[0] = Allowed(four.x, (allowed & 1u) != 0);
  logits[1] = Allowed(four.y, (allowed & 2u) != 0);
  logits[2] = Allowed(four.z, (allowed & 4u) != 0);
  logits[3] = Allowed(four.w, (allowed & 8u) != 0);
}

// A thread's share of a chunk, as quads that neighbours read side by side.
__device__ inline int32_t QuadId(int32_t chunk, int quad) {
  return chunk * kChunkLogits + (quad * kSampleThreads + static_cast<int32_t>(threadIdx.x)) * 4;
}

// Unsigned integers in the order of the numbers. REQUIRES: no NaN, no -0.
__device__ inline uint32_t OrderedKey(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrderedKey(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// The larger pack is the larger logit, then the lower id.
constexpr Mass kBroken = ~0ull;
__device__ inline Mass PackBest(float logit, int32_t id) {
  return static_cast<Mass>(OrderedKey(logit)) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ inline float BestLogit(Mass best) { return FromOrderedKey(static_cast<uint32_t>(best >> 32)); }
__device__ inline int32_t BestId(Mass best) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best)); }

__device__ inline float Weight(float logit, float largest, float temperature) {
  return expf((logit - largest) / temperature);
}
__device__ inline Mass FixedWeight(float logit, float largest, float temperature) {
  return static_cast<Mass>(Weight(logit, largest, temperature) * kWeightOne);
}

// Bins ascend as logits descend, whatever the rounding.
__device__ inline int DistanceBin(float logit, float largest, float temperature) {
  const float distance = (largest - logit) / temperature * kBinsPerUnit;
  return distance < static_cast<float>(kDistanceBins - 1) ? static_cast<int>(distance) : kDistanceBins - 1;
}

// The least logit that min-p lets through.
__device__ inline float Threshold(const RowJob& job, float largest) {
  return job.min_p > 0 ? largest + job.temperature * logf(job.min_p) : kNegativeInfinity;
}
__device__ inline bool IsCandidate(float logit, float threshold) {
  return logit >= threshold && logit != kNegativeInfinity;
}

// Counts a block of a row as arrived; true in all threads of the last one, which then sees what the others wrote.
__device__ inline bool IsLastBlock(uint32_t* num_arrived, uint32_t num_blocks) {
  __shared__ uint32_t ticket;
  __threadfence();  // this thread's results are visible before the ticket is drawn
  __syncthreads();  // by all threads of the block
  if (threadIdx.x == 0) ticket = atomicAdd(num_arrived, 1u);
  __syncthreads();  // everyone sees the ticket
  __threadfence();  // and nothing of the others is read before it
  return ticket == num_blocks - 1;
}

}  // namespace millrace::cuda
