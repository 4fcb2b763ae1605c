// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the last block of a filtered row does with its candidates: the exact top-k and top-p by radix selection, the
// draw among what they leave by inverse CDF in order of id, the best tokens of log-probabilities. Device code; all
// threads of the block call.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/sample_draw.h"
#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

// The weight that top-p must reach. REQUIRES: total > 0.
__device__ inline Mass TopPTarget(float top_p, Mass total) {
  const double wanted = ceil(static_cast<double>(top_p) * static_cast<double>(total));
  return wanted < 1 ? 1 : min(static_cast<Mass>(wanted), total);
}

// Candidates in order of id, out of shared memory or out of the row; a thread owns consecutive ones.
struct ListedCandidates {
  const int32_t* ids;
  const float* logits;
  int32_t count;
  __device__ int32_t Id(int32_t at) const { return ids[at]; }
  __device__ float Logit(int32_t at) const { return logits[at]; }
};
struct RowCandidates {
  RowJob job;
  int32_t count;
  float threshold;
  __device__ int32_t Id(int32_t at) const { return at; }
  __device__ float Logit(int32_t at) const {
    const float logit = LogitAt(job, at, count);
    return IsCandidate(logit, threshold) ? logit : kNegativeInfinity;  // which is no candidate
  }
};

// Visits this thread's candidates: visit(at, key, logit).
template <typename Candidates, typename Visit>
__device__ inline void ForEachCandidate(const Candidates& candidates, const Visit& visit) {
  const int32_t share = (candidates.count + kSampleThreads - 1) / kSampleThreads;
  const int32_t begin = static_cast<int32_t>(threadIdx.x) * share;
  const int32_t end = min(begin + share, candidates.count);
  for (int32_t at = begin; at < end; ++at) {
    const float logit = candidates.Logit(at);
    if (logit != kNegativeInfinity) visit(at, OrderedKey(logit), logit);
  }
}

// Where a selection ends: keys above `key` are in; of those equal to it, the ids up to last_id.
struct Cut {
  uint32_t key = 0;
  int32_t last_id = 0x7fffffff;
  Mass above = 0;  // amount of the keys above
  __device__ bool Keeps(uint32_t other, int32_t id) const { return other > key || (other == key && id <= last_id); }
};

// The key at which the amounts of the largest keys reach `target`: digit by digit, from the top.
// REQUIRES: 0 < target <= the amount of all candidates of at least `least`.
template <typename Candidates, typename AmountOf>
__device__ inline Cut Select(const Candidates& candidates, uint32_t least, Mass target, const AmountOf& amount_of,
                             DrawScratch& scratch) {
  Cut cut;
  const int thread = static_cast<int>(threadIdx.x);
  for (int shift = 24; shift >= 0; shift -= 8) {
    scratch.low[thread] = scratch.high[thread] = 0;
    __syncthreads();  // the digits are clear, and the last round is read
    const uint32_t known = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    ForEachCandidate(candidates, [&](int32_t /*at*/, uint32_t key, float logit) {
      if (key < least || (key & known) != cut.key) return;
      const uint32_t digit = key >> shift & 255u;
      const Mass amount = amount_of(logit);
      const uint32_t low = static_cast<uint32_t>(amount);
      const uint32_t carry = atomicAdd(&scratch.low[digit], low) + low < low ? 1u : 0u;
      const uint32_t high = static_cast<uint32_t>(amount >> 32) + carry;
      if (high != 0) atomicAdd(&scratch.high[digit], high);
    });
    __syncthreads();  // the amounts of all digits are there
    const uint32_t digit = static_cast<uint32_t>(kDigitBins - 1 - thread);
    const Mass own = static_cast<Mass>(scratch.high[digit]) << 32 | scratch.low[digit];
    Mass total;
    const Mass above = cut.above + BlockSumBefore(own, scratch.scan, total);
    if (above < target && target <= above + own) {
      scratch.digit = digit;
      scratch.above = above;
    }
    __syncthreads();  // everyone sees the digit
    cut.key |= scratch.digit << shift;
    cut.above = scratch.above;
  }
  return cut;
}

// Lets only the `num_ties` lowest ids of those at the cut through.
template <typename Candidates>
__device__ inline void KeepLowest(const Candidates& candidates, Mass num_ties, Cut& cut, DrawScratch& scratch) {
  Mass own = 0, total;
  ForEachCandidate(candidates, [&](int32_t /*at*/, uint32_t key, float /*logit*/) { own += key == cut.key ? 1 : 0; });
  Mass before = BlockSumBefore(own, scratch.scan, total);
  if (before < num_ties && num_ties <= before + own) {
    ForEachCandidate(candidates, [&](int32_t at, uint32_t key, float /*logit*/) {
      if (key == cut.key && ++before == num_ties) scratch.chosen = candidates.Id(at);
    });
  }
  __syncthreads();  // everyone sees the last id
  cut.last_id = scratch.chosen;
  __syncthreads();  // before it is written again
}

// Amount of the candidates that the cut keeps.
template <typename Candidates, typename AmountOf>
__device__ inline Mass SumKept(const Candidates& candidates, const Cut& cut, const AmountOf& amount_of,
                               DrawScratch& scratch) {
  Mass own = 0, total;
  ForEachCandidate(candidates, [&](int32_t at, uint32_t key, float logit) {
    if (cut.Keeps(key, candidates.Id(at))) own += amount_of(logit);
  });
  BlockSumBefore(own, scratch.scan, total);
  return total;
}

// The draw among what top-k and top-p leave of the candidates.
template <typename Candidates>
__device__ inline int32_t DrawFiltered(const Candidates& candidates, const RowJob& job, const RowState& state,
                                       double noise, DrawScratch& scratch) {
  const auto weight_of = [&](float logit) { return FixedWeight(logit, state.largest, job.temperature); };
  const auto one_of = [](float /*logit*/) { return Mass{1}; };
  Cut cut;
  if (job.HasTopK() && SumKept(candidates, cut, one_of, scratch) > static_cast<Mass>(job.top_k)) {
    cut = Select(candidates, 0, static_cast<Mass>(job.top_k), one_of, scratch);  // what ties with the last stays
  }
  if (job.top_p < 1) {
    const Mass total = job.HasTopK() ? SumKept(candidates, cut, weight_of, scratch) : state.total;
    const Mass target = TopPTarget(job.top_p, total);
    cut = Select(candidates, cut.key, target, weight_of, scratch);
    const Mass tie = weight_of(FromOrderedKey(cut.key));
    KeepLowest(candidates, (target - cut.above + tie - 1) / tie, cut, scratch);
  }
  Mass own = 0, total;
  ForEachCandidate(candidates, [&](int32_t at, uint32_t key, float logit) {
    if (cut.Keeps(key, candidates.Id(at))) own += weight_of(logit);
  });
  Mass before = BlockSumBefore(own, scratch.scan, total);
  const Mass left = min(static_cast<Mass>(noise * static_cast<double>(total)), total - 1);
  if (before <= left && left < before + own) {
    bool is_found = false;
    ForEachCandidate(candidates, [&](int32_t at, uint32_t key, float logit) {
      if (is_found || !cut.Keeps(key, candidates.Id(at))) return;
      before += weight_of(logit);
      is_found = left < before;
      if (is_found) scratch.chosen = candidates.Id(at);
    });
  }
  __syncthreads();  // everyone sees the token
  return scratch.chosen;
}

// The num_top best candidates, best first, ties by lower id; what there is not is left empty.
template <typename Candidates>
__device__ inline void WriteBest(const Candidates& candidates, const RowJob& job, double normalizer,
                                 DeviceTokenLogprob* top, DrawScratch& scratch) {
  const auto one_of = [](float /*logit*/) { return Mass{1}; };
  const Mass num_wanted = static_cast<Mass>(job.num_top);
  Cut cut;
  if (SumKept(candidates, cut, one_of, scratch) > num_wanted) {
    cut = Select(candidates, 0, num_wanted, one_of, scratch);
    KeepLowest(candidates, num_wanted - cut.above, cut, scratch);
  }
  if (threadIdx.x == 0) scratch.num_best = 0;
  __syncthreads();  // the list is empty
  ForEachCandidate(candidates, [&](int32_t at, uint32_t key, float logit) {
    const int32_t id = candidates.Id(at);
    if (cut.Keeps(key, id)) scratch.best[atomicAdd(&scratch.num_best, 1u)] = PackBest(logit, id);
  });
  __syncthreads();  // the list is whole
  const uint32_t thread = threadIdx.x;
  if (thread < static_cast<uint32_t>(job.num_top)) {
    uint32_t place = thread;
    DeviceTokenLogprob entry;
    if (thread < scratch.num_best) {
      const Mass own = scratch.best[thread];
      place = 0;
      for (uint32_t i = 0; i < scratch.num_best; ++i) place += scratch.best[i] > own ? 1u : 0u;
      entry.token = BestId(own);
      entry.logprob = static_cast<float>(BestLogit(own) - normalizer);
    }
    top[place] = entry;
  }
}

}  // namespace millrace::cuda
