// SPDX-License-Identifier: Apache-2.0
// Grouped int4 and int8 weights as dense rows: out[n, k] = (q - zero) * scale, computed in float32 and rounded once.
//
//   layout  one thread one lane's share (2 rows x 2 halves x 8 inputs) of a tile of 16 channels x 64 inputs; the tiles
//           as matmul_pack.h has them; every write is 16 bytes, four lanes write 64 bytes of a row
//   limit   memory; used for many rows, where reading the dense rows back costs less than unpacking once per pass
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_kernels.h"

namespace millrace::cuda {
namespace {

constexpr int kNumWarps = 8;
constexpr int kUnitInputs = 8;

// The eight integers of one row and half that a lane holds, the zero point not subtracted.
struct Int4Units {
  uint4 words = {};
  __device__ void Load(const WeightOnDevice& w, int64_t tile, int64_t step, int lane) {
    const int64_t num_steps = (w.k + kTileInputs - 1) / kTileInputs;
    words = ptx::LoadStream16(static_cast<const uint4*>(w.values) + (tile * num_steps + step) * 32 + lane);
  }
  __device__ int Value(int row, int half, int index) const {
    const uint32_t low = half == 0 ? words.x : words.z;
    const uint32_t high = half == 0 ? words.y : words.w;
    const int nibble = index % 4 / 2 * 2 + row + index % 2 * 4;
    return static_cast<int>((index < 4 ? low : high) >> (4 * nibble) & 15u);
  }
};

struct Int8Units {
  uint4 rows[2] = {};
  __device__ void Load(const WeightOnDevice& w, int64_t tile, int64_t step, int lane) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int64_t channel = tile * kTileChannels + lane / 4 + row * 8;
      if (channel >= w.n) continue;
      rows[row] = ptx::LoadStream16(static_cast<const char*>(w.values) + channel * w.stride + step * kTileInputs +
                                    lane % 4 * 16);
    }
  }
  __device__ int Value(int row, int half, int index) const {
    const uint32_t low = half == 0 ? rows[row].x : rows[row].z;
    const uint32_t high = half == 0 ? rows[row].y : rows[row].w;
    return static_cast<int>((index < 4 ? low : high) >> (8 * (index % 4)) & 255u) - 128;
  }
};

template <typename Math, typename Units>
__global__ void __launch_bounds__(32 * kNumWarps) ExpandWeight(const ExpandWeightLaunch launch) {
  const WeightOnDevice& w = launch.w;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t num_steps = (w.k + kTileInputs - 1) / kTileInputs;
  const int64_t step = static_cast<int64_t>(blockIdx.x) * kNumWarps + threadIdx.x / 32;
  const int64_t tile = launch.first_channel / kTileChannels + blockIdx.y;
  ptx::GridDependencyWait();  // the predecessor may still read `out`
  ptx::GridDependencyLaunch();
  if (step < num_steps) {
    Units units;
    units.Load(w, tile, step, lane);
    const int num_groups = static_cast<int>(w.k) / w.group_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t first = step * kTileInputs + half * (kTileInputs / 2);
      if (first >= w.k) continue;
      const int64_t index = (tile * num_groups + static_cast<int>(first) / w.group_size) * kTileChannels + lane / 4 * 2;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int64_t channel = static_cast<int64_t>(blockIdx.y) * kTileChannels + lane / 4 + row * 8;
        if (channel >= launch.num_channels) continue;
        int zero = w.format == WeightFormat::kInt4 ? 8 : 0;
        if (w.has_zeros) zero = static_cast<const uint8_t*>(w.zeros)[index + row];
        const float scale = LoadAsFloat(w.scales, DType::kF16, index + row) * w.scale_unit;
        float values[kUnitInputs];
#pragma unroll
        for (int i = 0; i < kUnitInputs; ++i) values[i] = static_cast<float>(units.Value(row, half, i) - zero) * scale;
        const uint4 packed = {Math::Pack(values[0], values[1]), Math::Pack(values[2], values[3]),
                              Math::Pack(values[4], values[5]), Math::Pack(values[6], values[7])};
        const int64_t to = channel * launch.out.stride + first + lane % 4 * kUnitInputs;
        *reinterpret_cast<uint4*>(static_cast<typename Math::Element*>(launch.out.data) + to) = packed;
      }
    }
  }
}

template <typename Math, typename Units>
cudaError_t LaunchExpand(const ExpandWeightLaunch& launch, cudaStream_t stream) {
  const int64_t num_steps = (launch.w.k + kTileInputs - 1) / kTileInputs;
  return Launch(ExpandWeight<Math, Units>,
                {.grid = dim3(static_cast<unsigned>((num_steps + kNumWarps - 1) / kNumWarps),
                              static_cast<unsigned>((launch.num_channels + kTileChannels - 1) / kTileChannels)),
                 .block = dim3(32 * kNumWarps),
                 .stream = stream,
                 .is_dependent = launch.is_dependent},
                launch);
}

}  // namespace

cudaError_t LaunchExpandWeight(const ExpandWeightLaunch& launch, cudaStream_t stream) {
  const bool is_bf16 = launch.out.dtype == DType::kBF16;
  if (launch.w.format == WeightFormat::kInt4) {
    return is_bf16 ? LaunchExpand<Bf16Math, Int4Units>(launch, stream)
                   : LaunchExpand<F16Math, Int4Units>(launch, stream);
  }
  return is_bf16 ? LaunchExpand<Bf16Math, Int8Units>(launch, stream) : LaunchExpand<F16Math, Int8Units>(launch, stream);
}

}  // namespace millrace::cuda
