// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_reference.h"

#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/dtype_convert.h"
#include "kernels/cpu/quantize.h"
#include "kernels/status_macros.h"

namespace millrace::cpu {
namespace {

absl::Status CopyInto(const void* source, size_t num_bytes, PageBuffer& buffer) {
  ASSIGN_OR_RETURN(buffer, PageBuffer::Allocate(num_bytes));
  if (num_bytes != 0) std::memcpy(buffer.data(), source, num_bytes);
  return absl::OkStatus();
}

float DenseValue(const CpuPackedWeight& w, int64_t index) {
  const void* data = w.data.data();
  switch (w.dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[index];
    case DType::kF16:
      return FloatFromF16(static_cast<const uint16_t*>(data)[index]);
    default:
      return FloatFromBf16(static_cast<const uint16_t*>(data)[index]);
  }
}

float DenseDot(const CpuPackedWeight& w, int64_t n, const float* x) {
  float sum = 0;
  const bool is_bf16 = w.dtype == DType::kBF16;
  for (int64_t k = 0; k < w.num_inputs; ++k) {
    const float value = is_bf16 ? FloatFromBf16(Bf16FromFloat(x[k])) : x[k];
    sum += value * DenseValue(w, n * w.num_inputs + k);
  }
  return sum;
}

int WeightValue(const CpuPackedWeight& w, int64_t n, int64_t k) {
  if (w.source_format == WeightFormat::kInt8) return static_cast<int8_t>(w.data.data()[n * w.num_inputs + k]);
  const uint8_t pair = w.data.data()[n * (w.num_inputs / 2) + k / 2];
  return k % 2 == 0 ? pair & 15 : pair >> 4;
}

// `q` and `x_scales`: the quantised row, one scale per group.
float QuantizedDot(const CpuPackedWeight& w, int64_t n, const int8_t* q, const float* x_scales) {
  const int64_t group_size = w.group_size == 0 ? w.num_inputs : w.group_size;
  const int64_t num_groups = w.num_inputs / group_size;
  const float* w_scales = reinterpret_cast<const float*>(w.scales.data()) + n * num_groups;
  float sum = 0;
  for (int64_t group = 0; group < num_groups; ++group) {
    int zero = w.source_format == WeightFormat::kInt4 ? 8 : 0;
    if (w.has_zeros) zero = w.zeros.data()[n * num_groups + group];
    int64_t exact = 0;
    for (int64_t k = group * group_size; k < (group + 1) * group_size; ++k) {
      exact += static_cast<int64_t>(q[k]) * (WeightValue(w, n, k) - zero);
    }
    sum += static_cast<float>(exact) * (x_scales[group] * w_scales[group]);
  }
  return sum;
}

}  // namespace

absl::Status PackReference(const WeightSource& source, CpuPackedWeight& packed) {
  const size_t count = static_cast<size_t>(source.n) * source.k;
  if (source.format == WeightFormat::kDense) {
    return CopyInto(source.values, count * DTypeBytes(source.dtype), packed.data);
  }
  const size_t num_groups = static_cast<size_t>(source.n) * (source.group_size == 0 ? 1 : source.k / source.group_size);
  const size_t data_bytes = source.format == WeightFormat::kInt4 ? count / 2 : count;
  RETURN_IF_ERROR(CopyInto(source.values, data_bytes, packed.data));
  RETURN_IF_ERROR(CopyInto(source.scales, num_groups * sizeof(float), packed.scales));
  if (source.zeros != nullptr) RETURN_IF_ERROR(CopyInto(source.zeros, num_groups, packed.zeros));
  return absl::OkStatus();
}

void MatmulReference(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace) {
  const CpuPackedWeight& w = static_cast<const CpuPackedWeight&>(*args.w);
  const int64_t num_inputs = w.num_inputs;
  const int64_t group_size = w.group_size == 0 ? num_inputs : w.group_size;
  // One row at a time: its quantised values at the front of the workspace, its scales behind them.
  int8_t* q = reinterpret_cast<int8_t*>(workspace.memory.data());
  float* x_scales = reinterpret_cast<float*>(workspace.memory.data() + (num_inputs + 63) / 64 * 64);
  for (int64_t row = 0; row < args.x.rows; ++row) {
    const float* x = static_cast<const float*>(args.x.data) + row * args.x.stride;
    float* out = static_cast<float*>(args.out.data) + row * args.out.stride;
    const float* residual =
        args.residual == nullptr ? nullptr : static_cast<const float*>(args.residual) + row * args.out.stride;
    if (w.source_format != WeightFormat::kDense) {
      for (int64_t k = 0; k < num_inputs; k += group_size) {
        x_scales[k / group_size] = QuantizeInt8(x + k, group_size, q + k);
      }
    }
    context.pool.ParallelFor(w.num_outputs, [&](int64_t begin, int64_t end, int) {
      for (int64_t n = begin; n < end; ++n) {
        float y = w.source_format == WeightFormat::kDense ? DenseDot(w, n, x) : QuantizedDot(w, n, q, x_scales);
        if (args.bias != nullptr) y += args.bias[n];
        if (residual != nullptr) y += residual[n];
        out[n] = y;
      }
    });
  }
}

}  // namespace millrace::cpu
