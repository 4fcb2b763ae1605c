// SPDX-License-Identifier: Apache-2.0
#pragma once
// How CUDA kernels keep a weight matrix, and the packing into host memory (plain C++; whoever loads uploads the parts).
//
//   dense         row-major, rows padded with zeros to `stride` elements (16 bytes)
//   int8          row-major, rows padded with zeros to `stride` bytes (16); scales: float32 [N]
//   int8 grouped  rows of `stride` bytes (a multiple of 64), q + 128; in each 64 the units of 8 k stand in the order
//                 0 4 1 5 2 6 3 7
//   int4          tiles of 16 channels x 64 k: [ceil(N/16)][ceil(K/64)][32 lanes][4 words]. With g = lane / 4 and
//                 t = lane % 4, nibbles p and p + 4 of word 2h + i are k = 32h + 8t + 4i + 2(p / 2) and the k after it
//                 of channel g + 8(p % 2): the registers of one tensor-core operand
//   grouped scales  float16 in units of `scale_unit`: [ceil(N/16)][K/group][8][2], channels g and g + 8 side by side
//   zeros           uint8 in the same order
//
// Padded channels have scale 0. Stateless; any thread.
#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace millrace::cuda {

inline constexpr int kTileChannels = 16;  // of int4 values, grouped scales and zeros
inline constexpr int kTileInputs = 64;

struct WeightOnDevice {
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kBF16;  // kDense: element type
  int64_t n = 0;
  int64_t k = 0;
  int64_t stride = 0;  // row-major formats: elements between row starts
  int group_size = 0;  // 0: dense, or one scale per channel
  bool has_zeros = false;
  float scale_unit = 1.0f;       // grouped scales: a power of two
  const void* values = nullptr;  // the three parts: device pointers, 16-byte aligned
  const void* scales = nullptr;
  const void* zeros = nullptr;  // has_zeros
};

struct WeightShape {
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kBF16;
  int64_t n = 0;
  int64_t k = 0;
  int group_size = 0;
  bool has_zeros = false;
};

struct PackedWeightSizes {
  size_t values_bytes = 0;
  size_t scales_bytes = 0;  // 0: the part is absent
  size_t zeros_bytes = 0;
};

// Host memory for the three parts, of the sizes PackedSizes gives; absent parts may be null.
struct PackedWeightParts {
  void* values = nullptr;
  void* scales = nullptr;
  void* zeros = nullptr;
};

// REQUIRES (all): n, k >= 1; group_size 0, 32, 64 or 128, dividing k; 0 only for dense and int8.
PackedWeightSizes PackedSizes(const WeightShape& shape);

// Fills the parts and describes them; the description's pointers are null until the caller sets device pointers.
WeightOnDevice PackWeight(const WeightSource& source, const PackedWeightParts& parts);

}  // namespace millrace::cuda
