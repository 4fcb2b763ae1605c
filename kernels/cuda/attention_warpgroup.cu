// SPDX-License-Identifier: Apache-2.0
// Prefill attention on sm_90a: out = softmax(q k^T * scale) v of chunks of a prompt over pages, for KV of head
// dimension 64 and 128, in the manner of FlashAttention-3 (arXiv 2407.08608).
//
//   block     two warpgroups that multiply, 64 packed queries each, and one that fetches; a multiprocessor's one block
//             takes items (attention_prefill_item.h) in turn
//   step      128 keys: S = Q K^T (m64n128k16, both in shared memory), then O += P V (P in registers, V across k)
//   stages    2 of keys and of values (4 for D = 64), [64 elements of D][128 tokens], rows of 128 bytes swizzled
//   16 bits   a page comes as boxes of a tensor copy (attention_warpgroup_fetch.h). Pages of odd lengths, and of values
//             those that are not seen to the end (unseen values must be zeros: their weights are), come by 16 bytes at
//             a time
//   8 bits    are widened to halves on the way (attention_warpgroup_widen.h). int8 scales: a key's times its scores, a
//             value's times its weights
//   overlap   the scores of a step are multiplied before the values of the one before, whose weights a group has when
//             it takes its turn; then it lets the other group multiply and makes weights of its scores meanwhile
//
// Steps start at multiples of their length, and a step that a query does not see leaves its result bit for bit: a row
// comes out the same however its prompt was cut. float32 maximum, sums and output. Limited by tensor cores, close
// behind by the exponentials. Its twin, for all else and in tests, is the prefill kernel.
#include "kernels/cuda/attention_warpgroup_fetch.h"
#include "kernels/cuda/attention_warpgroup_tile.h"
#include "kernels/cuda/attention_warpgroup_widen.h"
#include "kernels/cuda/common/launch.h"

namespace millrace::cuda {
namespace {

// Named barriers: turns at the tensor cores (+ group), and the group's own (+ group).
constexpr int kTurn = 1;
constexpr int kOwn = 3;
constexpr float kLog2WeightGain = 6;

// A thread's part of its group's 64 queries: i = 0, 1 stands for the rows g, g + 8 of its warp's 16.
template <typename Tile>
struct Queries {
  int32_t last[2];                            // the last key each sees
  int32_t first_last, last_last;              // of the warp
  float largest[2] = {-INFINITY, -INFINITY};  // of the scores times scale * log2(e)
  float sum[2] = {0, 0};                      // of this thread's keys
  typename Tile::Output out = {};
};

// The group's queries, to shared memory.
template <typename Tile>
__device__ void LoadQueries(const AttentionLaunch& args, const PrefillItem& item, int group, unsigned char* to) {
  ptx::NamedBarrierWait(kOwn + group, kGroupThreads);  // the products of the item before have read theirs
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, piece = thread % Tile::kPieces;
#pragma unroll 4
  for (int row = thread / Tile::kPieces; row < kGroupRows; row += kGroupThreads / Tile::kPieces) {
    const int32_t query = item.first_query + group * kGroupRows + row;
    uint4 q = make_uint4(0, 0, 0, 0);
    if (query < item.num_queries) {
      const int64_t at = (item.sequence.first_row + query / item.group) * args.q.stride +
                         static_cast<int64_t>(item.first_head + query % item.group) * Tile::kDim + 8 * piece;
      q = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.q.data) + at);
    }
    using Numbers = typename Tile::Numbers;
    q = make_uint4(Numbers::Convert(q.x, args.q.dtype), Numbers::Convert(q.y, args.q.dtype),
                   Numbers::Convert(q.z, args.q.dtype), Numbers::Convert(q.w, args.q.dtype));
    *reinterpret_cast<uint4*>(to + PieceOffset(kGroupRows, row, piece)) = q;
  }
  ptx::FenceAsyncProxy();
  ptx::NamedBarrierWait(kOwn + group, kGroupThreads);  // all of them are there
}

// Unseen keys weigh nothing, whatever their slots hold.
template <typename Tile>
__device__ __forceinline__ void Mask(const Queries<Tile>& queries, int32_t first_key, int32_t window_tokens,
                                     typename Tile::Scores& s) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int32_t age = queries.last[r / 2] - (first_key + 8 * n + 2 * t + r % 2);
      if (age < 0 || (window_tokens > 0 && age >= window_tokens)) s[n][r] = -INFINITY;
    }
  }
}

// Scores become the weights of the values; what the output so far is to be multiplied by.
template <typename Tile>
__device__ __forceinline__ float2 ScoresToWeights(const AttentionLaunch& args, int32_t first_key,
                                                  typename Tile::Scores& s, Queries<Tile>& queries) {
  const bool is_masked = first_key + kKeys - 1 > queries.first_last ||
                         (args.window_tokens > 0 && first_key <= queries.last_last - args.window_tokens);
  if (is_masked) Mask<Tile>(queries, first_key, args.window_tokens, s);
  const float scale = args.scale * kLog2E;
  float shrink[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    largest = fmaxf(queries.largest[i], largest * scale);
    const float base = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet: no infinity minus infinity
    shrink[i] = ptx::Exp2(queries.largest[i] - base);
    // Weights that int8 scales make small keep their bits in half precision; the sum has the gain as well.
    const float shift = Tile::kHasScales ? base - kLog2WeightGain : base;
    queries.largest[i] = largest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      s[n][2 * i] = ptx::Exp2(fmaf(s[n][2 * i], scale, -shift));
      s[n][2 * i + 1] = ptx::Exp2(fmaf(s[n][2 * i + 1], scale, -shift));
      sum += s[n][2 * i] + s[n][2 * i + 1];
    }
    queries.sum[i] = queries.sum[i] * shrink[i] + sum;
  }
  return {shrink[0], shrink[1]};
}

template <typename Tile>
__device__ __forceinline__ void PackWeights(const typename Tile::Scores& s, typename Tile::Weights& p) {
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
      p[k][r] = Tile::Numbers::Pack(s[2 * k + r / 2][r % 2 * 2], s[2 * k + r / 2][r % 2 * 2 + 1]);
  }
}

// What a group multiplies.
template <typename Tile>
struct Operands {
  uint64_t q, k, v;     // of stage 0
  const float* scales;  // of the thread's keys in stage 0, where there are any

  __device__ static Operands At(const unsigned char* shared, int group) {
    return {ptx::MatrixDescriptor(shared + group * Tile::kQueryBytes, ptx::Swizzle::k128, 16, kEightRows),
            ptx::MatrixDescriptor(shared + Tile::kKeysAt, ptx::Swizzle::k128, 16, kEightRows),
            ptx::MatrixDescriptor(shared + Tile::kValuesAt, ptx::Swizzle::k128, kPanelBytes, kEightRows),
            reinterpret_cast<const float*>(shared + Tile::kScalesAt) + 2 * (threadIdx.x % 4)};
  }
  // Starts s = Q K^T.
  __device__ __forceinline__ void Score(int fill, typename Tile::Scores& s) const {
    const uint32_t slot = static_cast<uint32_t>(fill % Tile::kNumStages * Tile::kSlotBytes);
#pragma unroll
    for (int at = 0; at < Tile::kVectorBytes; at += 32) {
      const int panel = at / kPanelWidth, within = at % kPanelWidth;
      Tile::MultiplyKeys(s, ptx::Advance(q, panel * kGroupRows * kPanelWidth + within),
                         ptx::Advance(k, slot + panel * kPanelBytes + within), at > 0);
    }
    ptx::WgmmaCommit();
  }
  // Starts out += P V.
  __device__ __forceinline__ void Add(int fill, const typename Tile::Weights& p, typename Tile::Output& out) const {
    const uint32_t slot = static_cast<uint32_t>(fill % Tile::kNumStages * Tile::kSlotBytes);
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) Tile::MultiplyValues(out, p[i], ptx::Advance(v, slot + 2 * i * kEightRows));
    ptx::WgmmaCommit();
  }
};

// What belongs to a key, times its scale.
template <typename Tile>
__device__ __forceinline__ void Scale(const float* scales, int fill, typename Tile::Scores& s) {
  const float* from = scales + fill % Tile::kNumStages * kKeys;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
    const float2 pair = *reinterpret_cast<const float2*>(from + 8 * n);
    s[n][0] *= pair.x, s[n][1] *= pair.y;
    s[n][2] *= pair.x, s[n][3] *= pair.y;
  }
}
// The scores are there: nothing more is needed of the keys.
template <typename Tile>
__device__ __forceinline__ void ReleaseKeys(const Operands<Tile>& operands, Pipelines<Tile>& stages, int fill,
                                            typename Tile::Scores& s) {
  if constexpr (Tile::kHasScales) {
    Scale<Tile>(operands.scales, fill, s);
    __syncwarp();  // all lanes have read their scales
  }
  stages.keys.Release(fill);
}
template <typename Tile>
__device__ __forceinline__ void ScaleWeights(const Operands<Tile>& operands, Pipelines<Tile>& stages, int fill,
                                             typename Tile::Scores& s) {
  if constexpr (Tile::kHasScales) {
    stages.values.WaitFull(fill);
    Scale<Tile>(operands.scales + Tile::kNumScales, fill, s);
  }
}

// One item's steps, filled from `fill` on.
template <typename Tile>
__device__ __forceinline__ void Attend(const AttentionLaunch& args, const PrefillItem& item,
                                       const Operands<Tile>& operands, Pipelines<Tile>& stages, int fill,
                                       Queries<Tile>& queries) {
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const bool takes_turns = item.first_query + kGroupRows < item.num_queries;
  typename Tile::Scores s;
  typename Tile::Weights p;
  int32_t key = item.begin / kKeys * kKeys;
  stages.keys.WaitFull(fill);
  ptx::WgmmaFence();
  operands.Score(fill, s);
  ptx::WgmmaWait<0>();
  ReleaseKeys<Tile>(operands, stages, fill, s);
  ScoresToWeights<Tile>(args, key, s, queries);
  ScaleWeights<Tile>(operands, stages, fill, s);
  PackWeights<Tile>(s, p);
#pragma unroll 1
  for (key += kKeys; key < item.end; key += kKeys) {
    stages.keys.WaitFull(fill + 1);
    stages.values.WaitFull(fill);
    if (takes_turns) ptx::NamedBarrierWait(kTurn + group, kConsumerThreads);
    ptx::WgmmaFence();
    operands.Score(fill + 1, s);
    operands.Add(fill, p, queries.out);
    if (takes_turns) ptx::NamedBarrierArrive(kTurn + (group ^ 1), kConsumerThreads);
    ptx::WgmmaWait<1>();
    ReleaseKeys<Tile>(operands, stages, fill + 1, s);
    const float2 shrink = ScoresToWeights<Tile>(args, key, s, queries);
    ptx::ComputeBeforeWait(queries.sum[0] + queries.sum[1]);
    ptx::WgmmaWait<0>();
    stages.values.Release(fill);
#pragma unroll
    for (int n = 0; n < Tile::kDim / 8; ++n) {
      queries.out[n][0] *= shrink.x, queries.out[n][1] *= shrink.x;
      queries.out[n][2] *= shrink.y, queries.out[n][3] *= shrink.y;
    }
    ++fill;
    ScaleWeights<Tile>(operands, stages, fill, s);
    PackWeights<Tile>(s, p);
  }
  stages.values.WaitFull(fill);
  ptx::WgmmaFence();
  operands.Add(fill, p, queries.out);
  ptx::WgmmaWait<0>();
  stages.values.Release(fill);
}

template <typename Tile>
__device__ __forceinline__ void StoreOutput(const AttentionLaunch& args, const PrefillItem& item, int32_t warp_query,
                                            const Queries<Tile>& queries) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = queries.sum[i];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    const int32_t query = warp_query + lane / 4 + 8 * i;
    if (query >= item.num_queries) continue;
    const float share = 1.0f / sum;
    const int64_t at = (item.sequence.first_row + query / item.group) * args.out.stride +
                       static_cast<int64_t>(item.first_head + query % item.group) * Tile::kDim + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < Tile::kDim / 8; ++n) {
      StorePair(args.out.data, args.out.dtype, at + 8 * n, queries.out[n][2 * i] * share,
                queries.out[n][2 * i + 1] * share);
    }
  }
}

// A group whose tile has no queries for it lets the steps pass.
template <typename Tile>
__device__ void PassSteps(Pipelines<Tile>& stages, int fill, int num_steps) {
  for (int i = fill; i < fill + num_steps; ++i) {
    stages.keys.WaitFull(i);
    stages.values.WaitFull(i);
    __syncwarp();  // no lane still waits for a phase that lane 0 helps to end
    stages.keys.Release(i);
    stages.values.Release(i);
  }
}

template <typename Tile>
__device__ void Consume(const AttentionLaunch& args, unsigned char* shared, Pipelines<Tile>& stages) {
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const Operands<Tile> operands = Operands<Tile>::At(shared, group);
  if (group == 1) ptx::NamedBarrierArrive(kTurn, kConsumerThreads);  // group 0 begins
  int fill = 0;
  ForEachItem<Tile>(args, [&](const PrefillItem& item) {
    const int num_steps = NumSteps(item);
    if (item.first_query + group * kGroupRows < item.num_queries) {
      const int32_t warp_query = item.first_query + static_cast<int32_t>(threadIdx.x) / 32 * 16;
      const int32_t thread_query = warp_query + static_cast<int32_t>(threadIdx.x) % 32 / 4;
      Queries<Tile> queries = {.last = {LastSeen(item, thread_query), LastSeen(item, thread_query + 8)},
                               .first_last = LastSeen(item, warp_query),
                               .last_last = LastSeen(item, warp_query + 15)};
      LoadQueries<Tile>(args, item, group, shared + group * Tile::kQueryBytes);
      Attend<Tile>(args, item, operands, stages, fill, queries);
      StoreOutput<Tile>(args, item, warp_query, queries);
    } else {
      PassSteps<Tile>(stages, fill, num_steps);
    }
    fill += num_steps;
  });
}

template <DType kKv, int kHeadDim>
__global__ void __launch_bounds__(kNumThreads, 1)
    AttentionWarpgroupKernel(const AttentionLaunch args, typename AttentionTile<kKv, kHeadDim>::Pages pages,
                             const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values) {
  using Tile = AttentionTile<kKv, kHeadDim>;
  __shared__ Pipelines<Tile> stages;
  unsigned char* const shared = ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>());
  if (threadIdx.x == 0) {
    stages.keys.Init();
    stages.values.Init();
    ptx::MbarrierInitFence();
  }
  __syncthreads();  // the barriers are there for everyone
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (threadIdx.x < kConsumerThreads) {
    ptx::RaiseRegisters<Tile::kConsumerRegisters>();
    Consume<Tile>(args, shared, stages);
    return;
  }
  ptx::LowerRegisters<Tile::kProducerRegisters>();
  const int warp = (static_cast<int>(threadIdx.x) - kConsumerThreads) / 32;
  if constexpr (Tile::kIsByte) {
    const bool is_keys = warp < Tile::kFetchingWarps;
    float* scales = reinterpret_cast<float*>(shared + Tile::kScalesAt);
    FetchBytes<Tile>(args, pages,
                     {.memory = static_cast<const uint8_t*>(is_keys ? args.kv.keys : args.kv.values),
                      .scales = is_keys ? args.kv.key_scales : args.kv.value_scales,
                      .stages = is_keys ? &stages.keys : &stages.values,
                      .slots = shared + (is_keys ? Tile::kKeysAt : Tile::kValuesAt),
                      .slot_scales = is_keys ? scales : scales + Tile::kNumScales});
  } else if (warp == 0) {
    const Source source = {&keys, static_cast<const uint8_t*>(args.kv.keys), pages, false};
    Fetch<Tile>(args, source, stages.keys, shared + Tile::kKeysAt);
  } else if (warp == 1) {
    const Source source = {&values, static_cast<const uint8_t*>(args.kv.values), pages, true};
    Fetch<Tile>(args, source, stages.values, shared + Tile::kValuesAt);
  }
}

// Tokens of a page where it goes into a step as boxes of whole swizzled rows; else 0.
int32_t BoxTokensOf(int page_tokens) { return page_tokens % 8 == 0 && kKeys % page_tokens == 0 ? page_tokens : 0; }

template <DType kKv, int kHeadDim>
cudaError_t LaunchTile(const AttentionLaunch& launch, cudaStream_t stream) {
  using Tile = AttentionTile<kKv, kHeadDim>;
  const int64_t most_items = MostPrefillItems(launch, Tile::kRows);
  if (most_items == 0) return cudaSuccess;
  const KvLayer& kv = launch.kv;
  CUtensorMap keys = {}, values = {};
  typename Tile::Pages pages;
  if constexpr (Tile::kIsByte) {
    pages = PageDivisor::Of(kv.page_tokens);
  } else {
    pages = BoxTokensOf(kv.page_tokens);
    const int64_t num_vectors = kv.num_pages * kv.num_kv_heads * kv.page_tokens;
    const uint32_t box_rows = pages > 0 ? static_cast<uint32_t>(pages) : 1;
    cudaError_t error = MakeTensorMap({kv.keys, Tile::kVectorBytes, num_vectors, Tile::kVectorBytes, box_rows}, keys);
    if (error == cudaSuccess) {
      error = MakeTensorMap({kv.values, Tile::kVectorBytes, num_vectors, Tile::kVectorBytes, box_rows}, values);
    }
    if (error != cudaSuccess) return error;
  }
  const int64_t num_blocks = most_items < launch.num_multiprocessors ? most_items : launch.num_multiprocessors;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_blocks)),
                          .block = dim3(kNumThreads),
                          .shared_bytes = Tile::kSharedBytes,
                          .stream = stream,
                          .is_dependent = launch.is_dependent};
  return Launch(AttentionWarpgroupKernel<kKv, kHeadDim>, shape, launch, pages, keys, values);
}

template <DType kKv>
cudaError_t LaunchKv(const AttentionLaunch& launch, cudaStream_t stream) {
  return launch.kv.head_dim == 64 ? LaunchTile<kKv, 64>(launch, stream) : LaunchTile<kKv, 128>(launch, stream);
}

}  // namespace

bool HasWarpgroupAttention(const AttentionLaunch& launch) {
  const bool is_aligned = launch.q.stride % 8 == 0 && reinterpret_cast<uintptr_t>(launch.q.data) % 16 == 0;
  // A positive scale may be applied after the maximum was taken.
  return launch.has_warpgroups && is_aligned && launch.scale > 0 &&
         (launch.kv.head_dim == 64 || launch.kv.head_dim == 128);
}

cudaError_t LaunchAttentionWarpgroup(const AttentionLaunch& launch, cudaStream_t stream) {
  return WithKvType(launch.kv.dtype, [&]<DType kKv>() { return LaunchKv<kKv>(launch, stream); });
}

}  // namespace millrace::cuda
