// SPDX-License-Identifier: Apache-2.0
#pragma once
// What one instruction set brings to the fast matrix multiplication: a table of kernels per format. Includes nothing
// with code in it, because the files that implement the tables are compiled with wider instructions, and an inline
// function compiled there could be the copy the linker keeps for everyone.
//
// Kernels add along k in rising order with one chain of sums per output, so that a result does not depend on the
// tile's height or the blocks of k. Stateless; any thread.
#include <cstdint>

#include "kernels/tensor.h"

namespace millrace::cpu {

constexpr int kMaxTileRows = 6;
// Kernels are unrolled by so many steps; every group is a multiple of it.
constexpr int kChunkSteps = 8;

// One tile: `rows` rows of activations times a range of units of one panel.
struct TileArgs {
  const uint8_t* weights = nullptr;  // first unit
  int64_t num_units = 0;
  int64_t steps_per_unit = 0;
  const uint8_t* activations = nullptr;  // [step][rows] items, at the first unit's first step
  const float* scales = nullptr;         // grouped: [unit][rows], at the first unit
  const int32_t* offsets = nullptr;      // int8, int4: [unit][rows] (one scale per channel: [rows]), see RowArgs
  void* sums = nullptr;                  // [rows][channels] float, or int32 when one scale per channel
  bool is_first = false;                 // the sums start here; else they go on
  // The part of the next block this tile fetches into the cache: so many lines at every kChunkSteps steps.
  const uint8_t* prefetch = nullptr;
  const uint8_t* prefetch_end = nullptr;
  int64_t prefetch_chunk_bytes = 0;
};
using TileKernel = void (*)(const TileArgs&);

// Converts the rows of one tile (the kernel knows how many): x [rows, k] to items [step][rows], scales [group][rows]
// and offsets [group][rows]. An offset is what the unsigned weights add too much: minus the zero times the sum of the
// group's quantised values; with zeros per group, that sum negated alone (as int16 in the low half).
struct RowArgs {
  const float* x = nullptr;
  int64_t stride = 0;
  int64_t k = 0;
  int64_t num_steps = 0;   // padded
  int64_t group_size = 0;  // of k; the whole row when one scale per channel
  int32_t zero = 0;        // int8: 128; int4: 8; 1 when zeros come per group
  uint8_t* items = nullptr;
  float* scales = nullptr;
  int32_t* offsets = nullptr;
};
using RowKernel = void (*)(const RowArgs&);

// Writes one tile: out = residual + bias + scale * sum.
struct OutputArgs {
  const void* sums = nullptr;             // [rows][channels]
  const float* row_scales = nullptr;      // one scale per channel: [rows]; else null
  const float* channel_scales = nullptr;  // with row_scales: of this panel
  float scale_unit = 1.0f;
  const float* bias = nullptr;      // of this panel, or null
  const float* residual = nullptr;  // null or like out
  float* out = nullptr;
  int64_t stride = 0;
  int rows = 0;
  int channels = 0;  // real ones
};
using OutputKernel = void (*)(const OutputArgs&);

struct PanelKernels {
  int max_tile_rows = 0;
  TileKernel tiles[kMaxTileRows] = {};  // [rows - 1]
  RowKernel rows[kMaxTileRows] = {};    // [rows - 1]
  OutputKernel output = nullptr;
};

// One table per instruction set; null members never happen for a key that PackWeight accepted.
PanelKernels DenseKernelsAvx512(DType dtype);
PanelKernels IntKernelsAvx512(WeightFormat format, bool is_grouped, bool has_zeros);
PanelKernels DenseKernelsAvx2(DType dtype);
PanelKernels IntKernelsAvx2(WeightFormat format, bool is_grouped, bool has_zeros);

}  // namespace millrace::cpu
