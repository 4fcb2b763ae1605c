// SPDX-License-Identifier: Apache-2.0
// Prefill attention: chunks of a prompt over pages, in the manner of FlashAttention-2 (arXiv 2307.08691). sm_80 and
// later; bound by tensor cores, close behind by shared memory.
//   block     (sequence, KV head, tile of packed queries): row and query head of the KV head, the head changing
//   fastest,
//             so that few rows of many heads fill a tile as well as many rows do
//   warp      16 packed queries, whose q, scores and output stay in its registers
//   step      64 keys (32 for D > 128): S = q K^T while V is copied, O += P V while the next keys are
// Steps start at multiples of their length, and a step that a query does not see leaves its result bit for bit: a row
// comes out the same however its prompt was cut. float32 maximum, sums and output (arXiv 1805.02867).
#include "kernels/cuda/attention_fragments.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/attention_prefill_item.h"
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"

namespace millrace::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

template <DType kKv, int kHeadDim>
struct PrefillTile : KvTile<kKv, kHeadDim> {
  using Base = KvTile<kKv, kHeadDim>;
  static constexpr int kRows = PrefillTileRows(kHeadDim);
  static constexpr int kNumWarps = kRows / 16;
  static constexpr int kThreads = 32 * kNumWarps;
  static constexpr int kKeys = kHeadDim > 128 ? 32 : 64;
  static constexpr int kDim = kHeadDim;
  // Output and q of such heads do not fit a lane's registers together.
  static constexpr bool kHasSharedQueries = kHeadDim > 128;

  struct Shared {
    uint8_t keys[kKeys * Base::kRowBytes];
    uint8_t values[kKeys * Base::kRowBytes];
    float key_scales[kKeys];
    float value_scales[kKeys];
    int32_t vectors[2][kKeys];  // of this step and the next; -1 where nothing is seen
    uint4 queries[kHasSharedQueries ? kNumWarps * Base::kBlocks * 32 : 1];  // [warp][block][lane], the lane's own
  };
};

// Notes where the vectors of keys first_key ... lie.
template <typename Tile>
__device__ __forceinline__ void LookUp(const AttentionLaunch& args, const PrefillItem& item, int32_t first_key,
                                       int32_t (&vectors)[Tile::kKeys]) {
  if (threadIdx.x >= Tile::kKeys) return;
  const int32_t token = first_key + static_cast<int32_t>(threadIdx.x);
  const bool is_seen = token >= item.begin && token < item.end;
  vectors[threadIdx.x] = is_seen ? FindVector(args.kv, item.pages, item.kv_head, token) : -1;
}

// Starts the copy of a step's keys or values; unseen ones become zeros, whatever their slots hold.
template <typename Tile>
__device__ __forceinline__ void IssueStep(const void* memory, const float* scales,
                                          const int32_t (&vectors)[Tile::kKeys], uint8_t* tile, float* tile_scales) {
  constexpr int kCopies = Tile::kKeys * Tile::kPieces;
  const auto* bytes = static_cast<const uint8_t*>(memory);
#pragma unroll
  for (int i = 0; i < (kCopies + Tile::kThreads - 1) / Tile::kThreads; ++i) {
    const int copy = static_cast<int>(threadIdx.x) + Tile::kThreads * i;
    if (kCopies % Tile::kThreads != 0 && copy >= kCopies) break;
    const int row = copy / Tile::kPieces, piece = copy % Tile::kPieces;
    const int32_t from = vectors[row];
    const int64_t at = from < 0 ? 0 : static_cast<int64_t>(from) * Tile::kVectorBytes + 16 * piece;
    ptx::CpAsync16(tile + row * Tile::kRowBytes + 16 * piece, bytes + at, from >= 0);
  }
  if constexpr (Tile::kHasScales) {
    if (threadIdx.x < Tile::kKeys) {
      const int32_t from = vectors[threadIdx.x];
      ptx::CpAsync4(tile_scales + threadIdx.x, scales + (from < 0 ? 0 : from), from >= 0);
    }
  }
  ptx::CpAsyncCommit();
}

// A lane's part of its warp's 16 queries: i = 0, 1 stands for the queries g, g + 8 of the warp.
template <typename Tile>
struct WarpState {
  uint32_t q[Tile::kHasSharedQueries ? 1 : Tile::kBlocks][4];
  int32_t last[2];  // the last key each query sees
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this lane's keys
  float out[2 * Tile::kBlocks][4] = {};
};

template <typename Tile>
__device__ __forceinline__ uint4& SharedQueries(typename Tile::Shared& shared, int block) {
  return shared.queries[(threadIdx.x / 32 * Tile::kBlocks + block) * 32 + threadIdx.x % 32];
}

template <typename Tile>
__device__ __forceinline__ void LoadQueries(const AttentionLaunch& args, const PrefillItem& item, int32_t warp_query,
                                            typename Tile::Shared& shared, WarpState<Tile>& state) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const uint16_t* from[2];  // null past the last query
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t query = warp_query + lane / 4 + 8 * i;
    const int64_t row = item.sequence.first_row + query / item.group;
    const int head = item.first_head + query % item.group;
    const auto* q = static_cast<const uint16_t*>(args.q.data) + row * args.q.stride + head * Tile::kDim;
    from[i] = query < item.num_queries ? q : nullptr;
    state.last[i] = LastSeen(item, query);
  }
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    uint32_t q[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      q[i] = from[i] != nullptr ? Tile::QueryPair(from[i] + 16 * block, args.q.dtype, 0) : 0u;
      q[2 + i] = from[i] != nullptr ? Tile::QueryPair(from[i] + 16 * block, args.q.dtype, 1) : 0u;
    }
    if constexpr (Tile::kHasSharedQueries) {
      SharedQueries<Tile>(shared, block) = make_uint4(q[0], q[1], q[2], q[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) state.q[block][i] = q[i];
    }
  }
}

template <typename Tile>
using Scores = float[Tile::kKeys / 8][4];  // [n8 tile of keys][(query i, key 2t + j) at 2 * i + j]

template <typename Tile>
__device__ __forceinline__ void ScoreStep(typename Tile::Shared& shared, const WarpState<Tile>& state,
                                          Scores<Tile>& s) {
  const auto add_block = [&](const uint32_t(&q)[4], int block) {
#pragma unroll
    for (int keys = 0; keys < Tile::kKeys / 16; ++keys) {
      uint32_t r[4];
      Tile::LoadKeys(r, shared.keys, 16 * keys, block);
      Tile::Mma(s[2 * keys], q, {r[0], r[2]});
      Tile::Mma(s[2 * keys + 1], q, {r[1], r[3]});
    }
  };
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    if constexpr (Tile::kHasSharedQueries) {
      const uint4 q = SharedQueries<Tile>(shared, block);
      add_block({q.x, q.y, q.z, q.w}, block);
    } else {
      add_block(state.q[block], block);
    }
  }
}

// Scales and, where the warp does not see the whole step, masks.
template <typename Tile>
__device__ __forceinline__ void ScaleAndMask(const AttentionLaunch& args, const typename Tile::Shared& shared,
                                             const WarpState<Tile>& state, int32_t first_key, bool is_masked,
                                             Scores<Tile>& s) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int n = 0; n < Tile::kKeys / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int key = 8 * n + 2 * (lane % 4) + j;
      const float scale = args.scale * kLog2E * (Tile::kHasScales ? shared.key_scales[key] : 1.0f);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[n][2 * i + j] *= scale;
        if (!is_masked) continue;
        const int32_t age = state.last[i] - (first_key + key);
        if (age < 0 || (args.window_tokens > 0 && age >= args.window_tokens)) s[n][2 * i + j] = -INFINITY;
      }
    }
  }
}

// Scores become the weights of the values; maxima, sums and output follow.
template <typename Tile>
__device__ __forceinline__ void ScoresToWeights(Scores<Tile>& s, WarpState<Tile>& state) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float largest = state.largest[i];
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 8; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet: no infinity minus infinity
    const float shrink = ptx::Exp2(state.largest[i] - base);
    state.largest[i] = largest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < Tile::kKeys / 8; ++n) {
      s[n][2 * i] = ptx::Exp2(s[n][2 * i] - base);
      s[n][2 * i + 1] = ptx::Exp2(s[n][2 * i + 1] - base);
      sum += s[n][2 * i] + s[n][2 * i + 1];
    }
    state.sum[i] = state.sum[i] * shrink + sum;
#pragma unroll
    for (int n = 0; n < 2 * Tile::kBlocks; ++n) {
      state.out[n][2 * i] *= shrink;
      state.out[n][2 * i + 1] *= shrink;
    }
  }
}

template <typename Tile>
__device__ __forceinline__ void AddValues(const typename Tile::Shared& shared, Scores<Tile>& weights,
                                          WarpState<Tile>& state) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int keys = 0; keys < Tile::kKeys / 16; ++keys) {
    uint32_t p[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float(&w)[4] = weights[2 * keys + half];
      if constexpr (Tile::kHasScales) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float gain = shared.value_scales[16 * keys + 8 * half + 2 * (lane % 4) + j] * Tile::kWeightGain;
          w[j] *= gain;
          w[2 + j] *= gain;
        }
      }
      p[2 * half] = Tile::Pack(w[0], w[1]);
      p[2 * half + 1] = Tile::Pack(w[2], w[3]);
    }
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      uint32_t r[4];
      Tile::LoadValues(r, shared.values, 16 * keys, block);
      Tile::Mma(state.out[2 * block], p, {r[0], r[2]});
      Tile::Mma(state.out[2 * block + 1], p, {r[1], r[3]});
    }
  }
}

template <typename Tile>
__device__ __forceinline__ void StoreOutput(const AttentionLaunch& args, const PrefillItem& item, int32_t warp_query,
                                            WarpState<Tile>& state) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = state.sum[i];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    const int32_t query = warp_query + lane / 4 + 8 * i;
    if (query >= item.num_queries) continue;
    const float share = 1.0f / (sum * Tile::kWeightGain);
    const int64_t at = (item.sequence.first_row + query / item.group) * args.out.stride +
                       static_cast<int64_t>(item.first_head + query % item.group) * Tile::kDim;
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      const float(&a)[4] = state.out[2 * block];
      const float(&b)[4] = state.out[2 * block + 1];
      const int x = 2 * i, y = 2 * i + 1;
      const int64_t from = at + 16 * block;
      // An 8-bit block's even elements lie in one n8 tile, its odd ones in the other.
      StorePair(args.out.data, args.out.dtype, from + Tile::Pair(lane, 0), a[x] * share,
                (Tile::kIsByte ? b[x] : a[y]) * share);
      StorePair(args.out.data, args.out.dtype, from + Tile::Pair(lane, 1), (Tile::kIsByte ? a[y] : b[x]) * share,
                b[y] * share);
    }
  }
}

// Blocks of a multiprocessor, at least: where ptxas is left to guess, it spills on some architectures for more of them.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ >= 1000)
#define MILLRACE_PREFILL_BLOCKS 1
#else
#define MILLRACE_PREFILL_BLOCKS 0
#endif

template <DType kKv, int kHeadDim>
__global__ void __launch_bounds__(PrefillTile<kKv, kHeadDim>::kThreads, MILLRACE_PREFILL_BLOCKS)
    AttentionPrefillKernel(AttentionLaunch args) {
  using Tile = PrefillTile<kKv, kHeadDim>;
  auto& shared = *ptx::SharedMemory<typename Tile::Shared>();
  const AttentionPlanView plan = ViewPlan(args.plan, args.num_sequences);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (static_cast<int32_t>(blockIdx.x) >= NumPrefillItems(args, plan)) return;
  const PrefillItem item = FindPrefillItem(args, plan, static_cast<int32_t>(blockIdx.x), Tile::kRows);
  const int32_t warp_query = item.first_query + 16 * static_cast<int32_t>(threadIdx.x / 32);
  const bool has_queries = warp_query < item.num_queries;
  const int32_t first_last = LastSeen(item, warp_query), last_last = LastSeen(item, warp_query + 15);
  WarpState<Tile> state;
  LoadQueries<Tile>(args, item, warp_query, shared, state);

  int32_t key = item.begin / Tile::kKeys * Tile::kKeys;
  LookUp<Tile>(args, item, key, shared.vectors[0]);
  __syncthreads();  // vectors[0] is written
  IssueStep<Tile>(args.kv.keys, args.kv.key_scales, shared.vectors[0], shared.keys, shared.key_scales);
  for (int step = 0; key < item.end; key += Tile::kKeys, step ^= 1) {
    LookUp<Tile>(args, item, key + Tile::kKeys, shared.vectors[step ^ 1]);
    ptx::CpAsyncWait<0>();
    __syncthreads();  // the keys are there; the values of the step before are read; the next vectors are written
    IssueStep<Tile>(args.kv.values, args.kv.value_scales, shared.vectors[step], shared.values, shared.value_scales);
    const bool is_seen = has_queries && key <= last_last &&
                         (args.window_tokens <= 0 || key + Tile::kKeys > first_last + 1 - args.window_tokens);
    Scores<Tile> s = {};
    if (is_seen) {
      const bool is_masked =
          key + Tile::kKeys - 1 > first_last || (args.window_tokens > 0 && key <= last_last - args.window_tokens);
      ScoreStep<Tile>(shared, state, s);
      ScaleAndMask<Tile>(args, shared, state, key, is_masked, s);
      ScoresToWeights<Tile>(s, state);
    }
    ptx::CpAsyncWait<0>();
    __syncthreads();  // the values are there; the keys are read
    IssueStep<Tile>(args.kv.keys, args.kv.key_scales, shared.vectors[step ^ 1], shared.keys, shared.key_scales);
    if (is_seen) AddValues<Tile>(shared, s, state);
  }
  ptx::CpAsyncWait<0>();
  StoreOutput<Tile>(args, item, warp_query, state);
}

template <DType kKv, int kHeadDim>
cudaError_t LaunchTile(const AttentionLaunch& launch, cudaStream_t stream) {
  using Tile = PrefillTile<kKv, kHeadDim>;
  const int64_t most_items = MostPrefillItems(launch, Tile::kRows);
  if (most_items == 0) return cudaSuccess;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(most_items)),
                          .block = dim3(Tile::kThreads),
                          .shared_bytes = sizeof(typename Tile::Shared),
                          .stream = stream,
                          .is_dependent = launch.is_dependent};
  return Launch(AttentionPrefillKernel<kKv, kHeadDim>, shape, launch);
}

template <DType kKv>
cudaError_t LaunchKv(const AttentionLaunch& launch, cudaStream_t stream) {
  switch (launch.kv.head_dim) {
    case 32:
      return LaunchTile<kKv, 32>(launch, stream);
    case 64:
      return LaunchTile<kKv, 64>(launch, stream);
    case 80:
      return LaunchTile<kKv, 80>(launch, stream);
    case 96:
      return LaunchTile<kKv, 96>(launch, stream);
    case 128:
      return LaunchTile<kKv, 128>(launch, stream);
    case 256:
      return LaunchTile<kKv, 256>(launch, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t LaunchAttentionPrefill(const AttentionLaunch& launch, cudaStream_t stream) {
  return WithKvType(launch.kv.dtype, [&]<DType kKv>() { return LaunchKv<kKv>(launch, stream); });
}

}  // namespace millrace::cuda
