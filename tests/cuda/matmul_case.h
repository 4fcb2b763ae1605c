// SPDX-License-Identifier: Apache-2.0
#pragma once
// A matmul with random operands on the device, its double reference, and tolerances derived from the arithmetic.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_kernels.h"
#include "tests/cuda/harness.h"
#include "tests/cuda/matmul_weight.h"

namespace millrace::cuda_test {

// How often numbers are rounded on the way, beyond the sum itself: weights perhaps to the type of x, or surely, once.
enum class WeightRounding { kExact, kToActivations, kOnce };

// Rows of x and out are longer than K and N: what lies between stays NaN, so a kernel that reads or writes there shows.
class MatmulCase {
 public:
  MatmulCase(const MatmulShape& shape, uint32_t seed) : shape_(shape), random_(seed), weight_(shape, random_) {
    MakeX(random_);
    MakeEpilogue(random_);
  }

  const MatmulShape& shape() const { return shape_; }
  double Weight(int n, int k) const { return weight_.Value(n, k); }
  std::vector<unsigned char> Output() const { return out_->Download(); }
  void Poison() { out_->Poison(); }

  // Everything but the workspace; int8 with a scale per channel comes with its quantised rows.
  cuda::MatmulLaunch Launch() {
    cuda::MatmulLaunch launch;
    launch.x = {.dtype = shape_.x_dtype, .rows = shape_.m, .cols = shape_.k, .stride = x_stride_};
    if (HasInt8X()) {
      launch.x_quantized = {reinterpret_cast<int8_t*>(x_device_->data()), x_scales_->data(), x_stride_};
    } else {
      launch.x.data = x_device_->data();
    }
    launch.w = weight_.packed();
    launch.bias = shape_.has_bias ? bias_device_->data() : nullptr;
    launch.out = {out_->data(), shape_.out_dtype, shape_.m, shape_.n, out_stride_};
    launch.residual = shape_.has_residual ? residual_device_->data() : nullptr;
    return launch;
  }

  // Everything but the plan.
  cuda::MatmulTask Task() {
    const cuda::MatmulLaunch launch = Launch();
    cuda::MatmulTask task;
    task.x = x_device_->data();
    task.x_dtype = HasInt8X() ? DType::kI8 : shape_.x_dtype;
    task.x_stride_bytes = x_stride_ * (HasInt8X() ? 1 : 2);
    task.w = launch.w;
    task.num_rows = shape_.m;
    task.epilogue = {.bias = launch.bias,
                     .residual = launch.residual,
                     .out = launch.out.data,
                     .out_stride = out_stride_,
                     .out_dtype = shape_.out_dtype,
                     .is_paired = out_stride_ % 2 == 0};
    if (HasInt8X()) {
      task.epilogue.row_scales = x_scales_->data();
      task.epilogue.channel_scales = static_cast<const float*>(task.w.scales);
    }
    return task;
  }

  void Check(const std::string& name, WeightRounding rounding = WeightRounding::kExact) const {
    const size_t item_bytes = DTypeBytes(shape_.out_dtype);
    const std::vector<unsigned char> out = out_->Download();
    for (int row = 0; row < shape_.m; ++row) {
      for (int n = 0; n < shape_.n; ++n) {
        double want = 0;
        double magnitude = 0;
        for (int k = 0; k < shape_.k; ++k) {
          double weight = Weight(n, k);
          if (rounding == WeightRounding::kOnce) weight = Rounded(shape_.x_dtype, static_cast<float>(weight));
          const double product = x_[static_cast<size_t>(row) * shape_.k + k] * weight;
          want += product;
          magnitude += std::fabs(product);
        }
        // Float32 sums of K terms in any order; int8 has few roundings, which this covers.
        double tolerance = (shape_.k + 4) * 0x1p-24 * magnitude;
        if (rounding == WeightRounding::kToActivations) tolerance += RoundingOf(shape_.x_dtype) * magnitude;
        if (shape_.has_bias) want += bias_[n];
        if (shape_.has_residual) want += residual_[static_cast<size_t>(row) * shape_.n + n];
        tolerance += (RoundingOf(shape_.out_dtype) + 0x1p-22) * (std::fabs(want) + tolerance + 4);
        const float got =
            Load(shape_.out_dtype, out.data() + (static_cast<size_t>(row) * out_stride_ + n) * item_bytes);
        EXPECT_NEAR(got, want, tolerance,
                    name + " " + Describe(shape_) + " row " + std::to_string(row) + " channel " + std::to_string(n));
      }
      for (size_t i = 0; i < (out_stride_ - shape_.n) * item_bytes; ++i) {
        const size_t index = (static_cast<size_t>(row) * out_stride_ + shape_.n) * item_bytes + i;
        EXPECT(out[index] == 0xff) << name << Describe(shape_) << "wrote past row" << row;
      }
    }
  }

 private:
  bool HasInt8X() const {
    return shape_.format == WeightFormat::kInt8 && shape_.group_size == 0 && !shape_.quantizes_x;
  }

  void MakeX(Random& random) {
    const int m = shape_.m;
    const int k = shape_.k;
    x_.resize(static_cast<size_t>(m) * k);
    x_stride_ = (k + 15) / 16 * 16 + 16;
    const size_t item_bytes = HasInt8X() ? 1 : 2;
    std::vector<unsigned char> bytes(static_cast<size_t>(m) * x_stride_ * item_bytes, 0xff);
    const std::vector<float> scales = random.Floats(m, 0.001f, 0.01f);
    for (int row = 0; row < m; ++row) {
      for (int i = 0; i < k; ++i) {
        unsigned char* to = bytes.data() + (static_cast<size_t>(row) * x_stride_ + i) * item_bytes;
        double& x = x_[static_cast<size_t>(row) * k + i];
        if (HasInt8X()) {
          const int value = random.Int(-127, 127);
          *to = static_cast<unsigned char>(value);
          x = static_cast<double>(value) * scales[row];
        } else {
          // What quantises to itself: whole numbers up to 127 in units of the scale.
          const int whole = i == 0 ? 127 : random.Int(-127, 127);
          const float value =
              shape_.quantizes_x ? static_cast<float>(whole) * 0x1p-7f : Rounded(shape_.x_dtype, random.Float(-1, 1));
          Store(shape_.x_dtype, value, to);
          x = value;
        }
      }
    }
    x_device_ = std::make_unique<DeviceArray<unsigned char>>(bytes);
    if (HasInt8X()) x_scales_ = std::make_unique<DeviceArray<float>>(scales);
  }

  void MakeEpilogue(Random& random) {
    const size_t item_bytes = DTypeBytes(shape_.out_dtype);
    out_stride_ = shape_.n + 1;  // odd rows too
    const size_t out_bytes = static_cast<size_t>(shape_.m) * out_stride_ * item_bytes;
    out_ = std::make_unique<DeviceArray<unsigned char>>(out_bytes);
    if (shape_.has_bias) {
      bias_ = random.Floats(shape_.n, -2, 2);
      bias_device_ = std::make_unique<DeviceArray<float>>(bias_);
    }
    if (!shape_.has_residual) return;
    std::vector<unsigned char> bytes(out_bytes, 0xff);
    for (int row = 0; row < shape_.m; ++row) {
      for (int n = 0; n < shape_.n; ++n) {
        residual_.push_back(Rounded(shape_.out_dtype, random.Float(-2, 2)));
        Store(shape_.out_dtype, residual_.back(),
              bytes.data() + (static_cast<size_t>(row) * out_stride_ + n) * item_bytes);
      }
    }
    residual_device_ = std::make_unique<DeviceArray<unsigned char>>(bytes);
  }

  MatmulShape shape_;
  Random random_;
  RandomWeight weight_;
  int x_stride_ = 0;
  int out_stride_ = 0;
  std::vector<double> x_;  // [m, k] as the kernel sees them, int8 times scale
  std::vector<float> bias_;
  std::vector<float> residual_;  // [m, n]
  std::unique_ptr<DeviceArray<unsigned char>> x_device_, out_, residual_device_;
  std::unique_ptr<DeviceArray<float>> x_scales_, bias_device_;
};

}  // namespace millrace::cuda_test
