// SPDX-License-Identifier: Apache-2.0
// The matmul for one to eight rows (int8 with a scale per channel: four): weights go from memory straight into
// registers, many loads ahead, and no thread waits for another until the end.
//
//   block  8 warps, 16 output channels, all of K: warp w takes stages w, w + 8, .. of 128 bytes along k of a row of x
//   lane   the weights of channels g and g + 8 that matmul_format_*.h gives lane 4g + t, and the x for them, a half of
//          a stage ahead, from L1: blocks of a multiprocessor read the same rows
//   int8   dp4a, every lane for all rows; the four lanes of a channel add up at the end
//   else   a tensor-core product, whose 8 columns are rows: sums in float32 take one instruction where multiply-adds
//          would first have to widen every 16-bit weight
//   out    the warps' sums meet in shared memory, added in their order
//
// The weights do not depend on the previous kernel: they are fetched before the grid dependency is waited for.
// sm_80 and up; the limit is memory bandwidth. Its twin is the skinny kernel: of int8 the sums are the same integers.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/matmul_device.h"
#include "kernels/cuda/matmul_format_int4.h"
#include "kernels/cuda/matmul_format_int8.h"
#include "kernels/cuda/matmul_format_rows.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_skinny_stage.h"

namespace millrace::cuda {
namespace {

constexpr int kWarps = 8;
// Stages on their way to a lane: 6 or 8 loads of 16 bytes, which leaves registers for three blocks.
template <typename Format>
constexpr int kStagesAhead = Format::kLaneUnits == 1 ? 6 : 8 / Format::kLaneUnits;

// Where this thread reads a row of x, if there are fewer the last one: nobody stores its sums.
__device__ const char* RowOfX(const MatmulTask& task, int row, int warp) {
  const int first_byte = warp * kStageBytes + static_cast<int>(threadIdx.x) % 4 * 16;
  const int64_t row_byte = min(row, task.num_rows - 1) * task.x_stride_bytes;
  return ptx::Pin(static_cast<const char*>(task.x) + row_byte + first_byte);
}

// A lane's weights of half a stage.
struct GemvHalf {
  const uint4* units;  // of the whole stage
  int half;
  uint32_t zeros = 0;
};

// Products on tensor cores. Sums of a lane: [channels g and g + 8][2 rows].
template <typename Format>
struct TensorProducts {
  static constexpr int kRows = 8;
  static constexpr int kLaneRows = 2;
  static constexpr int kBlocks = 3;  // of a multiprocessor
  using Sum = float;
  using X = uint4;
  const char* row;

  __device__ TensorProducts(const MatmulTask& task, int warp)
      : row(RowOfX(task, static_cast<int>(threadIdx.x) % 32 / 4, warp)) {}
  __device__ X Load(int byte) const { return ptx::LoadGlobal16(row + byte); }
  __device__ void Advance(int num_bytes) { row += num_bytes; }
  __device__ static int RowOf(int i) { return static_cast<int>(threadIdx.x) % 4 * 2 + i; }

  __device__ static void Add(const GemvHalf& w, const X& x, float (&sums)[4]) {
    uint32_t a[2][4];
    Format::template Operands<1>(w.units, w.half, w.zeros, a);
    const uint32_t b[2][2] = {{x.x, x.y}, {x.z, x.w}};
    Format::Math::Mma(sums, a[0], b[0]);
    Format::Math::Mma(sums, a[1], b[1]);
  }
  __device__ static void AddLanes(float (&)[4]) {}
};

__device__ int Dot(const uint4& a, const uint4& b, int sum) {
  sum = __dp4a(static_cast<int>(a.x), static_cast<int>(b.x), sum);
  sum = __dp4a(static_cast<int>(a.y), static_cast<int>(b.y), sum);
  sum = __dp4a(static_cast<int>(a.z), static_cast<int>(b.z), sum);
  return __dp4a(static_cast<int>(a.w), static_cast<int>(b.w), sum);
}

// Products of int8. Sums of a lane, over its bytes along k: [channels g and g + 8][rows].
template <int kNumRows>
struct DotProducts {
  static constexpr int kRows = kNumRows;
  static constexpr int kLaneRows = kNumRows;
  static constexpr int kBlocks = kNumRows < 4 ? 3 : 2;  // of a multiprocessor
  using Sum = int;
  struct X {
    uint4 rows[kNumRows];
  };
  const char* rows[kNumRows];

  __device__ DotProducts(const MatmulTask& task, int warp) {
#pragma unroll
    for (int i = 0; i < kNumRows; ++i) rows[i] = RowOfX(task, i, warp);
  }
  __device__ X Load(int byte) const {
    X x;
#pragma unroll
    for (int i = 0; i < kNumRows; ++i) x.rows[i] = ptx::LoadGlobal16(rows[i] + byte);
    return x;
  }
  __device__ void Advance(int num_bytes) {
#pragma unroll
    for (int i = 0; i < kNumRows; ++i) rows[i] += num_bytes;
  }
  __device__ static int RowOf(int i) { return static_cast<int>(threadIdx.x) % 4 == 0 ? i : kNumRows; }

  __device__ static void Add(const GemvHalf& w, const X& x, int (&sums)[2 * kNumRows]) {
#pragma unroll
    for (int i = 0; i < 2 * kNumRows; ++i) {
      sums[i] = Dot(w.units[w.half * 2 + i / kNumRows], x.rows[i % kNumRows], sums[i]);
    }
  }
  __device__ static void AddLanes(int (&sums)[2 * kNumRows]) {
#pragma unroll
    for (int i = 0; i < 2 * kNumRows; ++i) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 1);
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 2);
    }
  }
};

// A stage's weights of a lane, and the scales and zero points that go with them: of each half, or of both.
template <typename Format, int kGroups>
struct GemvStage {
  uint4 units[Format::kLaneUnits];
  uint32_t scales[kGroups];  // of channels g and g + 8
  uint16_t zeros[kGroups];   // as they come: whoever widened them here would wait for them
};

// Where a lane finds its warp's stages. kGroups: as above, 0 where weights have none.
template <typename Format, int kGroups>
struct GemvSource {
  using Stage = GemvStage<Format, kGroups == 0 ? 1 : kGroups>;
  typename Format::Source weights;
  uint64_t policy;
  const char* scales;
  const char* zeros;
  bool has_zeros;
  int group_step;  // from a stage to the warp's next

  __device__ GemvSource(const WeightOnDevice& w, int tile, int warp)
      : weights(Format::Source::Of(w, tile)), policy(ptx::StreamPolicy()) {
    weights.Advance(warp * Format::Source::kStageStep);
    if constexpr (kGroups == 0) return;
    const HalfGroups groups(w);
    const int64_t group = static_cast<int64_t>(tile) * groups.num_groups + (warp * 2 >> groups.shift);
    const int64_t first = group * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
    scales = ptx::Pin(static_cast<const char*>(w.scales) + first * 4);
    zeros = ptx::Pin(static_cast<const char*>(w.zeros) + first * 2);
    has_zeros = w.has_zeros;
    group_step = kGroups == 2 ? 2 * kWarps : 2 * kWarps >> groups.shift;
  }
  // The warp's stage number `index`, counted from where it has advanced to.
  __device__ void Load(int index, Stage& stage) const {
#pragma unroll
    for (int i = 0; i < Format::kLaneUnits; ++i) {
      stage.units[i] = ptx::LoadStream16(weights.Unit(i) + index * kWarps * Format::Source::kStageStep, policy);
    }
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const int at = (index * group_step + i) * 8;
      stage.scales[i] = __ldg(reinterpret_cast<const uint32_t*>(scales) + at);
      stage.zeros[i] = 0x0808;
      if (has_zeros) stage.zeros[i] = __ldg(reinterpret_cast<const uint16_t*>(zeros) + at);
    }
  }
  __device__ void Advance(int num_stages) {
    weights.Advance(num_stages * kWarps * Format::Source::kStageStep);
    if constexpr (kGroups == 0) return;
    scales += num_stages * group_step * 8 * 4;
    zeros += num_stages * group_step * 8 * 2;
  }
};

// A lane's sums.
template <typename Products, int kGroups>
struct GemvSums {
  using Sum = typename Products::Sum;
  Sum all[2 * Products::kLaneRows] = {};
  Sum of_group[2 * Products::kLaneRows] = {};  // that has not been scaled

  template <typename Stage>
  __device__ void Add(const Stage& stage, int half, const typename Products::X& x) {
    if constexpr (kGroups == 0) {
      Products::Add({stage.units, half}, x, all);
    } else {
      const int group = half * (kGroups - 1);
      Products::Add({stage.units, half, stage.zeros[group]}, x, of_group);
      if (half == 1 || kGroups == 2) EndSkinnyGroup<1>(stage.scales[group], &of_group, &all);
    }
  }
};

// This warp's share of a tile's sums.
template <typename Format, typename Products, int kGroups>
__device__ void SumGemv(const MatmulTask& task, GemvSums<Products, kGroups>& sums) {
  using Source = GemvSource<Format, kGroups>;
  constexpr int kAhead = kStagesAhead<Format>;
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);  // known to be all lanes'
  const int num_stages = (task.num_stages - warp + kWarps - 1) / kWarps;             // of this warp
  Source source(task.w, static_cast<int>(blockIdx.x), warp);
  typename Source::Stage ring[kAhead];
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    if (s < num_stages) source.Load(s, ring[s]);
  }
  Products products(task, warp);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  typename Products::X x = {};
  if (num_stages > 0) x = products.Load(0);
  for (int first = 0; first < num_stages; first += kAhead) {
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int index = first + s;
      if (index >= num_stages) break;
      typename Products::X now = x;
      x = products.Load(s * kWarps * kStageBytes + kHalfBytes);
      sums.Add(ring[s], 0, now);
      now = x;
      if (index + 1 < num_stages) x = products.Load((s + 1) * kWarps * kStageBytes);
      sums.Add(ring[s], 1, now);
      if (index + kAhead < num_stages) source.Load(s + kAhead, ring[s]);
    }
    source.Advance(kAhead);
    products.Advance(kAhead * kWarps * kStageBytes);
  }
}

template <typename Format, typename Products, int kGroups>
__global__ void __launch_bounds__(32 * kWarps, Products::kBlocks) GemvMatmul(const MatmulTask task) {
  using Sum = typename Products::Sum;
  __shared__ Sum partials[kWarps][Products::kRows][kTileChannels];
  GemvSums<Products, kGroups> sums;
  SumGemv<Format, Products, kGroups>(task, sums);
  Products::AddLanes(sums.all);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Products::kLaneRows; ++i) {
    const int row = Products::RowOf(i);
    if (row >= Products::kRows) continue;
    partials[warp][row][lane / 4] = sums.all[i];
    partials[warp][row][lane / 4 + 8] = sums.all[Products::kLaneRows + i];
  }
  __syncthreads();  // every warp's sums are there
  const int row = static_cast<int>(threadIdx.x) / kTileChannels;
  const int in_tile = static_cast<int>(threadIdx.x) % kTileChannels;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * kTileChannels + in_tile;
  if (row >= task.num_rows || channel >= task.w.n) return;
  Sum sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partials[w][row][in_tile];
  StoreOutput(task.epilogue, row, channel, static_cast<float>(sum) * task.w.scale_unit);
}

template <typename Format, typename Products, int kGroups = 0>
cudaError_t LaunchGemv(MatmulTask task, cudaStream_t stream) {
  if (task.num_rows > Products::kRows || task.w.k * Format::kXBytes % kStageBytes != 0) return cudaErrorInvalidValue;
  task.num_stages = static_cast<int>(task.w.k * Format::kXBytes / kStageBytes);
  return Launch(GemvMatmul<Format, Products, kGroups>,
                {.grid = dim3(static_cast<unsigned>((task.w.n + kTileChannels - 1) / kTileChannels)),
                 .block = dim3(32 * kWarps),
                 .stream = stream,
                 .is_dependent = task.is_dependent},
                task);
}

template <template <typename> typename Format, int kGroups = 0>
cudaError_t LaunchTensorGemv(const MatmulTask& task, cudaStream_t stream) {
  using Bf16 = Format<Bf16Math>;
  using F16 = Format<F16Math>;
  return task.x_dtype == DType::kBF16 ? LaunchGemv<Bf16, TensorProducts<Bf16>, kGroups>(task, stream)
                                      : LaunchGemv<F16, TensorProducts<F16>, kGroups>(task, stream);
}

}  // namespace

cudaError_t LaunchGemvMatmul(const MatmulTask& task, cudaStream_t stream) {
  switch (task.w.format) {
    case WeightFormat::kDense:
      return LaunchTensorGemv<RowFormat>(task, stream);
    case WeightFormat::kInt4:
      return task.w.group_size == 32 ? LaunchTensorGemv<Int4Format, 2>(task, stream)
                                     : LaunchTensorGemv<Int4Format, 1>(task, stream);
    case WeightFormat::kInt8:
      if (task.w.group_size == 32) return LaunchTensorGemv<GroupedInt8Format, 2>(task, stream);
      if (task.w.group_size != 0) return LaunchTensorGemv<GroupedInt8Format, 1>(task, stream);
      if (task.num_rows == 1) return LaunchGemv<RowFormat<S8Math>, DotProducts<1>>(task, stream);
      if (task.num_rows == 2) return LaunchGemv<RowFormat<S8Math>, DotProducts<2>>(task, stream);
      return LaunchGemv<RowFormat<S8Math>, DotProducts<4>>(task, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace millrace::cuda
