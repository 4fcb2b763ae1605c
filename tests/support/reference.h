// SPDX-License-Identifier: Apache-2.0
#pragma once
// Plain double-precision twins of the kernels' arithmetic and the seeded random data they are fed. Tests only.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cpu/dtype_convert.h"
#include "kernels/tensor.h"

namespace millrace::testing {

inline std::vector<float> RandomFloats(int64_t count, uint32_t seed, float sigma = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

inline std::vector<uint8_t> RandomBytes(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<uint8_t> values(static_cast<size_t>(count));
  for (uint8_t& value : values) value = static_cast<uint8_t>(engine());
  return values;
}

// A weight matrix that owns its memory.
struct TestWeight {
  WeightSource source;
  std::vector<uint8_t> values;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;

  // W[n, k] as a number.
  double At(int64_t n, int64_t k) const {
    const int64_t index = n * source.k + k;
    switch (source.format) {
      case WeightFormat::kDense:
        if (source.dtype == DType::kF32) return reinterpret_cast<const float*>(values.data())[index];
        if (source.dtype == DType::kF16) {
          return cpu::FloatFromF16(reinterpret_cast<const uint16_t*>(values.data())[index]);
        }
        return cpu::FloatFromBf16(reinterpret_cast<const uint16_t*>(values.data())[index]);
      case WeightFormat::kInt8:
        return static_cast<int8_t>(values[static_cast<size_t>(index)]) * ScaleAt(n, k);
      case WeightFormat::kInt4: {
        const int nibble = (values[static_cast<size_t>(n * (source.k / 2) + k / 2)] >> (k % 2 * 4)) & 15;
        const int zero = zeros.empty() ? 8 : zeros[static_cast<size_t>(n * NumGroups() + k / source.group_size)];
        return (nibble - zero) * ScaleAt(n, k);
      }
    }
    return 0;
  }
  int64_t NumGroups() const { return source.group_size == 0 ? 1 : source.k / source.group_size; }
  double ScaleAt(int64_t n, int64_t k) const {
    const int64_t group = source.group_size == 0 ? 0 : k / source.group_size;
    return scales[static_cast<size_t>(n * NumGroups() + group)];
  }
};

struct WeightKind {
  WeightFormat format = WeightFormat::kDense;
  DType dtype = DType::kBF16;
  int group_size = 0;
  bool has_zeros = false;
};

// REQUIRES: kind.group_size divides k; k even for int4. Values are those of a trained matrix in size: about 1/sqrt(k).
inline void FillWeight(const WeightKind& kind, int64_t n, int64_t k, uint32_t seed, TestWeight& weight) {
  weight.source = {.format = kind.format, .n = n, .k = k, .dtype = kind.dtype};
  weight.source.group_size = kind.group_size;
  const float sigma = 1.0f / std::sqrt(static_cast<float>(k));
  if (kind.format == WeightFormat::kDense) {
    const std::vector<float> values = RandomFloats(n * k, seed, sigma);
    weight.values.resize(values.size() * DTypeBytes(kind.dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      if (kind.dtype == DType::kF32) reinterpret_cast<float*>(weight.values.data())[i] = values[i];
      uint16_t* halves = reinterpret_cast<uint16_t*>(weight.values.data());
      if (kind.dtype == DType::kF16) halves[i] = cpu::F16FromFloat(values[i]);
      if (kind.dtype == DType::kBF16) halves[i] = cpu::Bf16FromFloat(values[i]);
    }
  } else {
    const bool is_int4 = kind.format == WeightFormat::kInt4;
    weight.values = RandomBytes(is_int4 ? n * (k / 2) : n * k, seed);
    const float unit = sigma / (is_int4 ? 4.6f : 74.0f);  // standard deviation of uniform nibbles and bytes
    weight.scales = RandomFloats(n * weight.NumGroups(), seed + 1);
    for (float& scale : weight.scales) scale = unit * (0.5f + std::fabs(scale));
    if (kind.has_zeros) {
      weight.zeros = RandomBytes(n * weight.NumGroups(), seed + 2);
      for (uint8_t& zero : weight.zeros) zero &= 15;
    }
    weight.source.scales = weight.scales.data();
    weight.source.zeros = weight.zeros.empty() ? nullptr : weight.zeros.data();
  }
  weight.source.values = weight.values.data();
}

// One output in double, and the sum of the magnitudes of what was added: the measure of every tolerance.
struct ReferenceSum {
  double value = 0;
  double magnitude = 0;
};

inline ReferenceSum ReferenceDot(const float* x, const TestWeight& weight, int64_t n) {
  ReferenceSum sum;
  for (int64_t k = 0; k < weight.source.k; ++k) {
    const double term = static_cast<double>(x[k]) * weight.At(n, k);
    sum.value += term;
    sum.magnitude += std::fabs(term);
  }
  return sum;
}

}  // namespace millrace::testing
