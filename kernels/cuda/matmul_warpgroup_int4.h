// SPDX-License-Identifier: Apache-2.0
#pragma once
// The matmul with int4 weights for many rows on sm_90a (matmul_warpgroup.h): out[m, n] = sum over k of x[m, k] *
// w[n, k], w = (q - zero) * scale rounded once to bfloat16, as the expanding kernel rounds it; float32 sums.
//
//   layout    as matmul_pack.h has it; of a stage of 64 k, 16 tiles of 512 bytes and a group or two
//   weights   a warp unpacks half a tile of 16 channels at a time into the A operands of two products m64nRk16. A
//             lane's bytes are its share for mma.sync, eight neighbours along k, where a product from registers wants
//             pairs of all eights, as x lies in shared memory: four lanes exchange nibbles (QuadExchange)
//   products  two run while the operands of the next two are unpacked
//   limit     tensor cores; below about 64 rows memory, and unpacking with it
//
// Its twins are the skinny kernel and, for the weights' rounding, the expanding one. Internal to
// matmul_warpgroup_int4*.cu, which instantiate it for wide and for narrow blocks.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_warpgroup.h"
#include "kernels/cuda/matmul_warpgroup_unpack.h"

namespace millrace::cuda {

template <int kBlockChannels>
struct Int4Format {
  static constexpr int kChannels = kBlockChannels;
  using Math = Bf16Math;
  using Sum = float;
  static constexpr int kXBytes = 2;
  static constexpr int kTiles = kChannels / kTileChannels;  // of a stage
  static constexpr int kTileBytes = kTileChannels * kTileInputs / 2;
  static constexpr int kBoxBytes = 256;  // of a row of tiles
  static constexpr int kBoxesAt = kTiles * kBoxBytes;
  static constexpr int kScalesAt = kTiles * kTileBytes;
  static constexpr int kMaxGroups = 2;  // of a stage
  static constexpr int kScaleBytes = 2 * kTileChannels;
  static constexpr int kZerosAt = kScalesAt + kTiles * kMaxGroups * kScaleBytes;
  static constexpr int kWeightBytes = (kZerosAt + kTiles * kMaxGroups * kTileChannels + 1023) / 1024 * 1024;
  static constexpr int kProductBytes = 32;  // of x along k
  static constexpr int kHalfProducts = kWarpgroupStageBytes / kProductBytes / 2;
  static constexpr int kGroupProducts = GroupProducts(kChannels);
  static_assert(kTileInputs * kXBytes == kWarpgroupStageBytes);
  struct Maps {
    CUtensorMap tiles;
    CUtensorMap scales;
    CUtensorMap zeros;
  };

  static __host__ __device__ int StageGroups(const WeightOnDevice& w) { return w.group_size < kTileInputs ? 2 : 1; }

  // Rows of 16 channels.
  static cudaError_t MakeMaps(const MatmulTask& task, Maps& maps) {
    const WeightOnDevice& w = task.w;
    const int64_t num_rows = (w.n + kTileChannels - 1) / kTileChannels;
    const int64_t tiles_bytes = (w.k + kTileInputs - 1) / kTileInputs * kTileBytes;
    const int64_t zeros_bytes = w.k / w.group_size * kTileChannels;
    const auto box_zeros = static_cast<uint32_t>(StageGroups(w) * kTileChannels);
    cudaError_t error = MakeTensorMap({w.values, tiles_bytes, num_rows, tiles_bytes, kTiles, kBoxBytes}, maps.tiles);
    if (error == cudaSuccess) {
      error = MakeTensorMap({w.scales, 2 * zeros_bytes, num_rows, 2 * zeros_bytes, kTiles, 2 * box_zeros}, maps.scales);
    }
    if (error == cudaSuccess && w.has_zeros) {
      error = MakeTensorMap({w.zeros, zeros_bytes, num_rows, zeros_bytes, kTiles, box_zeros}, maps.zeros);
    }
    return error;
  }
  __device__ static uint32_t FetchedBytes(const MatmulTask& task) {
    const int group_bytes = kScaleBytes + (task.w.has_zeros ? kTileChannels : 0);
    return static_cast<uint32_t>(kTiles * (kTileBytes + StageGroups(task.w) * group_bytes));
  }
  __device__ static void Fetch(const MatmulTask& task, const Maps& maps, const WeightsAt& from, unsigned char* weights,
                               ptx::Mbarrier* full) {
    const int row = from.first_channel / kTileChannels;
    const int group = from.stage * kTileInputs / task.w.group_size;
#pragma unroll
    for (int box = 0; box < kTileBytes / kBoxBytes; ++box) {
      ptx::TensorCopy(weights + box * kBoxesAt, &maps.tiles, from.stage * kTileBytes + box * kBoxBytes, row, full);
    }
    ptx::TensorCopy(weights + kScalesAt, &maps.scales, group * kScaleBytes, row, full);
    if (task.w.has_zeros) ptx::TensorCopy(weights + kZerosAt, &maps.zeros, group * kTileChannels, row, full);
  }

  // A group's scales and zeros of channels g and g + 8 of a tile.
  struct Group {
    PairScale scales[2];
    uint32_t zeros[2];
    __device__ void Load(const MatmulTask& task, const unsigned char* weights, int at) {
      const auto pair = *reinterpret_cast<const uint32_t*>(weights + kScalesAt + 2 * at);
      const float2 both = __half22float2(ToPair<__half2>(pair));
      scales[0].Set(both.x * task.w.scale_unit);
      scales[1].Set(both.y * task.w.scale_unit);
      const uint32_t zero_pair =
          task.w.has_zeros ? *reinterpret_cast<const uint16_t*>(weights + kZerosAt + at) : uint32_t{0x0808};
      zeros[0] = ptx::Prmt(zero_pair, Math::kBase, 0x5050);
      zeros[1] = ptx::Prmt(zero_pair, Math::kBase, 0x5151);
    }
    __device__ void Unpack(uint32_t word, uint32_t (&a)[4]) const {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const uint32_t q = ptx::Lop3<kAndOr>(word >> (4 * p), 0x000f000fu, Math::kBase);
        a[p] = scales[p % 2].Apply(Math::Subtract(q, zeros[p % 2]));
      }
    }
  };

  // Offsets of the thread's bytes in a stage, kept in registers: the compiler would rather compute them anew for every
  // stage. Of the warp's tile i: i * 4 tiles further on.
  struct Lane {
    QuadExchange exchange;
    int words_at, group_at;
    Group groups[kGroupProducts];  // of a stage, for those that follow in the same groups
    __device__ explicit Lane(const MatmulTask& task) {
      constexpr int kBoxLanes = kBoxBytes / 16;
      const int at = static_cast<int>(threadIdx.x) % 32;
      const int warp = static_cast<int>(threadIdx.x) / 32;
      const int tile = warp / 4 * kGroupProducts * 4 + warp % 4;
      words_at = ptx::Pin(at / kBoxLanes * kBoxesAt + tile * kBoxBytes + at % kBoxLanes * 16);
      group_at = ptx::Pin(tile * StageGroups(task.w) * kTileChannels + at / 4 * 2);
    }
  };

  // Half of the warp's tile i for two products.
  __device__ static void UnpackHalf(const Lane& lane, const unsigned char* weights, int i, int half,
                                    uint32_t (&a)[kHalfProducts][4]) {
    const uint2 words = *reinterpret_cast<const uint2*>(weights + lane.words_at + i * 4 * kBoxBytes + half * 8);
    const uint2 spread = lane.exchange.SpreadAlongK(words.x, words.y);
    lane.groups[i].Unpack(spread.x, a[0]);
    lane.groups[i].Unpack(spread.y, a[1]);
  }

  template <int kRowTiles, typename Release>
  __device__ static void Multiply(const MatmulTask& task, Lane& lane, const Stage& stage, uint64_t x,
                                  const unsigned char* weights, float (&sums)[kGroupProducts][kRowTiles][4],
                                  const Release& release) {
    // Beside more sums there are no registers for the groups of the stage before.
    constexpr bool kKeepsGroups = kGroupProducts * kRowTiles <= 32;
    const int num_groups = StageGroups(task.w);
    const bool begins_groups =
        !kKeepsGroups || stage.is_first || (stage.number * kTileInputs & (task.w.group_size - 1)) == 0;
#pragma unroll
    for (int i = 0; i < kGroupProducts; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half == 0 ? begins_groups : num_groups == 2) {
          lane.groups[i].Load(task, weights, lane.group_at + (4 * i * num_groups + half) * kTileChannels);
        }
        uint32_t a[kHalfProducts][4];
        UnpackHalf(lane, weights, i, half, a);
        ptx::PinRegisters(a);
        ptx::WgmmaFence();
#pragma unroll
        for (int j = 0; j < kHalfProducts; ++j) {
          ptx::WgmmaBf16<ptx::MatrixOrder::kAlongK>(sums[i], a[j],
                                                    ptx::Advance(x, (half * kHalfProducts + j) * kProductBytes), true);
        }
        ptx::WgmmaCommit();
        ptx::WgmmaWait<1>();  // the registers of the products before are free
        if (i == 0 && half == 0) release();
      }
    }
  }
};

}  // namespace millrace::cuda
