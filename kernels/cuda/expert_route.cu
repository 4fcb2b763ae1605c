// SPDX-License-Identifier: Apache-2.0
// Experts of each row: the k largest of its E logits l, with the weights exp(l - max l) / sum; then the places of all
// T * k choices sorted by expert and, within one, by row. Two kernels:
//
//   choose  a warp a row, lane i holds logits i, i + 32, ...; k times the largest not yet taken
//   sort    every block counts all choices; then each of its warps places those of one expert, 32 choices at a time in
//           rising order, so that the order is the same every time
//
// sm_80 and up; limited by latency: a step has a few thousand choices at most.
#include <climits>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/expert_route.h"

namespace millrace::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kExpertsAThread = kMaxExperts / kThreads;
static_assert(kMaxExperts % kThreads == 0 && kMaxExpertChoices <= kWarpSize);

struct RouteParams {
  const float* logits;
  int64_t stride;
  int num_rows;
  bool is_normalized;
  const int64_t* slots;
  ExpertRoutes routes;
};

struct Candidate {
  float logit;
  int expert;
};

__device__ inline float MinusInfinity() { return __uint_as_float(0xff800000u); }
// What is not a number comes last, so that any logits give k different experts.
__device__ inline float SortKey(float logit) { return logit == logit ? logit : MinusInfinity(); }
__device__ inline bool IsBefore(const Candidate& a, const Candidate& b) {
  const float key = SortKey(a.logit), other = SortKey(b.logit);
  return key > other || (key == other && a.expert < b.expert);
}

// The first of all lanes' candidates, in every lane.
__device__ inline Candidate FirstOfWarp(Candidate first) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const Candidate other = {__shfl_xor_sync(kAllLanes, first.logit, step),
                             __shfl_xor_sync(kAllLanes, first.expert, step)};
    if (IsBefore(other, first)) first = other;
  }
  return first;
}

template <int kLogitsALane>
__global__ void __launch_bounds__(kThreads) ExpertChooseKernel(const RouteParams params) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarpSize;
  const ExpertRoutes& routes = params.routes;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const bool is_row = row < params.num_rows;
  const bool is_padding = is_row && params.slots != nullptr && params.slots[row] < 0;
  if (is_padding && lane < routes.num_choices) routes.experts[row * routes.num_choices + lane] = -1;
  if (is_row && !is_padding) {
    const float* logits = params.logits + row * params.stride;
    float held[kLogitsALane];
    uint32_t is_taken = 0;  // bit i: held[i]
#pragma unroll
    for (int i = 0; i < kLogitsALane; ++i) {
      const int expert = i * kWarpSize + lane;
      held[i] = expert < routes.num_experts ? logits[expert] : MinusInfinity();
      if (expert >= routes.num_experts) is_taken |= 1u << i;
    }
    Candidate own = {MinusInfinity(), INT_MAX};  // lane c's: the row's choice number c
    float largest = 0;
    for (int choice = 0; choice < routes.num_choices; ++choice) {
      Candidate first = {MinusInfinity(), INT_MAX};
#pragma unroll
      for (int i = 0; i < kLogitsALane; ++i) {
        const Candidate candidate = {held[i], i * kWarpSize + lane};
        if ((is_taken >> i & 1u) == 0 && IsBefore(candidate, first)) first = candidate;
      }
      first = FirstOfWarp(first);
      if (first.expert % kWarpSize == lane) is_taken |= 1u << (first.expert / kWarpSize);
      if (choice == 0) largest = first.logit;
      if (choice == lane) own = first;
    }
    float weight = lane < routes.num_choices ? expf(own.logit - largest) : 0.0f;
    float share = weight;
    if (!params.is_normalized) {
      share = 0;
#pragma unroll
      for (int i = 0; i < kLogitsALane; ++i) {
        if (i * kWarpSize + lane < routes.num_experts) share += expf(held[i] - largest);
      }
    }
    weight /= WarpReduce(share, Add());
    if (lane < routes.num_choices) {
      routes.experts[row * routes.num_choices + lane] = own.expert;
      routes.weights[row * routes.num_choices + lane] = weight;
    }
  }
}

__global__ void __launch_bounds__(kThreads) ExpertSortKernel(const RouteParams params) {
  __shared__ int32_t counts[kMaxExperts];
  __shared__ int32_t starts[kMaxExperts];
  __shared__ int32_t scratch[kWarpSize];
  const ExpertRoutes& routes = params.routes;
  const int num_choices = params.num_rows * routes.num_choices;
  const int thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e < kMaxExperts; e += kThreads) counts[e] = 0;
  __syncthreads();  // all counts are zero
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  for (int i = thread; i < num_choices; i += kThreads) {
    const int expert = routes.experts[i];
    if (expert >= 0) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();  // all choices are counted
  int32_t own[kExpertsAThread], sum = 0, total = 0;
#pragma unroll
  for (int i = 0; i < kExpertsAThread; ++i) {
    own[i] = counts[thread * kExpertsAThread + i];
    sum += own[i];
  }
  int32_t before = BlockSumBefore(sum, scratch, total);
#pragma unroll
  for (int i = 0; i < kExpertsAThread; ++i) {
    const int e = thread * kExpertsAThread + i;
    starts[e] = before;
    if (blockIdx.x == 0 && e < routes.num_experts) routes.starts[e] = before;
    before += own[i];
  }
  if (blockIdx.x == 0) {
    if (thread == 0) routes.starts[routes.num_experts] = total;
    for (int i = total + thread; i < num_choices; i += kThreads) routes.rows[i] = -1;
  }
  __syncthreads();  // all starts are there
  const int expert = static_cast<int>(blockIdx.x) * kWarps + thread / kWarpSize;
  const int lane = thread % kWarpSize;
  if (expert < routes.num_experts) {
    int32_t place = starts[expert];
    const int32_t end = place + counts[expert];
    for (int first = 0; place < end; first += kWarpSize) {
      const int choice = first + lane;
      const bool is_ours = choice < num_choices && routes.experts[choice] == expert;
      const uint32_t ours = __ballot_sync(kAllLanes, is_ours);
      if (is_ours) {
        const int32_t at = place + __popc(ours & ((1u << lane) - 1));
        routes.places[choice] = at;
        routes.rows[at] = choice / routes.num_choices;
      }
      place += __popc(ours);
    }
  }
}

using Kernel = void (*)(RouteParams);

Kernel ChooseKernelFor(int num_experts) {
  if (num_experts <= kWarpSize) return ExpertChooseKernel<1>;
  if (num_experts <= 4 * kWarpSize) return ExpertChooseKernel<4>;
  return ExpertChooseKernel<kMaxExperts / kWarpSize>;
}

}  // namespace

cudaError_t LaunchExpertRoute(const ExpertRouteLaunch& launch, cudaStream_t stream) {
  const ExpertRoutes& routes = launch.routes;
  MILLRACE_CHECK(launch.logits.dtype == DType::kF32 && launch.logits.cols == routes.num_experts,
                 "a float32 logit for every expert");
  MILLRACE_CHECK(routes.num_experts <= kMaxExperts && routes.num_choices <= kMaxExpertChoices &&
                     routes.num_choices >= 1 && routes.num_choices <= routes.num_experts,
                 "as many experts and choices as the kernels have room for");
  if (launch.logits.rows == 0) return cudaSuccess;
  const RouteParams params = {static_cast<const float*>(launch.logits.data),
                              launch.logits.stride,
                              static_cast<int>(launch.logits.rows),
                              launch.is_normalized,
                              launch.slots,
                              routes};
  const auto blocks = [](int64_t warps) { return dim3(static_cast<unsigned>((warps + kWarps - 1) / kWarps)); };
  const cudaError_t error = Launch(ChooseKernelFor(routes.num_experts),
                                   {.grid = blocks(launch.logits.rows),
                                    .block = dim3(kThreads),
                                    .stream = stream,
                                    .is_dependent = launch.is_dependent},
                                   params);
  if (error != cudaSuccess) return error;
  return Launch(ExpertSortKernel,
                {.grid = blocks(routes.num_experts),
                 .block = dim3(kThreads),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                params);
}

}  // namespace millrace::cuda
