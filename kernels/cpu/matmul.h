// SPDX-License-Identifier: Apache-2.0
#pragma once
// y = x * W^T on the CPU: packing of weights, and the choice between the plain and the fast kernels.
//
//   dense   BF16: x rounded to bfloat16 (avx512) or kept float32; F16 and F32: x and sums in float32
//   int8    one scale per output channel: x quantised per row, y = (sum of q_x * q_w) * s_x * s_w, the sum exact
//   grouped (int8 and int4 with a scale per group of K): x quantised per row and group; the sum of a group is exact,
//           groups are added in float32 in rising order of k
//
// The sums of one output run along k in an order that depends on neither the other rows nor the number of rows or
// threads: a row's result is the same bits alone or in a batch. Owned by CpuOps; engine thread.
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cpu/op_context.h"
#include "kernels/cpu/page_buffer.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace millrace::cpu {

// A weight in the layout of one path. `data` holds what matmul_layout.h describes; kReference keeps the source's.
struct CpuPackedWeight final : PackedWeight {
  WeightFormat format() const override { return source_format; }
  int64_t n() const override { return num_outputs; }
  int64_t k() const override { return num_inputs; }
  size_t num_bytes() const override { return data.num_bytes() + scales.num_bytes() + zeros.num_bytes(); }

  WeightFormat source_format = WeightFormat::kDense;
  CpuPath path = CpuPath::kReference;
  DType dtype = DType::kBF16;  // kDense: element type
  int64_t num_outputs = 0;
  int64_t num_inputs = 0;
  int group_size = 0;  // 0: one scale per output (kInt8) or none (kDense)
  bool has_zeros = false;
  float scale_unit = 1.0f;  // grouped panels keep scales as float16 in this unit
  PageBuffer data;
  PageBuffer scales;  // float32, where they do not lie in the panels
  PageBuffer zeros;   // kReference only
};

// InvalidArgument names a shape, a group or a missing pointer; ResourceExhausted when memory is not to be had.
absl::StatusOr<std::unique_ptr<CpuPackedWeight>> PackWeight(const WeightSource& source, const OpContext& context);
size_t PackedWeightBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size, CpuPath path);

// Scratch of Matmul: converted activations of one block of rows. Grown by Reserve only.
struct MatmulWorkspace {
  static size_t BytesFor(int64_t max_rows, int64_t max_k, int num_threads);
  absl::Status Reserve(int64_t max_rows, int64_t max_k, int num_threads);

  int64_t max_rows = 0;
  int64_t max_k = 0;
  PageBuffer memory;
};

// REQUIRES: args as in ops.h, float32 x and out, w made by PackWeight for this path, a workspace large enough.
void Matmul(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace);

}  // namespace millrace::cpu
