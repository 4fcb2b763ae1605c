// SPDX-License-Identifier: Apache-2.0
// Four kernels, each with a chunk of a row per block and the rows side by side; limited by reading the logits.
//   Prepare    one block a row: clears the row's state; edits its logits, or restores them.
//   Scan       largest logit and sum of weights. Its last block ends a row that is greedy, failed, or drawn by
//              temperature alone, and the row's log-probability and rank.
//   Histogram  counts and weights by distance from the largest logit; its last block finds the bin in which top-k or
//              top-p ends (min-p needs none).
//   Collect    what lies in the bins up to that one, in order of id; its last block selects exactly among those few.
//              Where they are many, a single block looks at the row itself, several times over.
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/sample_draw.h"
#include "kernels/cuda/sample_edit.h"
#include "kernels/cuda/sample_passes.h"
#include "kernels/cuda/sample_rows.h"
#include "kernels/cuda/sample_select.h"
#include "kernels/rng.h"

namespace millrace::cuda {
namespace {

constexpr int kQuads = kThreadLogits / 4;
constexpr int kThreadBins = kDistanceBins / kSampleThreads;

template <SampleMode kMode>
__global__ void __launch_bounds__(kSampleThreads) PrepareKernel(const SamplePass pass) {
  const int64_t index = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (thread == 0) pass.states[index] = RowState{};
  for (int i = thread; i < kDistanceBins; i += kSampleThreads) {
    pass.bin_counts[index * kDistanceBins + i] = 0;
    pass.bin_masses[index * kDistanceBins + i] = 0;
  }
  if (pass.rows != nullptr && pass.rows[index].row >= 0) {
    const DeviceSampleRow row = pass.rows[index];
    if constexpr (kMode == SampleMode::kDraw) {
      EditLogits(pass, row);
    } else if (row.num_top_logprobs >= 0) {
      RestoreLogits(pass, row);
    }
  }
}

// The scan's end for a draw: greedy, failed and unfiltered rows have their token here.
__device__ void FinishDrawScan(const SamplePass& pass, const RowJob& job, Mass best, DrawScratch& scratch) {
  const int64_t index = blockIdx.y;
  const float largest = BestLogit(best);
  const bool is_failed = best == kBroken || largest == kNegativeInfinity;
  const bool is_filtered = pass.has_filters != 0 && (job.top_p < 1 || job.min_p > 0 || job.HasTopK());
  int32_t token = is_failed ? -1 : BestId(best);
  if (!is_failed && job.temperature > 0) {
    if (is_filtered) {
      if (threadIdx.x == 0) {
        pass.states[index].largest = largest;
        pass.states[index].is_filtered = 1;
      }
      return;
    }
    const double noise = UniformNoise(pass.rows[index].seed, pass.rows[index].position);
    token = DrawUnfiltered(pass, job, pass.chunks + index * pass.num_chunks, largest, noise, scratch);
  }
  if (threadIdx.x == 0) {
    pass.results[index].token = token;
    pass.results[index].is_failed = is_failed ? 1 : 0;
  }
}

// And for log-probabilities: the token's own are known here, the best tokens are not.
__device__ void FinishLogprobsScan(const SamplePass& pass, const RowJob& job, Mass best, DrawScratch& scratch) {
  const int64_t index = blockIdx.y;
  const ChunkState* chunks = pass.chunks + index * pass.num_chunks;
  const int thread = static_cast<int>(threadIdx.x);
  const float largest = BestLogit(best);
  const bool is_sound = best != kBroken && largest != kNegativeInfinity;
  if (thread < pass.num_chunks) {
    scratch.sums[thread] = is_sound && chunks[thread].sum != 0 ? static_cast<double>(chunks[thread].sum) *
                                                                     expf(BestLogit(chunks[thread].best) - largest)
                                                               : 0.0;
  }
  __syncthreads();  // the sums of all chunks are there
  if (thread < job.num_top && !is_sound) pass.top[index * kMaxTopLogprobs + thread] = DeviceTokenLogprob{};
  if (thread != 0) return;
  double sum = 0;
  int32_t rank = 0;
  for (int32_t i = 0; i < pass.num_chunks; ++i) {
    sum += scratch.sums[i];
    rank += chunks[i].count;
  }
  RowState& state = pass.states[index];
  state.normalizer = is_sound ? log(sum) + largest : static_cast<double>(__uint_as_float(0x7fc00000u));
  state.largest = largest;
  state.is_filtered = is_sound && job.num_top > 0 ? 1 : 0;
  DeviceSampleResult& result = pass.results[index];
  if (pass.rows == nullptr) {
    result.token = job.token;
    result.is_failed = 0;
  }
  result.logprob = static_cast<float>(job.logits[job.token] - state.normalizer);
  result.rank = rank;
}

template <SampleMode kMode>
__global__ void __launch_bounds__(kSampleThreads) ScanKernel(const SamplePass pass) {
  __shared__ DrawScratch scratch;
  __shared__ float sums[kWarpSize];
  __shared__ int32_t counts[kWarpSize];
  const int32_t chunk = static_cast<int32_t>(blockIdx.x);
  const int64_t index = blockIdx.y;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const RowJob job = JobOf<kMode>(pass, index);
  if (job.logits == nullptr) return;
  float logits[kQuads][4];
  Mass best = 0;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int32_t id = QuadId(chunk, q);
    LogitsAt(job, id, pass.vocab, logits[q]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_sound = logits[q][i] < -kNegativeInfinity;
      best = Larger()(best, is_sound ? PackBest(logits[q][i], id + i) : kBroken);
    }
  }
  best = BlockReduce(best, Larger(), scratch.scan);
  const float largest = BestLogit(best);
  float sum = 0;
  int32_t count = 0;
  if (job.temperature > 0 && best != kBroken && largest != kNegativeInfinity) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum += Weight(logits[q][i], largest, job.temperature);
    }
    sum = BlockReduce(sum, Add(), sums);
  }
  if constexpr (kMode == SampleMode::kLogprobs) {
    const float own = job.logits[job.token];
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
#pragma unroll
      for (int i = 0; i < 4; ++i) count += logits[q][i] >= own && QuadId(chunk, q) + i < pass.vocab ? 1 : 0;
    }
    count = BlockReduce(count, Add(), counts);
  }
  ChunkState* chunks = pass.chunks + index * pass.num_chunks;
  if (threadIdx.x == 0) chunks[chunk] = {.best = best, .sum = sum, .count = count};
  if (!IsLastBlock(&pass.states[index].num_arrived[0], gridDim.x)) return;
  best = BlockReduce(static_cast<int>(threadIdx.x) < pass.num_chunks ? chunks[threadIdx.x].best : 0, Larger(),
                     scratch.scan);
  if constexpr (kMode == SampleMode::kDraw) {
    FinishDrawScan(pass, job, best, scratch);
  } else {
    FinishLogprobsScan(pass, job, best, scratch);
  }
}

struct HistogramScratch {
  uint32_t counts[kDistanceBins];
  uint32_t low[kDistanceBins], high[kDistanceBins];  // of masses
  Mass scan[kWarpSize];
};

// Which bins hold what the row's filters leave.
__device__ void FinishHistogram(const SamplePass& pass, const RowJob& job, HistogramScratch& scratch) {
  const int64_t index = blockIdx.y;
  RowState& state = pass.states[index];
  const int first = static_cast<int>(threadIdx.x) * kThreadBins;
  Mass counts[kThreadBins], masses[kThreadBins];
  Mass own_count = 0, own_mass = 0, all_count, all_mass;
#pragma unroll
  for (int i = 0; i < kThreadBins; ++i) {
    counts[i] = pass.bin_counts[index * kDistanceBins + first + i];
    masses[i] = pass.bin_masses[index * kDistanceBins + first + i];
    own_count += counts[i];
    own_mass += masses[i];
  }
  Mass count = BlockSumBefore(own_count, scratch.scan, all_count);
  Mass mass = BlockSumBefore(own_mass, scratch.scan, all_mass);
  if (threadIdx.x == 0) {
    state.last_bin = kDistanceBins - 1;
    state.num_candidates = static_cast<uint32_t>(all_count);
    state.total = all_mass;
  }
  __syncthreads();  // the thread that knows better writes after this
  const bool is_by_count = job.HasTopK();
  if (!is_by_count && job.top_p >= 1) return;
  const Mass target = is_by_count ? static_cast<Mass>(job.top_k) : TopPTarget(job.top_p, all_mass);
#pragma unroll
  for (int i = 0; i < kThreadBins; ++i) {
    const Mass before = is_by_count ? count : mass;
    count += counts[i];
    mass += masses[i];
    if (before < target && target <= (is_by_count ? count : mass)) {
      state.last_bin = first + i;
      state.num_candidates = static_cast<uint32_t>(count);
    }
  }
}

template <SampleMode kMode>
__global__ void __launch_bounds__(kSampleThreads) HistogramKernel(const SamplePass pass) {
  __shared__ HistogramScratch scratch;
  const int64_t index = blockIdx.y;
  const int thread = static_cast<int>(threadIdx.x);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  RowState& state = pass.states[index];
  const RowJob job = JobOf<kMode>(pass, index);
  if (job.logits == nullptr || state.is_filtered == 0) return;
  for (int i = thread; i < kDistanceBins; i += kSampleThreads) {
    scratch.counts[i] = scratch.low[i] = scratch.high[i] = 0;
  }
  __syncthreads();  // the bins are clear
  const float largest = state.largest, threshold = Threshold(job, largest);
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    float logits[4];
    LogitsAt(job, QuadId(static_cast<int32_t>(blockIdx.x), q), pass.vocab, logits);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!IsCandidate(logits[i], threshold)) continue;
      const int bin = DistanceBin(logits[i], largest, job.temperature);
      atomicAdd(&scratch.counts[bin], 1u);
      if (kMode == SampleMode::kLogprobs) continue;
      const Mass weight = FixedWeight(logits[i], largest, job.temperature);
      const uint32_t low = static_cast<uint32_t>(weight);
      const uint32_t carry = atomicAdd(&scratch.low[bin], low) + low < low ? 1u : 0u;
      const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
      if (high != 0) atomicAdd(&scratch.high[bin], high);
    }
  }
  __syncthreads();  // the block's bins are whole
  for (int i = thread; i < kDistanceBins; i += kSampleThreads) {
    if (scratch.counts[i] == 0) continue;
    atomicAdd(&pass.bin_counts[index * kDistanceBins + i], scratch.counts[i]);
    const Mass mass = static_cast<Mass>(scratch.high[i]) << 32 | scratch.low[i];
    if (mass != 0) atomicAdd(&pass.bin_masses[index * kDistanceBins + i], mass);
  }
  if (IsLastBlock(&state.num_arrived[1], gridDim.x)) FinishHistogram(pass, job, scratch);
}

struct CollectScratch {
  DrawScratch draw;
  int32_t ids[kMaxCandidates];
  float logits[kMaxCandidates];
  uint32_t scan[kWarpSize];
  uint32_t base;
};

template <SampleMode kMode, typename Candidates>
__device__ void FinishRow(const SamplePass& pass, const RowJob& job, const Candidates& candidates,
                          DrawScratch& scratch) {
  const int64_t index = blockIdx.y;
  const RowState& state = pass.states[index];
  if constexpr (kMode == SampleMode::kLogprobs) {
    WriteBest(candidates, job, state.normalizer, pass.top + index * kMaxTopLogprobs, scratch);
  } else {
    const double noise = UniformNoise(pass.rows[index].seed, pass.rows[index].position);
    const int32_t token = DrawFiltered(candidates, job, state, noise, scratch);
    if (threadIdx.x == 0) {
      pass.results[index].token = token;
      pass.results[index].is_failed = 0;
    }
  }
}

// Writes this block's candidates to the row's list, in order of id.
__device__ void ListCandidates(const SamplePass& pass, const RowJob& job, CollectScratch& scratch) {
  const int64_t index = blockIdx.y;
  RowState& state = pass.states[index];
  const float largest = state.largest, threshold = Threshold(job, largest);
  const int32_t begin =
      static_cast<int32_t>(blockIdx.x) * kChunkLogits + static_cast<int32_t>(threadIdx.x) * kThreadLogits;
  uint32_t found = 0;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    float logits[4];
    LogitsAt(job, begin + q * 4, pass.vocab, logits);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_in =
          IsCandidate(logits[i], threshold) && DistanceBin(logits[i], largest, job.temperature) <= state.last_bin;
      found |= (is_in ? 1u : 0u) << (q * 4 + i);
    }
  }
  uint32_t total;
  uint32_t at = BlockSumBefore(static_cast<uint32_t>(__popc(found)), scratch.scan, total);
  if (threadIdx.x == 0) {
    scratch.base = atomicAdd(&state.num_listed, total);
    ChunkState& chunk = pass.chunks[index * pass.num_chunks + blockIdx.x];
    chunk.list_begin = static_cast<int32_t>(scratch.base);
    chunk.list_count = static_cast<int32_t>(total);
  }
  __syncthreads();  // everyone sees where the block's part begins
  int32_t* ids = pass.ids + index * kMaxCandidates + scratch.base;
  for (; found != 0; found &= found - 1) ids[at++] = begin + __ffs(static_cast<int>(found)) - 1;
}

// The lists of all chunks, one behind the other in order of id.
__device__ ListedCandidates GatherLists(const SamplePass& pass, const RowJob& job, CollectScratch& scratch) {
  const int64_t index = blockIdx.y;
  const int thread = static_cast<int>(threadIdx.x);
  const ChunkState* chunks = pass.chunks + index * pass.num_chunks;
  const bool has_chunk = thread < pass.num_chunks;
  uint32_t total;
  uint32_t at = BlockSumBefore(has_chunk ? static_cast<uint32_t>(chunks[thread].list_count) : 0u, scratch.scan, total);
  if (has_chunk) {
    const int32_t* ids = pass.ids + index * kMaxCandidates + chunks[thread].list_begin;
    for (int32_t i = 0; i < chunks[thread].list_count; ++i) scratch.ids[at++] = ids[i];
  }
  __syncthreads();  // the list is whole
  for (uint32_t i = threadIdx.x; i < total; i += kSampleThreads) {
    scratch.logits[i] = LogitAt(job, scratch.ids[i], pass.vocab);
  }
  __syncthreads();  // with its logits
  return {scratch.ids, scratch.logits, static_cast<int32_t>(total)};
}

template <SampleMode kMode>
__global__ void __launch_bounds__(kSampleThreads, 2) CollectKernel(const SamplePass pass) {
  __shared__ CollectScratch scratch;
  const int64_t index = blockIdx.y;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  RowState& state = pass.states[index];
  const RowJob job = JobOf<kMode>(pass, index);
  if (job.logits == nullptr || state.is_filtered == 0) return;
  if (state.num_candidates > kMaxCandidates) {
    if (blockIdx.x != 0) return;
    FinishRow<kMode>(pass, job, RowCandidates{job, pass.vocab, Threshold(job, state.largest)}, scratch.draw);
    return;
  }
  ListCandidates(pass, job, scratch);
  if (!IsLastBlock(&state.num_arrived[2], gridDim.x)) return;
  FinishRow<kMode>(pass, job, GatherLists(pass, job, scratch), scratch.draw);
}

template <SampleMode kMode>
cudaError_t Run(const SamplePass& pass, const PassOptions& options, cudaStream_t stream) {
  if (options.num_rows == 0) return cudaSuccess;
  const unsigned rows = static_cast<unsigned>(options.num_rows);
  const size_t seen_bytes = kMode == SampleMode::kDraw ? (static_cast<size_t>(pass.vocab) + 31) / 32 * 4 : 0;
  cudaError_t error = Launch(PrepareKernel<kMode>,
                             {.grid = dim3(rows),
                              .block = dim3(kSampleThreads),
                              .shared_bytes = seen_bytes,
                              .stream = stream,
                              .is_dependent = options.is_dependent},
                             pass);
  void (*const passes[])(SamplePass) = {ScanKernel<kMode>, HistogramKernel<kMode>, CollectKernel<kMode>};
  const int num_passes = options.has_filters ? 3 : 1;
  for (int i = 0; i < num_passes && error == cudaSuccess; ++i) {
    error = Launch(passes[i],
                   {.grid = dim3(static_cast<unsigned>(pass.num_chunks), rows),
                    .block = dim3(kSampleThreads),
                    .stream = stream,
                    .is_dependent = options.is_dependent},
                   pass);
  }
  return error;
}

// The parts of a workspace, each at a multiple of 256 bytes; null base: only the size counts.
struct Carver {
  uint8_t* base;
  size_t used = 0;
  template <typename T>
  T* Take(int64_t count) {
    T* part = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
};

}  // namespace

size_t CarveWorkspace(void* workspace, int64_t num_rows, SamplePass& pass) {
  Carver carver = {static_cast<uint8_t*>(workspace)};
  pass.num_chunks = (pass.vocab + kChunkLogits - 1) / kChunkLogits;
  pass.states = carver.Take<RowState>(num_rows);
  pass.chunks = carver.Take<ChunkState>(num_rows * pass.num_chunks);
  pass.bin_counts = carver.Take<uint32_t>(num_rows * kDistanceBins);
  pass.bin_masses = carver.Take<Mass>(num_rows * kDistanceBins);
  pass.ids = carver.Take<int32_t>(num_rows * kMaxCandidates);
  pass.saved = carver.Take<float>(0);
  return carver.used;
}

cudaError_t RunDraw(const SamplePass& pass, const PassOptions& options, cudaStream_t stream) {
  return Run<SampleMode::kDraw>(pass, options, stream);
}

cudaError_t RunLogprobs(const SamplePass& pass, const PassOptions& options, cudaStream_t stream) {
  return Run<SampleMode::kLogprobs>(pass, options, stream);
}

}  // namespace millrace::cuda
