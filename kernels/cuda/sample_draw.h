// SPDX-License-Identifier: Apache-2.0
#pragma once
// The draw by temperature alone, which the last block of a row makes from the chunks' sums, by inverse CDF in order of
// id; and the shared memory of all that last blocks do. Device code; all threads of the block call.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

constexpr int kDigitBins = 256;
static_assert(kDigitBins == kSampleThreads, "a thread owns a bin");

struct DrawScratch {
  double sums[kSampleThreads];  // of chunks, then of threads
  double groups[kThreadLogits];
  double left;
  Mass scan[kWarpSize];
  uint32_t low[kDigitBins], high[kDigitBins];  // masses of digits in two words: shared memory adds no 64 bits at once
  Mass above;
  uint32_t digit;
  int32_t chosen;
  Mass best[kMaxTopLogprobs];
  uint32_t num_best;
};

// The first index whose weights, in order, add up to more than `left`, which becomes what is left at its beginning.
// Rounding may leave a little over at the end: the last index with any weight is taken then.
template <typename WeightOf>
__device__ inline int32_t FindAtWeight(int32_t count, double& left, const WeightOf& weight_of) {
  int32_t chosen = 0;
  double left_of_chosen = left, rest = left;
  for (int32_t i = 0; i < count && rest >= 0; ++i) {
    const double weight = weight_of(i);
    if (weight == 0) continue;
    chosen = i;
    left_of_chosen = rest;
    rest -= weight;
  }
  left = left_of_chosen;
  return chosen;
}

// The draw by temperature alone, from the sums that the chunks have left.
__device__ inline int32_t DrawUnfiltered(const SamplePass& pass, const RowJob& job, const ChunkState* chunks,
                                         float largest, double noise, DrawScratch& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < pass.num_chunks) {
    const float of_chunk = BestLogit(chunks[thread].best);
    scratch.sums[thread] = static_cast<double>(chunks[thread].sum) * Weight(of_chunk, largest, job.temperature);
  }
  __syncthreads();  // the sums of all chunks are there
  if (thread == 0) {
    double total = 0;
    for (int32_t i = 0; i < pass.num_chunks; ++i) total += scratch.sums[i];
    scratch.left = noise * total;
    scratch.chosen = FindAtWeight(pass.num_chunks, scratch.left, [&](int32_t i) { return scratch.sums[i]; });
  }
  __syncthreads();  // everyone sees the chunk, and nobody needs the sums of chunks any more
  const int32_t begin = scratch.chosen * kChunkLogits;
  double sum = 0;
  for (int i = 0; i < kThreadLogits; ++i) {
    sum += Weight(LogitAt(job, begin + thread * kThreadLogits + i, pass.vocab), largest, job.temperature);
  }
  scratch.sums[thread] = sum;
  __syncthreads();  // the sums of all threads are there
  if (thread < kThreadLogits) {
    double group = 0;
    for (int i = 0; i < kThreadLogits; ++i) group += scratch.sums[thread * kThreadLogits + i];
    scratch.groups[thread] = group;
  }
  __syncthreads();  // the sums of all groups are there
  if (thread == 0) {
    double left = scratch.left;
    int32_t at = FindAtWeight(kThreadLogits, left, [&](int32_t i) { return scratch.groups[i]; });
    at = at * kThreadLogits +
         FindAtWeight(kThreadLogits, left, [&](int32_t i) { return scratch.sums[at * kThreadLogits + i]; });
    const int32_t first = begin + at * kThreadLogits;
    scratch.chosen =
        first + FindAtWeight(kThreadLogits, left, [&](int32_t i) {
          return static_cast<double>(Weight(LogitAt(job, first + i, pass.vocab), largest, job.temperature));
        });
  }
  __syncthreads();  // everyone sees the token
  return scratch.chosen;
}

}  // namespace millrace::cuda
