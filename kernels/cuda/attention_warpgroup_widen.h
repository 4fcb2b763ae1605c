// SPDX-License-Identifier: Apache-2.0
#pragma once
// The fetching side of the warpgroup kernel of attention for 8-bit KV: two warps for keys, two for values, half of a
// step's tokens each. They read bytes from the pages and write halves, in which both types are exact, to the stages.
//
//   lane    16 bytes of a row of 64 (a panel), of every eighth token: eight lanes that store together write two
//           neighbouring rows' even or odd pieces, which lie in all 32 banks
//   batch   the rows whose pages the lanes look up together, one batch ahead
//   flight  4 loads a lane (8 for D = 64), 8 KiB of a block or 16: a register is loaded anew once it has been widened
//   unseen  tokens are replaced by the nearest one that is seen: their weights are zeros, whatever it holds
//   scales  of int8 lie beside the stage
//
// From the pages to registers and not by bulk copies: operands of a step's products and the halves' stores take 0.87 of
// shared memory's bandwidth at the tensor cores' full rate (D = 128: 1280 and 512 of 2048 clocks); bytes that pass
// through it too would take 512 more. Widening takes about 21 instructions per 16 bytes of fp8 and 31 of int8, look-ups
// included: 340 and 500 a step of the 2048 that a scheduler issues, next to the 1000 or so of two multiplying warps.
//
// Device code. Internal to attention_warpgroup*.
#include "kernels/cuda/attention_warpgroup_tile.h"

namespace millrace::cuda {

// Of keys or values.
template <typename Tile>
struct ByteSource {
  const uint8_t* memory;
  const float* scales;  // where Tile::kHasScales
  Stages<Tile>* stages;
  unsigned char* slots;
  float* slot_scales;
};

template <typename Tile>
class ByteFetcher {
 public:
  __device__ ByteFetcher(const AttentionLaunch& args, const PageDivisor& pages, const ByteSource<Tile>& source)
      : args_(args), pages_(pages), source_(source) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int row = lane / kPanelPieces, piece = lane % kPanelPieces;
    const int first_row = thread / 32 % Tile::kFetchingWarps * kWarpRows;
    own_row_ = first_row + piece * kLoadRows + row;
    source_.memory += 16 * piece;
    source_.slots += PieceOffset(kKeys, first_row + row, 2 * piece);
    source_.slot_scales += own_row_;
    next_piece_ = row % 2 == 0 ? 16 : -16;
  }

  __device__ void Fetch(const PrefillItem& item) {
    int32_t token = item.begin / kKeys * kKeys + own_row_;  // of the batch to be stored
    Vectors now, next;
    Flight flight;
    LookUp(item, token, now);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) Load(now, i, flight);
    LoadScales(now, flight);
    LookUp(item, token + TokensOn(1), next);
#pragma unroll 1
    for (; token - own_row_ < item.end; token += kKeys, ++fill_) {
      source_.stages->WaitEmpty(fill_);
#pragma unroll 1  // batches side by side would take more registers than there are
      for (int row = 0; row < kWarpRows; row += kBatchRows) {
        Pass(now, next, row, flight);
#pragma unroll
        for (int i = 0; i < kLookUps; ++i) now[i] = next[i];
        LookUp(item, token + row + TokensOn(2), next);
      }
      ptx::FenceAsyncProxy();
      ptx::MbarrierArrive(&source_.stages->full[fill_ % Tile::kNumStages]);
    }
  }

 private:
  static constexpr int kPanelStored = kPanelWidth / 2;  // bytes
  static constexpr int kPanelPieces = kPanelStored / 16;
  static constexpr int kLoadRows = 32 / kPanelPieces;     // that the lanes load together
  static constexpr int kRowGroups = 8 / Tile::kPanels;    // of a batch
  static constexpr int kAhead = Tile::kDim > 64 ? 2 : 8;  // row groups that are loaded before they are stored
  static constexpr int kBatchRows = kRowGroups * kLoadRows;
  static constexpr int kWarpRows = kKeys / Tile::kFetchingWarps;
  static constexpr int kBatches = kWarpRows / kBatchRows;  // of a step
  static constexpr int kLookUps = kBatchRows / 32;
  static_assert(2 % kBatches == 0, "the batch after the next lies whole steps on");
  static_assert(kLoadRows == 8, "a lane's rows lie alike in the swizzle");

  using Vectors = int32_t[kLookUps];  // of a batch's rows own_row_, own_row_ + 32
  struct Flight {
    uint4 bytes[kAhead][Tile::kPanels];
    float scales[kLookUps];
  };

  // Tokens to the batch that comes `batches` after the first of a step.
  __device__ static constexpr int TokensOn(int batches) {
    return batches / kBatches * kKeys + batches % kBatches * kBatchRows;
  }
  __device__ __forceinline__ void LookUp(const PrefillItem& item, int32_t first, Vectors& vectors) const {
#pragma unroll
    for (int i = 0; i < kLookUps; ++i) {
      const int32_t token = min(max(first + 32 * i, item.begin), item.end - 1);
      const int32_t page = pages_.Divide(token);
      vectors[i] = (args_.pages[item.sequence.first_page + page] * args_.kv.num_kv_heads + item.kv_head - page) *
                       args_.kv.page_tokens +
                   token;
    }
  }

  // Of a batch's rows from 8 * group on.
  __device__ __forceinline__ void Load(const Vectors& vectors, int group, Flight& flight) const {
    // Lane 4r + j of a group of four has looked up row 8j + r.
    const int32_t vector = __shfl_sync(kAllLanes, vectors[group / 4], group % 4, kPanelPieces);
    const uint8_t* from = source_.memory + int64_t{vector} * Tile::kStoredBytes;
#pragma unroll
    for (int panel = 0; panel < Tile::kPanels; ++panel) {
      flight.bytes[group % kAhead][panel] = *reinterpret_cast<const uint4*>(from + panel * kPanelStored);
    }
  }
  __device__ __forceinline__ void LoadScales(const Vectors& vectors, Flight& flight) const {
    if constexpr (Tile::kHasScales) {
#pragma unroll
      for (int i = 0; i < kLookUps; ++i) flight.scales[i] = source_.scales[vectors[i]];
    }
  }

  // Stores a batch at the stage's rows from `row` on, loading as far ahead; what is in flight then is of the next.
  __device__ __forceinline__ void Pass(const Vectors& now, const Vectors& next, int row, Flight& flight) const {
    const int stage = fill_ % Tile::kNumStages;
    if constexpr (Tile::kHasScales) {
#pragma unroll
      for (int i = 0; i < kLookUps; ++i) {
        source_.slot_scales[stage * kKeys + row + 32 * i] = flight.scales[i];
      }
    }
    LoadScales(next, flight);
    unsigned char* const first = source_.slots + stage * Tile::kSlotBytes + row * kPanelWidth;
    unsigned char* const second = first + next_piece_;
#pragma unroll
    for (int group = 0; group < kRowGroups; ++group) {
#pragma unroll
      for (int panel = 0; panel < Tile::kPanels; ++panel) {
        const uint4& bytes = flight.bytes[group % kAhead][panel];
        const int at = panel * kPanelBytes + group * kEightRows;
        *reinterpret_cast<uint4*>(first + at) = Widen(bytes.x, bytes.y);
        *reinterpret_cast<uint4*>(second + at) = Widen(bytes.z, bytes.w);
      }
      const int ahead = group + kAhead;
      if (ahead < kRowGroups) {
        Load(now, ahead, flight);
      } else {
        Load(next, ahead - kRowGroups, flight);
      }
    }
  }
  template <int kFirst>
  __device__ static __forceinline__ uint32_t WidenPair(uint32_t bytes) {
    if constexpr (Tile::kHasScales) {
      return Tile::Numbers::template Widen<kFirst, kFirst + 1>(bytes);
    } else {
      return ptx::E4m3x2ToHalf2(static_cast<uint16_t>(bytes >> (8 * kFirst)));  // no byte is to change its place
    }
  }
  __device__ static __forceinline__ uint4 Widen(uint32_t first, uint32_t second) {
    return make_uint4(WidenPair<0>(first), WidenPair<2>(first), WidenPair<0>(second), WidenPair<2>(second));
  }

  const AttentionLaunch& args_;
  const PageDivisor& pages_;
  ByteSource<Tile> source_;  // from the lane's piece on
  int own_row_;              // of a step, whose vector the lane looks up
  int next_piece_;           // bytes to where the second half of 16 bytes goes
  int fill_ = 0;
};

template <typename Tile>
__device__ void FetchBytes(const AttentionLaunch& args, const PageDivisor& pages, const ByteSource<Tile>& source) {
  ByteFetcher<Tile> fetcher(args, pages, source);
  ForEachItem<Tile>(args, [&](const PrefillItem& item) { fetcher.Fetch(item); });
}

}  // namespace millrace::cuda
