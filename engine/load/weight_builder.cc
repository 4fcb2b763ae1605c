// SPDX-License-Identifier: Apache-2.0
#include "engine/load/weight_builder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/float_bits.h"
#include "kernels/check.h"

namespace millrace {
namespace {

void QuantizeInt8(const float* values, int64_t count, int8_t* out, float* scale) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  *scale = largest / 127.0f;
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<int8_t>(std::clamp(std::nearbyintf(values[i] * inverse), -127.0f, 127.0f));
  }
}

float Int4Error(const float* values, int64_t count, float scale) {
  const float inverse = 1.0f / scale;
  float error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float rounded = std::clamp(std::nearbyintf(values[i] * inverse), -8.0f, 7.0f);
    const float difference = values[i] - rounded * scale;
    error += difference * difference;
  }
  return error;
}

// The scale of a group: the value of largest magnitude becomes -8 (either sign), shrunk where that errs less.
float ChooseInt4Scale(const float* values, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (std::abs(values[i]) > std::abs(largest)) largest = values[i];
  }
  if (largest == 0) return 0;
  float best_scale = largest / -8.0f;
  float best_error = Int4Error(values, count, best_scale);
  for (const float divisor : {-7.5f, -7.0f, 7.0f, -8.5f, -9.0f, -6.5f}) {
    const float scale = largest / divisor;
    const float error = Int4Error(values, count, scale);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

void QuantizeInt4(const float* values, int64_t count, uint8_t* out, float* scale) {
  *scale = ChooseInt4Scale(values, count);
  const float inverse = *scale != 0 ? 1.0f / *scale : 0.0f;
  const auto nibble = [&](int64_t i) {
    return static_cast<uint8_t>(std::clamp(std::nearbyintf(values[i] * inverse), -8.0f, 7.0f) + 8.0f);
  };
  for (int64_t i = 0; i < count; i += 2) out[i / 2] = static_cast<uint8_t>(nibble(i) | nibble(i + 1) << 4);
}

void ConvertRow(const float* values, int64_t count, DType dtype, uint8_t* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = dtype == DType::kBF16 ? BFloat16Bits(values[i]) : Float16Bits(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

}  // namespace

void ForEachRow(int64_t num_rows, const std::function<void(int64_t row)>& body) {
  const int64_t num_threads =
      std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, std::max<int64_t>(num_rows / 16, 1));
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    constexpr int64_t kChunk = 16;
    for (int64_t begin = next.fetch_add(kChunk); begin < num_rows; begin = next.fetch_add(kChunk)) {
      for (int64_t row = begin; row < std::min(begin + kChunk, num_rows); ++row) body(row);
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

MatrixRows ConcatRows(std::vector<MatrixRows> parts) {
  MatrixRows all{.n = 0, .k = parts.front().k};
  for (const MatrixRows& part : parts) {
    MILLRACE_CHECK(part.k == all.k, "matrices to be joined differ in their inputs");
    all.n += part.n;
  }
  all.read = [parts = std::move(parts)](int64_t row, float* out) {
    for (const MatrixRows& part : parts) {
      if (row < part.n) return part.read(row, out);
      row -= part.n;
    }
  };
  return all;
}

std::unique_ptr<BuiltWeight> BuildWeight(const MatrixRows& rows, const WeightKind& kind) {
  auto built = std::make_unique<BuiltWeight>();
  const int64_t n = rows.n, k = rows.k;
  const int64_t group = kind.GroupFor(k) > 0 ? kind.GroupFor(k) : k;
  const size_t row_bytes = kind.format == WeightFormat::kDense  ? static_cast<size_t>(k) * DTypeBytes(kind.dtype)
                           : kind.format == WeightFormat::kInt8 ? static_cast<size_t>(k)
                                                                : static_cast<size_t>(k) / 2;
  built->values.resize(static_cast<size_t>(n) * row_bytes);
  if (kind.format != WeightFormat::kDense) built->scales.resize(static_cast<size_t>(n * (k / group)));
  ForEachRow(n, [&](int64_t row) {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(k));
    rows.read(row, values.data());
    uint8_t* out = built->values.data() + static_cast<size_t>(row) * row_bytes;
    if (kind.format == WeightFormat::kDense) return ConvertRow(values.data(), k, kind.dtype, out);
    float* scales = built->scales.data() + row * (k / group);
    for (int64_t g = 0; g < k / group; ++g) {
      const float* group_values = values.data() + g * group;
      if (kind.format == WeightFormat::kInt8) {
        QuantizeInt8(group_values, group, reinterpret_cast<int8_t*>(out) + g * group, scales + g);
      } else {
        QuantizeInt4(group_values, group, out + g * group / 2, scales + g);
      }
    }
  });
  built->source = {.format = kind.format,
                   .n = n,
                   .k = k,
                   .dtype = kind.dtype,
                   .values = built->values.data(),
                   .group_size = kind.format == WeightFormat::kDense ? 0 : kind.GroupFor(k),
                   .scales = built->scales.empty() ? nullptr : built->scales.data(),
                   .zeros = nullptr};
  return built;
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackRows(const MatrixRows& rows, const WeightKind& kind, Ops& ops) {
  return ops.Pack(BuildWeight(rows, kind)->source);
}

}  // namespace millrace
