// SPDX-License-Identifier: Apache-2.0
// Decode attention: one row a sequence, over pages. sm_80 and later; bound by reading the KV memory once.
//   work      (sequence, chunk of tokens, up to 8 query heads of a KV head), taken by a fixed grid in turn
//   warp      16 tokens at a time, through a ring of stages of its own: no barrier inside a chunk
//   scores    S^T [16 tokens, 8 heads] = K [16, D] q^T, tokens on the m16 side: heads fill the n8 side, not 8 of 16
//   output    O^T [D, 8 heads] += V^T [D, 16 tokens] P^T, P^T by transposing S^T's registers
// Each warp keeps its own running maximum and sums (arXiv 1805.02867) in float32; warps of a chunk are merged in
// order, then the chunks of a sequence in order, by whichever block finishes last.
#include "kernels/cuda/attention_fragments.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/common/block_reduce.h"
#include "kernels/cuda/common/launch.h"

namespace millrace::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kTokens = 16;  // of a warp's tile
constexpr int kBlocksPerMultiprocessor = 4;

template <DType kKv, int kHeadDim>
struct DecodeTile : KvTile<kKv, kHeadDim> {
  using Base = KvTile<kKv, kHeadDim>;
  static constexpr int kNumWarps = kHeadDim > 128 ? 2 : 4;
  static constexpr int kThreads = 32 * kNumWarps;
  static constexpr int kNumStages = Base::kVectorBytes > 128 ? 2 : 4;
  static constexpr int kOutStride = kHeadDim + 4;  // keeps the eight heads of a store in different banks

  struct Stage {
    uint8_t keys[kTokens * Base::kRowBytes];
    uint8_t values[kTokens * Base::kRowBytes];
    float key_scales[kTokens];
    float value_scales[kTokens];
  };
  // What the warps leave for the merge, where their stages were.
  struct Merge {
    float largest[kNumWarps][kDecodeHeads];
    float sum[kNumWarps][kDecodeHeads];
    float out[kNumWarps][kDecodeHeads][kOutStride];
    float weights[kMaxChunks][kDecodeHeads];
    float total[kDecodeHeads];
    int is_last;
  };
  union Shared {
    Stage stages[kNumWarps][kNumStages];
    Merge merge;
  };
};

// One block's work: tokens [begin, end) of a sequence for heads [first_head, first_head + num_heads).
struct DecodeItem {
  const int32_t* pages;
  int64_t row;
  int32_t begin, end;
  int32_t slot;  // of the chunk's partial result
  int chunk, num_chunks;
  int kv_head, first_head, num_heads;
  uint32_t* arrivals;
};

__device__ DecodeItem FindItem(const AttentionLaunch& args, const AttentionPlanView& plan, int index, int head_tiles) {
  const int group = args.num_heads / args.kv.num_kv_heads;
  const int tiles_per_kv_head = head_tiles / args.kv.num_kv_heads;
  const int tile = index % head_tiles;
  DecodeItem item;
  item.slot = index / head_tiles;
  const int s = FindPart(plan.first_chunk, args.num_sequences, item.slot);
  const DeviceSequence sequence = args.sequences[s];
  const DecodeCut cut = CutForDecode(sequence, args.window_tokens);
  const int32_t place = item.slot - plan.first_chunk[s];
  const int32_t row = place / cut.row_chunks;
  const int32_t seen = sequence.context_tokens + row + 1;
  const DecodeChunks chunks = ChunksOf(cut.tokens, seen, args.window_tokens);
  item.chunk = place % cut.row_chunks;
  item.num_chunks = chunks.count;
  const int32_t chunk_begin = (chunks.first + item.chunk) * chunks.tokens;
  item.begin = max(chunk_begin, FirstSeenToken(seen, args.window_tokens));
  item.end = min(chunk_begin + chunks.tokens, seen);
  item.pages = args.pages + sequence.first_page;
  item.row = sequence.first_row + row;
  item.kv_head = tile / tiles_per_kv_head;
  const int first_in_group = tile % tiles_per_kv_head * kDecodeHeads;
  item.first_head = item.kv_head * group + first_in_group;
  item.num_heads = min(kDecodeHeads, group - first_in_group);
  item.arrivals = plan.arrivals + (static_cast<int64_t>(s) * kFewRows + row) * head_tiles + tile;
  return item;
}

// The vector this lane looks up for a tile: token first_token + lane % 16, or -1 where nothing is seen.
__device__ __forceinline__ int32_t LookUp(const AttentionLaunch& args, const DecodeItem& item, int32_t first_token) {
  const int32_t token = first_token + static_cast<int32_t>(threadIdx.x % kTokens);
  if (token < item.begin || token >= item.end) return -1;
  return FindVector(args.kv, item.pages, item.kv_head, token);
}

// Starts the copy of a tile's seen vectors; unseen ones become zeros, whatever their slots hold.
template <typename Tile>
__device__ __forceinline__ void IssueTile(const KvLayer& kv, int32_t vector, typename Tile::Stage& stage) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  constexpr int kCopies = kTokens * Tile::kPieces;
  const auto* keys = static_cast<const uint8_t*>(kv.keys);
  const auto* values = static_cast<const uint8_t*>(kv.values);
#pragma unroll
  for (int i = 0; i < (kCopies + 31) / 32; ++i) {
    const int copy = lane + 32 * i;
    const int row = copy / Tile::kPieces, piece = copy % Tile::kPieces;
    const int32_t from = __shfl_sync(kAllLanes, vector, row % kTokens);
    if (copy >= kCopies) continue;
    const int64_t at = from < 0 ? 0 : static_cast<int64_t>(from) * Tile::kVectorBytes + 16 * piece;
    ptx::CpAsync16(stage.keys + row * Tile::kRowBytes + 16 * piece, keys + at, from >= 0);
    ptx::CpAsync16(stage.values + row * Tile::kRowBytes + 16 * piece, values + at, from >= 0);
  }
  if constexpr (Tile::kHasScales) {
    const int64_t at = vector < 0 ? 0 : vector;
    const int token = lane % kTokens;
    if (lane < kTokens) {
      ptx::CpAsync4(&stage.key_scales[token], kv.key_scales + at, vector >= 0);
    } else {
      ptx::CpAsync4(&stage.value_scales[token], kv.value_scales + at, vector >= 0);
    }
  }
}

// A warp's running result; a lane holds heads 2t, 2t + 1 and the sums of its own tokens only.
template <typename Tile>
struct WarpState {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
  float out[Tile::kBlocks][4] = {};
};

// The largest over the warp's tokens, which lie in lanes that differ in g.
__device__ __forceinline__ float MaxOverTokens(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 4));
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 8));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 16));
}
__device__ __forceinline__ float SumOverTokens(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 4);
  value += __shfl_xor_sync(kAllLanes, value, 8);
  return value + __shfl_xor_sync(kAllLanes, value, 16);
}

// Scores of tokens first_token ... in `s`, in units of log2; becomes their weights for the values.
template <typename Tile>
__device__ __forceinline__ void ScoresToWeights(const typename Tile::Stage& stage, const DecodeItem& item,
                                                int32_t first_token, float (&s)[4], WarpState<Tile>& state) {
  const int token = static_cast<int>(threadIdx.x % 32) / 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t at = first_token + token + 8 * i;
    const bool is_seen = at >= item.begin && at < item.end;
    const float scale = Tile::kHasScales ? stage.key_scales[token + 8 * i] : 1.0f;
#pragma unroll
    for (int j = 0; j < 2; ++j) s[2 * i + j] = is_seen ? s[2 * i + j] * scale : -INFINITY;
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const float largest = fmaxf(state.largest[j], MaxOverTokens(fmaxf(s[j], s[2 + j])));
    const float base = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet: no infinity minus infinity
    const float shrink = ptx::Exp2(state.largest[j] - base);
    state.largest[j] = largest;
    s[j] = ptx::Exp2(s[j] - base);
    s[2 + j] = ptx::Exp2(s[2 + j] - base);
    state.sum[j] = state.sum[j] * shrink + (s[j] + s[2 + j]);
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      state.out[block][j] *= shrink;
      state.out[block][2 + j] *= shrink;
    }
  }
  if constexpr (Tile::kHasScales) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float gain = stage.value_scales[token + 8 * i] * Tile::kWeightGain;
      s[2 * i] *= gain;
      s[2 * i + 1] *= gain;
    }
  }
}

template <typename Tile>
__device__ __forceinline__ void AttendTile(const typename Tile::Stage& stage, const DecodeItem& item,
                                           int32_t first_token, float scale, const uint32_t (&q)[Tile::kBlocks][2],
                                           WarpState<Tile>& state) {
  float s[4] = {};
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    uint32_t keys[4];
    Tile::LoadKeys(keys, stage.keys, 0, block);
    Tile::Mma(s, keys, q[block]);
  }
#pragma unroll
  for (float& score : s) score *= scale;
  ScoresToWeights<Tile>(stage, item, first_token, s, state);
  // S^T lies in registers by (token, head); as a B operand its transpose is wanted.
  const uint32_t weights[2] = {ptx::MovMatrixTrans(Tile::Pack(s[0], s[1])),
                               ptx::MovMatrixTrans(Tile::Pack(s[2], s[3]))};
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    uint32_t values[4];
    Tile::LoadValues(values, stage.values, 0, block);
    Tile::Mma(state.out[block], values, weights);
  }
}

// The warp's tokens of the chunk: tiles warp, warp + kNumWarps, ... of 16.
template <typename Tile>
__device__ __forceinline__ void AttendChunk(const AttentionLaunch& args, const DecodeItem& item,
                                            typename Tile::Stage (&stages)[Tile::kNumStages], WarpState<Tile>& state) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  constexpr int kStep = kTokens * Tile::kNumWarps;
  int32_t token = item.begin / kTokens * kTokens + kTokens * warp;
#pragma unroll
  for (int stage = 0; stage < Tile::kNumStages; ++stage) {
    IssueTile<Tile>(args.kv, LookUp(args, item, token + stage * kStep), stages[stage]);
    ptx::CpAsyncCommit();
  }
  uint32_t q[Tile::kBlocks][2];
  const auto* row = static_cast<const uint16_t*>(args.q.data) + item.row * args.q.stride;
  const bool has_head = lane / 4 < item.num_heads;
#pragma unroll
  for (int block = 0; block < Tile::kBlocks; ++block) {
    const uint16_t* from = row + (item.first_head + lane / 4) * (16 * Tile::kBlocks) + 16 * block;
    q[block][0] = has_head ? Tile::QueryPair(from, args.q.dtype, 0) : 0u;
    q[block][1] = has_head ? Tile::QueryPair(from, args.q.dtype, 1) : 0u;
  }
  for (int stage = 0; token < item.end; token += kStep) {
    const int32_t next = LookUp(args, item, token + Tile::kNumStages * kStep);  // its latency hides behind the tile
    ptx::CpAsyncWait<Tile::kNumStages - 1>();
    __syncwarp();  // the other lanes' copies of this stage are visible
    AttendTile<Tile>(stages[stage], item, token, args.scale * kLog2E, q, state);
    __syncwarp();  // every lane has read the stage that is refilled now
    IssueTile<Tile>(args.kv, next, stages[stage]);
    ptx::CpAsyncCommit();
    stage = stage + 1 == Tile::kNumStages ? 0 : stage + 1;
  }
  ptx::CpAsyncWait<0>();
}

template <typename Tile>
__device__ __forceinline__ void LeaveState(const WarpState<Tile>& state, typename Tile::Merge& merge) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int head = 2 * (lane % 4) + j;
    const float sum = SumOverTokens(state.sum[j]);
    if (lane < 4) {
      merge.largest[warp][head] = state.largest[j];
      merge.sum[warp][head] = sum;
    }
#pragma unroll
    for (int block = 0; block < Tile::kBlocks; ++block) {
      merge.out[warp][head][16 * block + Tile::Row(lane, 0)] = state.out[block][j];
      merge.out[warp][head][16 * block + Tile::Row(lane, 1)] = state.out[block][2 + j];
    }
  }
}

// The warps' results as one, in the order of the warps: to `out` when the chunk is all there is, else to workspace.
template <typename Tile>
__device__ void MergeWarps(const AttentionLaunch& args, const DecodeItem& item, const typename Tile::Merge& merge) {
  constexpr int kHeadDim = 16 * Tile::kBlocks;
  float* partials = static_cast<float*>(args.workspace) +
                    (static_cast<int64_t>(item.slot) * args.num_heads + item.first_head) * PartialFloats(kHeadDim);
  for (int i = static_cast<int>(threadIdx.x); i < item.num_heads * kHeadDim / 2; i += Tile::kThreads) {
    const int head = i / (kHeadDim / 2), d = i % (kHeadDim / 2) * 2;
    float largest = merge.largest[0][head];
#pragma unroll
    for (int warp = 1; warp < Tile::kNumWarps; ++warp) largest = fmaxf(largest, merge.largest[warp][head]);
    float sum = 0, first = 0, second = 0;
#pragma unroll
    for (int warp = 0; warp < Tile::kNumWarps; ++warp) {
      const float weight = ptx::Exp2(merge.largest[warp][head] - largest);
      sum += weight * merge.sum[warp][head];
      first += weight * merge.out[warp][head][d];
      second += weight * merge.out[warp][head][d + 1];
    }
    if (item.num_chunks == 1) {
      const float share = 1.0f / (sum * Tile::kWeightGain);
      const int64_t at = item.row * args.out.stride + static_cast<int64_t>(item.first_head + head) * kHeadDim + d;
      StorePair(args.out.data, args.out.dtype, at, first * share, second * share);
      continue;
    }
    float* partial = partials + head * PartialFloats(kHeadDim);
    if (d == 0) partial[0] = largest, partial[1] = sum;
    partial[4 + d] = first, partial[5 + d] = second;
  }
}

// Whether this block is the last of the sequence's chunks to arrive; then it sees all their partial results.
template <typename Tile>
__device__ bool ArriveLast(const DecodeItem& item, typename Tile::Merge& merge) {
  __threadfence();  // this thread's partials before the arrival
  __syncthreads();  // everyone's
  if (threadIdx.x == 0) {
    merge.is_last = atomicAdd(item.arrivals, 1u) == static_cast<uint32_t>(item.num_chunks - 1);
    if (merge.is_last) *item.arrivals = 0;  // for the next layer
    __threadfence();                        // the others' partials after their arrivals
  }
  __syncthreads();  // is_last is written; the fence holds for the whole block
  return merge.is_last != 0;
}

// The chunks' partial results as one, in the order of the chunks.
template <typename Tile>
__device__ void MergeChunks(const AttentionLaunch& args, const DecodeItem& item, typename Tile::Merge& merge) {
  constexpr int kHeadDim = 16 * Tile::kBlocks;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t stride = args.num_heads * PartialFloats(kHeadDim);
  const float* first_partial =
      static_cast<const float*>(args.workspace) +
      (static_cast<int64_t>(item.slot - item.chunk) * args.num_heads + item.first_head) * PartialFloats(kHeadDim);
  for (int head = warp; head < item.num_heads; head += Tile::kNumWarps) {
    const float* partial = first_partial + head * PartialFloats(kHeadDim);
    float largest = -INFINITY;
    for (int chunk = lane; chunk < item.num_chunks; chunk += 32) largest = fmaxf(largest, partial[chunk * stride]);
    largest = WarpReduce(largest, Larger{});
    float sum = 0;
    for (int chunk = lane; chunk < item.num_chunks; chunk += 32) {
      const float weight = ptx::Exp2(partial[chunk * stride] - largest);
      merge.weights[chunk][head] = weight;
      sum += weight * partial[chunk * stride + 1];
    }
    sum = WarpReduce(sum, Add{});
    if (lane == 0) merge.total[head] = sum;
  }
  __syncthreads();  // weights and totals are written
  for (int i = static_cast<int>(threadIdx.x); i < item.num_heads * kHeadDim / 2; i += Tile::kThreads) {
    const int head = i / (kHeadDim / 2), d = i % (kHeadDim / 2) * 2;
    const float* partial = first_partial + head * PartialFloats(kHeadDim) + 4 + d;
    float first = 0, second = 0;
#pragma unroll 4
    for (int chunk = 0; chunk < item.num_chunks; ++chunk) {
      const float2 out = *reinterpret_cast<const float2*>(partial + chunk * stride);
      first += merge.weights[chunk][head] * out.x;
      second += merge.weights[chunk][head] * out.y;
    }
    const float share = 1.0f / (merge.total[head] * Tile::kWeightGain);
    const int64_t at = item.row * args.out.stride + static_cast<int64_t>(item.first_head + head) * kHeadDim + d;
    StorePair(args.out.data, args.out.dtype, at, first * share, second * share);
  }
}

template <DType kKv, int kHeadDim>
__global__ void __launch_bounds__(DecodeTile<kKv, kHeadDim>::kThreads, kBlocksPerMultiprocessor)
    AttentionDecodeKernel(AttentionLaunch args) {
  using Tile = DecodeTile<kKv, kHeadDim>;
  auto& shared = *ptx::SharedMemory<typename Tile::Shared>();
  const AttentionPlanView plan = ViewPlan(args.plan, args.num_sequences);
  const int head_tiles = DecodeHeadTiles(args.num_heads, args.kv.num_kv_heads);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int num_items = plan.first_chunk[args.num_sequences] * head_tiles;
  for (int index = static_cast<int>(blockIdx.x); index < num_items; index += static_cast<int>(gridDim.x)) {
    const DecodeItem item = FindItem(args, plan, index, head_tiles);
    if (item.chunk >= item.num_chunks) continue;  // a place that stays empty
    WarpState<Tile> state;
    AttendChunk<Tile>(args, item, shared.stages[threadIdx.x / 32], state);
    __syncthreads();  // every warp is through with its stages: the merge lies in the same memory
    LeaveState<Tile>(state, shared.merge);
    __syncthreads();  // the warps' results are written
    MergeWarps<Tile>(args, item, shared.merge);
    if (item.num_chunks > 1 && ArriveLast<Tile>(item, shared.merge)) MergeChunks<Tile>(args, item, shared.merge);
    __syncthreads();  // the merge is read; the next item's copies may land
  }
}

template <DType kKv, int kHeadDim>
cudaError_t LaunchTile(const AttentionLaunch& launch, cudaStream_t stream) {
  using Tile = DecodeTile<kKv, kHeadDim>;
  // More blocks than can ever have work are not started: lengths are unknown here, the most chunks are not.
  const int64_t most_items = static_cast<int64_t>(launch.num_sequences) * kMaxChunks *
                             DecodeHeadTiles(launch.num_heads, launch.kv.num_kv_heads);
  const int64_t resident = int64_t{launch.num_multiprocessors} * kBlocksPerMultiprocessor;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(most_items < resident ? most_items : resident)),
                          .block = dim3(Tile::kThreads),
                          .shared_bytes = sizeof(typename Tile::Shared),
                          .stream = stream,
                          .is_dependent = launch.is_dependent};
  return Launch(AttentionDecodeKernel<kKv, kHeadDim>, shape, launch);
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

cudaError_t LaunchAttentionDecode(const AttentionLaunch& launch, cudaStream_t stream) {
  return WithKvType(launch.kv.dtype, [&]<DType kKv>() { return LaunchKv<kKv>(launch, stream); });
}

}  // namespace millrace::cuda
