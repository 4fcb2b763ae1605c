// SPDX-License-Identifier: Apache-2.0
#include "engine/load/float_tensor.h"

#include <cstring>

#include "engine/load/float_bits.h"
#include "kernels/check.h"

namespace millrace {

std::optional<DType> FloatDType(std::string_view safetensors_dtype) {
  if (safetensors_dtype == "F32") return DType::kF32;
  if (safetensors_dtype == "F16") return DType::kF16;
  if (safetensors_dtype == "BF16") return DType::kBF16;
  return std::nullopt;
}

void ReadFloats(const void* data, DType dtype, int64_t first, int64_t count, float* out) {
  const char* bytes = static_cast<const char*>(data) + first * static_cast<int64_t>(DTypeBytes(dtype));
  if (dtype == DType::kF32) {
    std::memcpy(out, bytes, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  MILLRACE_CHECK(dtype == DType::kBF16 || dtype == DType::kF16, "only float formats are read as floats");
  uint16_t bits;
  if (dtype == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(&bits, bytes + 2 * i, sizeof(bits));
      out[i] = FromBFloat16(bits);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(&bits, bytes + 2 * i, sizeof(bits));
    out[i] = FromFloat16(bits);
  }
}

MatrixRows FloatRows(const void* data, DType dtype, int64_t n, int64_t k) {
  return {.n = n,
          .k = k,
          .read = [data, dtype, k](int64_t row, float* out) { ReadFloats(data, dtype, row * k, k, out); },
          .stored = {.data = data, .dtype = dtype}};
}

std::vector<float> FloatVector(const void* data, DType dtype, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  ReadFloats(data, dtype, 0, n, values.data());
  return values;
}

}  // namespace millrace
