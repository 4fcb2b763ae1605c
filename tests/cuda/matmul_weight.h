// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random weights of every format for tests: as a model has them, packed for the device, and as numbers.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/matmul_pack.h"
#include "kernels/tensor.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda_test {

struct MatmulShape {
  WeightFormat format = WeightFormat::kDense;
  DType w_dtype = DType::kBF16;  // dense
  int group_size = 0;
  bool has_zeros = false;
  int m = 1;
  int n = 1;
  int k = 1;
  DType x_dtype = DType::kBF16;
  DType out_dtype = DType::kBF16;
  bool has_bias = false;
  bool has_residual = false;
  bool quantizes_x = false;  // int8 with a scale per channel: x comes in x_dtype, of numbers that int8 holds exactly
};

inline const char* DTypeText(DType dtype) {
  return dtype == DType::kF32 ? "f32" : dtype == DType::kF16 ? "f16" : dtype == DType::kBF16 ? "bf16" : "other";
}

inline void Store(DType dtype, float value, unsigned char* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, &value, sizeof(value));
    return;
  }
  const uint16_t bits = dtype == DType::kBF16 ? Bf16FromFloat(value) : HalfFromFloat(value);
  std::memcpy(to, &bits, sizeof(bits));
}

inline float Load(DType dtype, const unsigned char* from) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return dtype == DType::kBF16 ? FloatFromBf16(bits) : FloatFromHalf(bits);
}

inline float Rounded(DType dtype, float value) {
  unsigned char bytes[4];
  Store(dtype, value, bytes);
  return Load(dtype, bytes);
}

// Half a unit in the last place, relative.
inline double RoundingOf(DType dtype) {
  return dtype == DType::kBF16 ? 0x1p-8 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-24;
}

inline std::string Describe(const MatmulShape& s) {
  std::string text = s.format == WeightFormat::kDense  ? std::string("dense ") + DTypeText(s.w_dtype)
                     : s.format == WeightFormat::kInt8 ? "int8"
                                                       : "int4";
  if (s.group_size != 0) text += "/" + std::to_string(s.group_size);
  if (s.has_zeros) text += " zeros";
  return text + " m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " + std::to_string(s.k) + " x " +
         DTypeText(s.x_dtype) + " out " + DTypeText(s.out_dtype) + (s.has_bias ? " bias" : "") +
         (s.has_residual ? " residual" : "");
}

class RandomWeight {
 public:
  RandomWeight(const MatmulShape& shape, Random& random) : shape_(shape) {
    Fill(random);
    Pack();
  }
  const cuda::WeightOnDevice& packed() const { return packed_; }

  double Value(int n, int k) const {
    const size_t index = static_cast<size_t>(n) * shape_.k + k;
    if (shape_.format == WeightFormat::kDense) return dense_[index];
    const size_t group = shape_.group_size == 0 ? static_cast<size_t>(n) : index / shape_.group_size;
    const int zero = shape_.format == WeightFormat::kInt8 ? 0 : shape_.has_zeros ? zeros_[group] : 8;
    return (integers_[index] - zero) * static_cast<double>(scales_[group]);
  }

 private:
  void Fill(Random& random) {
    const size_t count = static_cast<size_t>(shape_.n) * shape_.k;
    if (shape_.format == WeightFormat::kDense) {
      const size_t item_bytes = DTypeBytes(shape_.w_dtype);
      values_.resize(count * item_bytes);
      dense_ = random.Floats(count, -1, 1);
      for (size_t i = 0; i < count; ++i) {
        dense_[i] = Rounded(shape_.w_dtype, dense_[i]);
        Store(shape_.w_dtype, dense_[i], values_.data() + i * item_bytes);
      }
    } else {
      const bool is_int4 = shape_.format == WeightFormat::kInt4;
      const size_t num_groups =
          static_cast<size_t>(shape_.n) * (shape_.group_size != 0 ? shape_.k / shape_.group_size : 1);
      integers_ = random.Ints(count, is_int4 ? 0 : -128, is_int4 ? 15 : 127);
      for (size_t i = 0; i < num_groups; ++i) {
        scales_.push_back(Rounded(DType::kF16, random.Float(0.001f, 0.02f)));  // 11 bits, as checkpoints have them
        if (shape_.has_zeros) zeros_.push_back(static_cast<uint8_t>(random.Int(0, 15)));
      }
      values_.resize(is_int4 ? count / 2 : count);
      for (size_t i = 0; i < count; ++i) {
        if (is_int4) {
          values_[i / 2] |= static_cast<unsigned char>(integers_[i] << (i % 2 * 4));
        } else {
          values_[i] = static_cast<unsigned char>(integers_[i]);
        }
      }
    }
  }
  void Pack() {
    const WeightSource source = {.format = shape_.format,
                                 .n = shape_.n,
                                 .k = shape_.k,
                                 .dtype = shape_.w_dtype,
                                 .values = values_.data(),
                                 .group_size = shape_.group_size,
                                 .scales = scales_.data(),
                                 .zeros = shape_.has_zeros ? zeros_.data() : nullptr};
    const cuda::PackedWeightSizes sizes = cuda::PackedSizes({.format = shape_.format,
                                                             .dtype = shape_.w_dtype,
                                                             .n = shape_.n,
                                                             .k = shape_.k,
                                                             .group_size = shape_.group_size,
                                                             .has_zeros = shape_.has_zeros});
    parts_[0].resize(sizes.values_bytes);
    parts_[1].resize(sizes.scales_bytes);
    parts_[2].resize(sizes.zeros_bytes);
    packed_ = cuda::PackWeight(source, {parts_[0].data(), parts_[1].data(), parts_[2].data()});
    for (int i = 0; i < 3; ++i) device_[i] = std::make_unique<DeviceArray<unsigned char>>(parts_[i]);
    packed_.values = device_[0]->data();
    packed_.scales = device_[1]->data();
    packed_.zeros = device_[2]->data();
  }

  MatmulShape shape_;
  std::vector<unsigned char> values_;
  std::vector<float> dense_;
  std::vector<int> integers_;
  std::vector<float> scales_;
  std::vector<uint8_t> zeros_;
  std::vector<unsigned char> parts_[3];
  std::unique_ptr<DeviceArray<unsigned char>> device_[3];
  cuda::WeightOnDevice packed_;
};

}  // namespace millrace::cuda_test
