// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/matmul_pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/dtype_convert.h"

namespace millrace::cuda {
namespace {

constexpr int kUnitInputs = 8;  // of the permuted rows of grouped int8

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

int64_t RowStride(const WeightShape& shape) {
  switch (shape.format) {
    case WeightFormat::kDense:
      return RoundUp(shape.k, 16 / static_cast<int64_t>(DTypeBytes(shape.dtype)));
    case WeightFormat::kInt8:
      return RoundUp(shape.k, shape.group_size == 0 ? 16 : kTileInputs);
    case WeightFormat::kInt4:
      break;
  }
  return 0;  // tiles, not rows
}

// Where channel n's scale of a group lies among `num_groups` groups.
int64_t GroupIndex(int64_t channel, int64_t group, int64_t num_groups) {
  const int64_t in_tile = channel % kTileChannels;
  return (channel / kTileChannels * num_groups + group) * kTileChannels + in_tile % 8 * 2 + in_tile / 8;
}

void PackRows(const WeightSource& source, size_t row_bytes, size_t stride_bytes, uint8_t* out) {
  const auto* rows = static_cast<const uint8_t*>(source.values);
  for (int64_t row = 0; row < source.n; ++row) {
    uint8_t* to = out + static_cast<size_t>(row) * stride_bytes;
    std::memcpy(to, rows + static_cast<size_t>(row) * row_bytes, row_bytes);
    std::memset(to + row_bytes, 0, stride_bytes - row_bytes);
  }
}

void PackGroupedInt8(const WeightSource& source, int64_t stride, uint8_t* out) {
  const auto* values = static_cast<const uint8_t*>(source.values);
  for (int64_t row = 0; row < source.n; ++row) {
    const uint8_t* from = values + row * source.k;
    uint8_t* to = out + row * stride;
    std::memset(to, 0x80, static_cast<size_t>(stride));
    for (int64_t k = 0; k < source.k; ++k) {
      const int64_t unit = k % kTileInputs / kUnitInputs;
      to[k / kTileInputs * kTileInputs + (unit % 4 * 2 + unit / 4) * kUnitInputs + k % kUnitInputs] = from[k] ^ 0x80u;
    }
  }
}

// Copies up to 64 inputs of one channel into its nibbles of a tile, four (two bytes of one word) at a time.
void PackTileRow(const uint8_t* nibbles, int64_t num_inputs, int64_t in_tile, uint32_t* words) {
  for (int64_t k = 0; k < num_inputs; k += 4) {
    const uint32_t low = nibbles[k / 2];
    const uint32_t high = nibbles[k / 2 + 1];
    const uint32_t spread = (low & 15u) | (high & 15u) << 8 | (low >> 4) << 16 | (high >> 4) << 24;
    const int64_t lane = in_tile % 8 * 4 + k % 32 / 8;
    const int64_t word = k / 32 * 2 + k % 8 / 4;
    words[lane * 4 + word] |= spread << (in_tile / 8 * 4);
  }
}

void PackInt4(const WeightSource& source, void* out) {
  const int64_t num_steps = CeilDiv(source.k, kTileInputs);
  constexpr int64_t kTileWords = kTileChannels * kTileInputs / 8;
  auto* words = static_cast<uint32_t*>(out);
  std::fill_n(words, CeilDiv(source.n, kTileChannels) * num_steps * kTileWords, 0u);
  const auto* values = static_cast<const uint8_t*>(source.values);
  for (int64_t row = 0; row < source.n; ++row) {
    for (int64_t step = 0; step < num_steps; ++step) {
      const int64_t first = step * kTileInputs;
      PackTileRow(values + (row * source.k + first) / 2, std::min<int64_t>(kTileInputs, source.k - first),
                  row % kTileChannels, words + (row / kTileChannels * num_steps + step) * kTileWords);
    }
  }
}

// The power of two that brings the largest scale into [2^13, 2^14): float16 then keeps 28 binades below it normal, and
// scales that came as float16 or bfloat16 stay exact.
float ScaleUnit(const WeightSource& source) {
  float max = 0;
  const int64_t num_scales = source.n * (source.k / source.group_size);
  for (int64_t i = 0; i < num_scales; ++i) {
    if (std::isfinite(source.scales[i])) max = std::max(max, std::fabs(source.scales[i]));
  }
  if (max == 0) return 1.0f;
  return std::ldexp(1.0f, std::clamp(std::ilogb(max) - 13, -120, 120));
}

void PackGroups(const WeightSource& source, float scale_unit, const PackedWeightParts& parts) {
  const int64_t num_groups = source.k / source.group_size;
  const int64_t count = RoundUp(source.n, kTileChannels) * num_groups;
  auto* scales = static_cast<uint16_t*>(parts.scales);
  auto* zeros = static_cast<uint8_t*>(parts.zeros);
  std::fill_n(scales, count, uint16_t{0});
  if (source.zeros != nullptr) std::fill_n(zeros, count, uint8_t{0});
  for (int64_t row = 0; row < source.n; ++row) {
    for (int64_t group = 0; group < num_groups; ++group) {
      const int64_t to = GroupIndex(row, group, num_groups);
      scales[to] = cpu::F16FromFloat(source.scales[row * num_groups + group] / scale_unit);
      if (source.zeros != nullptr) zeros[to] = source.zeros[row * num_groups + group];
    }
  }
}

WeightShape ShapeOf(const WeightSource& source) {
  return {.format = source.format,
          .dtype = source.dtype,
          .n = source.n,
          .k = source.k,
          .group_size = source.format == WeightFormat::kDense ? 0 : source.group_size,
          .has_zeros = source.format == WeightFormat::kInt4 && source.zeros != nullptr};
}

void CheckShape(const WeightShape& shape) {
  MILLRACE_CHECK(shape.n >= 1 && shape.k >= 1, "a weight without rows or columns");
  const bool is_grouped = shape.group_size != 0;
  MILLRACE_CHECK(is_grouped || shape.format != WeightFormat::kInt4, "int4 without groups");
  MILLRACE_CHECK(!is_grouped || shape.group_size == 32 || shape.group_size == 64 || shape.group_size == 128,
                 "a group size no kernel takes");
  MILLRACE_CHECK(!is_grouped || shape.k % shape.group_size == 0, "groups that do not divide the inputs");
}

}  // namespace

PackedWeightSizes PackedSizes(const WeightShape& shape) {
  CheckShape(shape);
  PackedWeightSizes sizes;
  const int64_t padded = RoundUp(shape.n, kTileChannels);
  if (shape.format == WeightFormat::kInt4) {
    sizes.values_bytes = static_cast<size_t>(padded * RoundUp(shape.k, kTileInputs) / 2);
  } else {
    const size_t item_bytes = shape.format == WeightFormat::kDense ? DTypeBytes(shape.dtype) : 1;
    sizes.values_bytes = static_cast<size_t>(shape.n * RowStride(shape)) * item_bytes;
  }
  if (shape.group_size != 0) {
    const size_t num_groups = static_cast<size_t>(padded * (shape.k / shape.group_size));
    sizes.scales_bytes = num_groups * sizeof(uint16_t);
    if (shape.has_zeros) sizes.zeros_bytes = num_groups;
  } else if (shape.format == WeightFormat::kInt8) {
    sizes.scales_bytes = static_cast<size_t>(shape.n) * sizeof(float);
  }
  return sizes;
}

WeightOnDevice PackWeight(const WeightSource& source, const PackedWeightParts& parts) {
  const WeightShape shape = ShapeOf(source);
  CheckShape(shape);
  WeightOnDevice w = {.format = shape.format,
                      .dtype = shape.dtype,
                      .n = shape.n,
                      .k = shape.k,
                      .stride = RowStride(shape),
                      .group_size = shape.group_size,
                      .has_zeros = shape.has_zeros};
  switch (shape.format) {
    case WeightFormat::kDense: {
      const size_t item_bytes = DTypeBytes(shape.dtype);
      PackRows(source, static_cast<size_t>(shape.k) * item_bytes, static_cast<size_t>(w.stride) * item_bytes,
               static_cast<uint8_t*>(parts.values));
      return w;
    }
    case WeightFormat::kInt8:
      if (shape.group_size != 0) {
        PackGroupedInt8(source, w.stride, static_cast<uint8_t*>(parts.values));
        break;
      }
      PackRows(source, static_cast<size_t>(shape.k), static_cast<size_t>(w.stride),
               static_cast<uint8_t*>(parts.values));
      std::memcpy(parts.scales, source.scales, static_cast<size_t>(shape.n) * sizeof(float));
      return w;
    case WeightFormat::kInt4:
      PackInt4(source, parts.values);
      break;
  }
  w.scale_unit = ScaleUnit(source);
  PackGroups(source, w.scale_unit, parts);
  return w;
}

}  // namespace millrace::cuda
