// SPDX-License-Identifier: Apache-2.0
#pragma once
// What LaunchMatmul's plan hands to a kernel, and the kernels' launchers. Internal to matmul*.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/matmul_limits.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/tensor.h"

namespace millrace::cuda {

// What happens to a sum before it is stored.
struct MatmulEpilogue {
  const float* row_scales = nullptr;      // [M]: int8 activations
  const float* channel_scales = nullptr;  // [N]: int8 weights
  const float* bias = nullptr;            // [N]
  const void* residual = nullptr;         // as out
  void* out = nullptr;                    // [M, N]
  int64_t out_stride = 0;                 // elements
  DType out_dtype = DType::kBF16;         // F32, BF16 or F16
  bool is_paired = false;                 // out and residual may be accessed two elements at a time, from even ones on
};

struct MatmulTask {
  const void* x = nullptr;  // [M, K] BF16 or F16; int8 where channel_scales are set
  DType x_dtype = DType::kBF16;
  int64_t x_stride_bytes = 0;
  WeightOnDevice w;
  int num_rows = 0;  // M
  MatmulEpilogue epilogue;

  // Of the plan (matmul_schedule.h).
  int rows_per_pass = 0;     // of one block
  int num_blocks = 0;        // the grid
  int num_split_blocks = 0;  // of them, those that share the tiles left after whole waves
  // Of the warpgroup kernel. A tile is a cluster's, and the numbers of blocks above are of clusters.
  int block_channels = 0;
  ClusterShape cluster;
  void* partials = nullptr;     // float32 or int32 [blocks of a cluster][num_split_blocks][2][sums of a block]
  int32_t* counters = nullptr;  // [blocks of a cluster][num_split_blocks] zeros, zeros again at the end
  bool is_dependent = false;

  // Of the kernel, set by its launcher: CutIntoTiles of matmul_schedule.h.
  int num_row_tiles = 0;
  int num_channel_tiles = 0;
  int num_tiles = 0;
  int num_stages = 0;  // of K, of a tile
};

// One thread an output, any shape: the twin the others are tested against, and the fallback.
cudaError_t LaunchPlainMatmul(const MatmulTask& task, cudaStream_t stream);

// Up to GemvRows rows, and weights as the skinny kernel's; REQUIRES as there, and K a multiple of kSkinnyStageBytes.
cudaError_t LaunchGemvMatmul(const MatmulTask& task, cudaStream_t stream);

// Passes of up to SkinnyRows(w) rows; any weight but dense of another type than x's. REQUIRES: 16-byte aligned rows of
// x, K a multiple of 16 bytes of x.
cudaError_t LaunchSkinnyMatmul(const MatmulTask& task, cudaStream_t stream);

// Tiles of up to kTileRows x 128 channels. Dense in x's type, and int8 with a scale per channel; REQUIRES as above.
cudaError_t LaunchTileMatmul(const MatmulTask& task, cudaStream_t stream);

// Tiles of a WideBlock or a NarrowBlock on sm_90: int8 with a scale per channel, and int4 where x is bfloat16. REQUIRES
// as above, and a HasWarpgroupCluster.
cudaError_t LaunchWarpgroupMatmul(const MatmulTask& task, cudaStream_t stream);
cudaError_t LaunchWarpgroupInt8Matmul(const MatmulTask& task, cudaStream_t stream);
cudaError_t LaunchWarpgroupInt8Narrow(const MatmulTask& task, cudaStream_t stream);
cudaError_t LaunchWarpgroupInt4Matmul(const MatmulTask& task, cudaStream_t stream);
cudaError_t LaunchWarpgroupInt4Narrow(const MatmulTask& task, cudaStream_t stream);

// Grouped weights as dense rows of `dtype`: out [num_channels, K] of stride round_up(K, 8), from first_channel (a
// multiple of 16) on.
struct ExpandWeightLaunch {
  WeightOnDevice w;
  int64_t first_channel = 0;
  int64_t num_channels = 0;
  Matrix out;  // BF16 or F16, rows 16-byte aligned
  bool is_dependent = false;
};
cudaError_t LaunchExpandWeight(const ExpandWeightLaunch& launch, cudaStream_t stream);

}  // namespace millrace::cuda
