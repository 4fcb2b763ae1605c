// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_weight.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/dtype_convert.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

absl::Status CheckSource(const WeightSource& source) {
  const auto refuse = [&](std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("a weight of ", source.n, " x ", source.k, " in groups of ",
                                                   source.group_size, ": ",
                                                   absl::string_view(what.data(), what.size())));
  };
  if (source.n < 1 || source.k < 1) return refuse("a matrix has rows and columns");
  if (source.values == nullptr) return refuse("it has no values");
  if (source.format == WeightFormat::kDense) {
    const bool is_float = source.dtype == DType::kF32 || source.dtype == DType::kF16 || source.dtype == DType::kBF16;
    return is_float ? absl::OkStatus() : refuse("dense weights are float32, float16 or bfloat16");
  }
  if (source.scales == nullptr) return refuse("it has no scales");
  const int group = source.group_size;
  if (group == 0) return source.format == WeightFormat::kInt8 ? absl::OkStatus() : refuse("int4 is stored in groups");
  if ((group != 32 && group != 64 && group != 128) || source.k % group != 0) {
    return refuse("groups are 32, 64 or 128 columns that divide a row");
  }
  return absl::OkStatus();
}

float ToFloat(const void* values, DType dtype, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(values)[index];
  const uint16_t bits = static_cast<const uint16_t*>(values)[index];
  return dtype == DType::kBF16 ? cpu::FloatFromBf16(bits) : cpu::FloatFromF16(bits);
}

std::vector<uint8_t> Rounded(const WeightSource& source, DType dtype) {
  const size_t count = static_cast<size_t>(source.n) * static_cast<size_t>(source.k);
  std::vector<uint8_t> values(count * sizeof(uint16_t));
  for (size_t i = 0; i < count; ++i) {
    const float value = ToFloat(source.values, source.dtype, static_cast<int64_t>(i));
    const uint16_t bits = dtype == DType::kBF16 ? cpu::Bf16FromFloat(value) : cpu::F16FromFloat(value);
    std::memcpy(values.data() + i * sizeof(bits), &bits, sizeof(bits));
  }
  return values;
}

// Rows without padding, and a scale a row if any: the device keeps them as they came.
bool IsLaidOut(const WeightSource& source, const PackedWeightSizes& sizes) {
  if (source.format == WeightFormat::kInt4 || source.group_size != 0) return false;
  const size_t item_bytes = source.format == WeightFormat::kDense ? DTypeBytes(source.dtype) : 1;
  return sizes.values_bytes == static_cast<size_t>(source.n) * static_cast<size_t>(source.k) * item_bytes;
}

absl::Span<const uint8_t> Bytes(const void* data, size_t num_bytes) {
  return absl::MakeConstSpan(static_cast<const uint8_t*>(data), num_bytes);
}

}  // namespace

absl::StatusOr<WeightOnHost> PackOnHost(const WeightSource& given, DType dense_dtype) {
  RETURN_IF_ERROR(CheckSource(given));
  WeightSource source = given;
  std::vector<uint8_t> rounded;
  if (source.format == WeightFormat::kDense && source.dtype != dense_dtype) {
    rounded = Rounded(source, dense_dtype);
    source.dtype = dense_dtype;
    source.values = rounded.data();
  }
  const PackedWeightSizes sizes = PackedSizes({.format = source.format,
                                               .dtype = source.dtype,
                                               .n = source.n,
                                               .k = source.k,
                                               .group_size = source.group_size,
                                               .has_zeros = source.zeros != nullptr});
  WeightOnHost host;
  if (IsLaidOut(source, sizes)) {
    host.parts[0] = Bytes(source.values, sizes.values_bytes);
    host.parts[1] = Bytes(source.scales, sizes.scales_bytes);
    host.packed[0] = std::move(rounded);  // which the values may be
    host.weight = {.format = source.format, .dtype = source.dtype, .n = source.n, .k = source.k, .stride = source.k};
    return host;
  }
  host.packed[0].resize(sizes.values_bytes);
  host.packed[1].resize(sizes.scales_bytes);
  host.packed[2].resize(sizes.zeros_bytes);
  host.weight = PackWeight(source, {host.packed[0].data(), host.packed[1].data(), host.packed[2].data()});
  for (size_t i = 0; i < host.parts.size(); ++i) host.parts[i] = host.packed[i];
  return host;
}

absl::StatusOr<std::unique_ptr<CudaWeight>> CudaWeight::Pack(const WeightSource& source, DType dense_dtype,
                                                             CudaStream& stream) {
  ASSIGN_OR_RETURN(const WeightOnHost host, PackOnHost(source, dense_dtype));
  const std::array<absl::Span<const uint8_t>, 3>& parts = host.parts;
  auto weight = std::make_unique<CudaWeight>();
  weight->weight_ = host.weight;
  std::array<const void**, 3> pointers = {&weight->weight_.values, &weight->weight_.scales, &weight->weight_.zeros};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    ASSIGN_OR_RETURN(weight->memory_[i], DeviceMemory::Allocate(parts[i].size(), stream));
    *pointers[i] = weight->memory_[i]->data();
    stream.Keep(cudaMemcpyAsync(weight->memory_[i]->data(), parts[i].data(), parts[i].size(), cudaMemcpyHostToDevice,
                                stream.get()),
                "copying a weight");
  }
  RETURN_IF_ERROR(stream.Synchronize());  // the parts go away
  return weight;
}

size_t CudaWeight::NumBytes(const WeightShape& shape) {
  const PackedWeightSizes sizes = PackedSizes(shape);
  return sizes.values_bytes + sizes.scales_bytes + sizes.zeros_bytes;
}

size_t CudaWeight::num_bytes() const {
  size_t sum = 0;
  for (const auto& memory : memory_) sum += memory == nullptr ? 0 : memory->num_bytes();
  return sum;
}

}  // namespace millrace::cuda
