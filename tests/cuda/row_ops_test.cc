// SPDX-License-Identifier: Apache-2.0
// Embed, GatherRows, RmsNorm, SwiGlu and QuantizeRows against double precision. Outputs of 16 bits are the nearest of a
// float32 that errs by less than kFloatError of itself.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/embed.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/quantize_rows.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/swiglu.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;

// One below and above each edge: of a vector, of a warp of them, of the registers of a block.
constexpr int64_t kWidths[] = {1, 7, 8, 9, 31, 64, 255, 256, 257, 1009, 2048};
constexpr int64_t kVeryWide = 2 * 8 * 1024 + 9;
constexpr double kFloatError = 1e-5;
constexpr uint16_t kUnwritten = 0xffff;

uint16_t BitsFromFloat(DType dtype, float value) {
  return dtype == DType::kBF16 ? cuda_test::Bf16FromFloat(value) : cuda_test::HalfFromFloat(value);
}
float FloatFromBits(DType dtype, uint16_t bits) {
  return dtype == DType::kBF16 ? cuda_test::FloatFromBf16(bits) : cuda_test::FloatFromHalf(bits);
}
// Half the spacing of the 16-bit numbers around a value, and the least number float16 can be off by.
double Tolerance(DType dtype, double value) {
  const double spacing = dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  return std::fabs(value) * (spacing + kFloatError) + (dtype == DType::kBF16 ? 1e-37 : 0x1p-25);
}

// A matrix of activations on the device; what lies behind each row stays as it was.
struct Rows {
  Rows(DType type, int64_t num_rows, int64_t num_cols, int64_t row_stride)
      : dtype(type),
        rows(num_rows),
        cols(num_cols),
        stride(row_stride),
        memory(std::vector<uint16_t>(static_cast<size_t>(num_rows * row_stride), kUnwritten)) {}
  void Fill(const std::vector<float>& values) {
    bits = memory.Download();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) At(r, c) = BitsFromFloat(dtype, values[static_cast<size_t>(r * cols + c)]);
    }
    memory.Upload(bits);
  }
  void Fetch() { bits = memory.Download(); }
  uint16_t& At(int64_t row, int64_t col) { return bits[static_cast<size_t>(row * stride + col)]; }
  double Value(int64_t row, int64_t col) { return FloatFromBits(dtype, At(row, col)); }
  Matrix View() { return {.data = memory.data(), .dtype = dtype, .rows = rows, .cols = cols, .stride = stride}; }
  void ExpectPaddingUntouched() {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = cols; c < stride; ++c) EXPECT(At(r, c) == kUnwritten) << "row " << r << " column " << c;
    }
  }

  DType dtype;
  int64_t rows, cols, stride;
  std::vector<uint16_t> bits;
  DeviceArray<uint16_t> memory;
};

struct Int8Rows {
  Int8Rows(int64_t num_rows, int64_t num_cols)
      : cols(num_cols),
        stride((num_cols + 31) / 16 * 16),
        values(static_cast<size_t>(num_rows * stride)),
        scales(static_cast<size_t>(num_rows)) {}
  QuantizedRows View() { return {values.data(), scales.data(), stride}; }

  // The rows are the nearest integers to `want` in units of its largest / 127.
  void ExpectQuantized(const std::vector<double>& want, const std::string& where) {
    const std::vector<int8_t> got = values.Download();
    const std::vector<float> scale = scales.Download();
    for (size_t r = 0; r < scale.size(); ++r) {
      double largest = 0;
      for (int64_t c = 0; c < cols; ++c)
        largest = std::max(largest, std::fabs(want[r * static_cast<size_t>(cols) + static_cast<size_t>(c)]));
      EXPECT_NEAR(scale[r], largest / 127, largest / 127 * kFloatError, where + " scale of row " + std::to_string(r));
      for (int64_t c = 0; c < stride; ++c) {
        const int8_t value = got[r * static_cast<size_t>(stride) + static_cast<size_t>(c)];
        if (c >= cols) {
          EXPECT(value == -1) << where << " padding of row " << r;
          continue;
        }
        // Half a step, and what 127 steps of a scale in error make.
        EXPECT_NEAR(value * (largest / 127), want[r * static_cast<size_t>(cols) + static_cast<size_t>(c)],
                    largest / 127 * (0.5 + 254 * kFloatError),
                    where + " row " + std::to_string(r) + " column " + std::to_string(c));
      }
    }
  }

  int64_t cols, stride;
  DeviceArray<int8_t> values;
  DeviceArray<float> scales;
};

std::string Where(DType dtype, int64_t cols, int64_t stride) {
  return std::string(dtype == DType::kBF16 ? "bf16" : "f16") + " cols " + std::to_string(cols) + " stride " +
         std::to_string(stride);
}

// Calls body(dtype, cols, stride) with row starts that 16-byte accesses can and cannot use.
template <typename Body>
void ForEachShape(const Body& body) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t cols : kWidths) {
      for (const int64_t stride : {cols + 3, (cols + 15) / 8 * 8}) body(dtype, cols, stride);
    }
    body(dtype, kVeryWide, kVeryWide + 7);
    body(dtype, kVeryWide + 7, kVeryWide + 7);
  }
}

}  // namespace

KERNEL_TEST("rms_norm: rows of any width agree with the double reference, as activations and as int8") {
  Random random(1);
  ForEachShape([&](DType dtype, int64_t cols, int64_t stride) {
    const int64_t num_rows = cols > 2048 ? 1 : 3;
    const float eps = 1e-5f;
    Rows x(dtype, num_rows, cols, stride), out(dtype, num_rows, cols, stride), same(dtype, num_rows, cols, stride);
    auto values = random.Floats(static_cast<size_t>(num_rows * cols), -3, 3);
    if (num_rows > 2) std::fill_n(values.begin() + cols, cols, 0.0f);  // a row of zeros
    x.Fill(values);
    same.Fill(values);
    const auto weight = random.Floats(static_cast<size_t>(cols), -2, 2);
    DeviceArray<float> device_weight(weight);
    Int8Rows quantized(num_rows, cols), only_quantized(num_rows, cols);
    const RmsNormLaunch launch{.x = x.View(), .weight = device_weight.data(), .eps = eps, .out = out.View()};
    RmsNormLaunch with_both = launch, with_int8 = launch, in_place = launch;
    with_both.quantized = quantized.View();
    with_int8.quantized = only_quantized.View();
    with_int8.out = {};
    in_place.x = in_place.out = same.View();
    EXPECT(LaunchRmsNorm(with_both, nullptr) == cudaSuccess);
    EXPECT(LaunchRmsNorm(with_int8, nullptr) == cudaSuccess);
    EXPECT(LaunchRmsNorm(in_place, nullptr) == cudaSuccess);
    out.Fetch();
    same.Fetch();
    out.ExpectPaddingUntouched();
    std::vector<double> want;
    for (int64_t r = 0; r < num_rows; ++r) {
      double squares = 0;
      for (int64_t c = 0; c < cols; ++c) squares += x.Value(r, c) * x.Value(r, c);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
      for (int64_t c = 0; c < cols; ++c) {
        want.push_back(x.Value(r, c) * scale * weight[static_cast<size_t>(c)]);
        EXPECT_NEAR(out.Value(r, c), want.back(), Tolerance(dtype, want.back()), Where(dtype, cols, stride));
        EXPECT(same.At(r, c) == out.At(r, c)) << "in place, " << Where(dtype, cols, stride);
      }
    }
    quantized.ExpectQuantized(want, Where(dtype, cols, stride));
    only_quantized.ExpectQuantized(want, "only int8, " + Where(dtype, cols, stride));
  });
}

KERNEL_TEST("swiglu: rows of any width agree with the double reference, as activations and as int8") {
  Random random(2);
  ForEachShape([&](DType dtype, int64_t cols, int64_t stride) {
    const int64_t num_rows = cols > 2048 ? 1 : 3;
    Rows gate_up(dtype, num_rows, 2 * cols, 2 * stride), out(dtype, num_rows, cols, stride);
    Rows same(dtype, num_rows, cols, stride);
    gate_up.Fill(random.Floats(static_cast<size_t>(num_rows * 2 * cols), -12, 12));
    Int8Rows quantized(num_rows, cols), only_quantized(num_rows, cols);
    SwiGluLaunch launch{.gate_up = gate_up.View(), .out = out.View()};
    EXPECT(LaunchSwiGlu(launch, nullptr) == cudaSuccess);
    launch.out = same.View();
    launch.quantized = quantized.View();
    EXPECT(LaunchSwiGlu(launch, nullptr) == cudaSuccess);
    launch.out.data = nullptr;
    launch.quantized = only_quantized.View();
    EXPECT(LaunchSwiGlu(launch, nullptr) == cudaSuccess);
    out.Fetch();
    same.Fetch();
    out.ExpectPaddingUntouched();
    same.ExpectPaddingUntouched();
    std::vector<double> want;
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = gate_up.Value(r, c);
        want.push_back(gate / (1 + std::exp(-gate)) * gate_up.Value(r, cols + c));
        EXPECT_NEAR(out.Value(r, c), want.back(), Tolerance(dtype, want.back()), Where(dtype, cols, stride));
        EXPECT(same.At(r, c) == out.At(r, c)) << "beside int8, " << Where(dtype, cols, stride);
      }
    }
    quantized.ExpectQuantized(want, Where(dtype, cols, stride));
    only_quantized.ExpectQuantized(want, "only int8, " + Where(dtype, cols, stride));
  });
}

KERNEL_TEST("swiglu: large gates saturate and never make a NaN of numbers") {
  for (const float size : {88.0f, 104.0f, 3e38f}) {
    Rows gate_up(DType::kBF16, 1, 6, 6), out(DType::kBF16, 1, 3, 3);
    gate_up.Fill({size, -size, 0.0f, 0.5f, 0.5f, 7.0f});
    EXPECT(LaunchSwiGlu({.gate_up = gate_up.View(), .out = out.View()}, nullptr) == cudaSuccess);
    out.Fetch();
    EXPECT_NEAR(out.Value(0, 0), gate_up.Value(0, 0) * 0.5, 0, "a gate far above zero");
    EXPECT_NEAR(out.Value(0, 1), 0, 1e-35, "a gate far below zero");
    EXPECT_NEAR(out.Value(0, 2), 0, 0, "a gate of zero");
  }
}

KERNEL_TEST("quantize_rows: rows of any width round to the nearest integer") {
  Random random(3);
  ForEachShape([&](DType dtype, int64_t cols, int64_t stride) {
    const int64_t num_rows = cols > 2048 ? 1 : 3;
    Rows x(dtype, num_rows, cols, stride);
    x.Fill(random.Floats(static_cast<size_t>(num_rows * cols), -5, 5));
    Int8Rows out(num_rows, cols);
    EXPECT(LaunchQuantizeRows({.x = x.View(), .out = out.View()}, nullptr) == cudaSuccess);
    std::vector<double> want;
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) want.push_back(x.Value(r, c));
    }
    out.ExpectQuantized(want, Where(dtype, cols, stride));
  });
}

KERNEL_TEST("quantised rows: zeros have scale 0, an infinity or a NaN shows in the scale") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int64_t kCols = 20;
  for (const float fault : {kInfinity, -kInfinity, std::nanf("")}) {
    Rows x(DType::kBF16, 3, kCols, 24);
    std::vector<float> values(3 * kCols, 1.0f);
    std::fill_n(values.begin() + kCols, kCols, 0.0f);
    values[2 * kCols + 17] = fault;
    x.Fill(values);
    Int8Rows plain(3, kCols), normed(3, kCols);
    DeviceArray<float> weight(std::vector<float>(kCols, 1.0f));
    EXPECT(LaunchQuantizeRows({.x = x.View(), .out = plain.View()}, nullptr) == cudaSuccess);
    EXPECT(LaunchRmsNorm({.x = x.View(), .weight = weight.data(), .quantized = normed.View()}, nullptr) == cudaSuccess);
    for (Int8Rows* rows : {&plain, &normed}) {
      const auto scales = rows->scales.Download();
      const auto integers = rows->values.Download();
      EXPECT(scales[0] > 0 && integers[0] == 127);
      EXPECT(scales[1] == 0 && integers[static_cast<size_t>(rows->stride)] == 0);
      EXPECT(std::isnan(scales[2]) && integers[static_cast<size_t>(2 * rows->stride) + 17] == 0);
    }
  }
}

KERNEL_TEST("rms_norm, swiglu: a row's bits do not depend on the rows beside it") {
  Random random(4);
  constexpr int64_t kRows = 5;
  for (const int64_t cols : {int64_t{61}, int64_t{264}}) {
    Rows x(DType::kBF16, kRows, 2 * cols, 2 * cols), normed(DType::kBF16, kRows, 2 * cols, 2 * cols);
    Rows gated(DType::kBF16, kRows, cols, cols);
    x.Fill(random.Floats(static_cast<size_t>(kRows * 2 * cols), -4, 4));
    DeviceArray<float> weight(random.Floats(static_cast<size_t>(2 * cols), -1, 1));
    EXPECT(LaunchRmsNorm({.x = x.View(), .weight = weight.data(), .out = normed.View()}, nullptr) == cudaSuccess);
    EXPECT(LaunchSwiGlu({.gate_up = x.View(), .out = gated.View()}, nullptr) == cudaSuccess);
    normed.Fetch();
    gated.Fetch();
    for (int64_t r = 0; r < kRows; ++r) {
      Matrix row = x.View();
      row.data = static_cast<uint16_t*>(row.data) + r * row.stride;
      row.rows = 1;
      Rows alone(DType::kBF16, 1, 2 * cols, 2 * cols), gated_alone(DType::kBF16, 1, cols, cols);
      EXPECT(LaunchRmsNorm({.x = row, .weight = weight.data(), .out = alone.View()}, nullptr) == cudaSuccess);
      EXPECT(LaunchSwiGlu({.gate_up = row, .out = gated_alone.View()}, nullptr) == cudaSuccess);
      alone.Fetch();
      gated_alone.Fetch();
      EXPECT(std::memcmp(&alone.At(0, 0), &normed.At(r, 0), static_cast<size_t>(2 * cols) * 2) == 0) << "row " << r;
      EXPECT(std::memcmp(&gated_alone.At(0, 0), &gated.At(r, 0), static_cast<size_t>(cols) * 2) == 0) << "row " << r;
    }
  }
}

KERNEL_TEST("embed: every table type is looked up exactly, and a token outside the table shows") {
  Random random(5);
  constexpr int64_t kVocab = 37;
  const std::vector<int32_t> tokens = {0, 36, 7, 7, 37, -1, 20};
  for (const DType table_dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const int64_t cols : {int64_t{1}, int64_t{9}, int64_t{64}, int64_t{257}}) {
        for (const int64_t stride : {cols + 3, (cols + 15) / 8 * 8}) {
          auto values = random.Floats(static_cast<size_t>(kVocab * stride), -2, 2);
          std::vector<uint16_t> halves;
          for (float& value : values) {
            if (table_dtype == DType::kF32) continue;
            halves.push_back(BitsFromFloat(table_dtype, value));
            value = FloatFromBits(table_dtype, halves.back());
          }
          DeviceArray<float> floats(values);
          DeviceArray<uint16_t> shorts(halves);
          DeviceArray<int32_t> device_tokens(tokens);
          Rows out(dtype, static_cast<int64_t>(tokens.size()), cols, stride);
          const Matrix table = {.data = table_dtype == DType::kF32 ? static_cast<void*>(floats.data()) : shorts.data(),
                                .dtype = table_dtype,
                                .rows = kVocab,
                                .cols = cols,
                                .stride = stride};
          EXPECT(LaunchEmbed({.table = table, .tokens = device_tokens.data(), .out = out.View(), .scale = 0.7f},
                             nullptr) == cudaSuccess);
          out.Fetch();
          out.ExpectPaddingUntouched();
          for (size_t r = 0; r < tokens.size(); ++r) {
            for (int64_t c = 0; c < cols; ++c) {
              const double got = out.Value(static_cast<int64_t>(r), c);
              if (tokens[r] < 0 || tokens[r] >= kVocab) {
                EXPECT(std::isnan(got)) << "token " << tokens[r];
                continue;
              }
              const float entry = values[static_cast<size_t>(tokens[r] * stride + c)] * 0.7f;
              EXPECT(out.At(static_cast<int64_t>(r), c) == BitsFromFloat(dtype, entry)) << Where(dtype, cols, stride);
            }
          }
        }
      }
    }
  }
}

KERNEL_TEST("embed: a rank's part of a table gives zeros for other ranks' tokens, and NaN for nobody's") {
  constexpr int64_t kVocab = 12, kCols = 61, kPart = 4;
  const std::vector<int32_t> tokens = {0, 11, 3, 4, 7, 8, 4, -1, 12};
  DeviceArray<int32_t> device_tokens(tokens);
  Random random(8);
  for (int64_t first = 0; first < kVocab; first += kPart) {
    const std::vector<float> values = random.Floats(static_cast<size_t>(kPart * kCols), -2, 2);
    DeviceArray<float> floats(values);
    Rows out(DType::kBF16, static_cast<int64_t>(tokens.size()), kCols, kCols + 3);
    const Matrix part = {.data = floats.data(), .dtype = DType::kF32, .rows = kPart, .cols = kCols, .stride = kCols};
    EXPECT(LaunchEmbed({.table = part,
                        .tokens = device_tokens.data(),
                        .out = out.View(),
                        .first_token = static_cast<int32_t>(first),
                        .whole_tokens = kVocab},
                       nullptr) == cudaSuccess);
    out.Fetch();
    out.ExpectPaddingUntouched();
    for (size_t r = 0; r < tokens.size(); ++r) {
      const int64_t row = tokens[r] - first;
      for (int64_t c = 0; c < kCols; ++c) {
        if (tokens[r] < 0 || tokens[r] >= kVocab) {
          EXPECT(std::isnan(out.Value(static_cast<int64_t>(r), c))) << "token " << tokens[r];
          continue;
        }
        const float entry = row >= 0 && row < kPart ? values[static_cast<size_t>(row * kCols + c)] : 0.0f;
        EXPECT(out.At(static_cast<int64_t>(r), c) == BitsFromFloat(DType::kBF16, entry)) << "token " << tokens[r];
      }
    }
  }
}

KERNEL_TEST("gather_rows: copies the bits of the rows named, and nothing for one that is not there") {
  const std::vector<int32_t> rows = {10, 0, 3, 3, 11, -1};
  DeviceArray<int32_t> device_rows(rows);
  Random random(6);
  for (const int64_t cols : {int64_t{1}, int64_t{5}, int64_t{8}, int64_t{61}, int64_t{256}, int64_t{1009}}) {
    for (const int64_t stride : {cols + 3, (cols + 15) / 8 * 8}) {
      Rows x(DType::kF16, 11, cols, stride), out(DType::kF16, static_cast<int64_t>(rows.size()), cols, stride);
      x.bits = x.memory.Download();
      for (uint16_t& bits : x.bits) bits = static_cast<uint16_t>(random.Bits());  // NaN among them
      x.memory.Upload(x.bits);
      EXPECT(LaunchGatherRows({.x = x.View(), .rows = device_rows.data(), .out = out.View()}, nullptr) == cudaSuccess);
      out.Fetch();
      out.ExpectPaddingUntouched();
      for (size_t r = 0; r < rows.size(); ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          const bool is_there = rows[r] >= 0 && rows[r] < 11;
          EXPECT(out.At(static_cast<int64_t>(r), c) == (is_there ? x.At(rows[r], c) : kUnwritten)) << "row " << r;
        }
      }
    }
  }
}

}  // namespace millrace::cuda
