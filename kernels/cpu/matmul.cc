// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/matmul_layout.h"
#include "kernels/cpu/matmul_panels.h"
#include "kernels/cpu/matmul_reference.h"
#include "kernels/status_macros.h"

namespace millrace::cpu {
namespace {

// Keeps every 32-bit sum of products exact: 127 * 255 * 2^16 < 2^31.
constexpr int64_t kMaxInt8Inputs = int64_t{1} << 16;
constexpr int64_t kMaxDimension = int64_t{1} << 31;

absl::Status CheckSource(const WeightSource& source) {
  if (source.n <= 0 || source.k <= 0 || source.n > kMaxDimension || source.k > kMaxDimension) {
    return absl::InvalidArgumentError(absl::StrCat("weight shape [", source.n, ", ", source.k, "] is not possible"));
  }
  if (source.values == nullptr) return absl::InvalidArgumentError("weight has no values");
  if (source.format == WeightFormat::kDense) {
    const bool is_float = source.dtype == DType::kF32 || source.dtype == DType::kF16 || source.dtype == DType::kBF16;
    if (is_float) return absl::OkStatus();
    return absl::InvalidArgumentError("a dense weight must be float32, float16 or bfloat16");
  }
  if (source.scales == nullptr) return absl::InvalidArgumentError("quantised weight has no scales");
  const int group = source.group_size;
  if (group == 0 && source.format == WeightFormat::kInt4) {
    return absl::InvalidArgumentError("int4 weight needs a group size");
  }
  if (group == 0 && source.k > kMaxInt8Inputs) {
    return absl::InvalidArgumentError(absl::StrCat("int8 weight with ", source.k, " inputs: at most ", kMaxInt8Inputs));
  }
  if (group != 0 && group != 32 && group != 64 && group != 128) {
    return absl::InvalidArgumentError(absl::StrCat("group size ", group, " is not 32, 64 or 128"));
  }
  if (group != 0 && source.k % group != 0) {
    return absl::InvalidArgumentError(absl::StrCat("group size ", group, " does not divide ", source.k, " inputs"));
  }
  return absl::OkStatus();
}

bool HasPanels(CpuPath path) { return path != CpuPath::kReference; }

}  // namespace

absl::StatusOr<std::unique_ptr<CpuPackedWeight>> PackWeight(const WeightSource& source, const OpContext& context) {
  RETURN_IF_ERROR(CheckSource(source));
  auto packed = std::make_unique<CpuPackedWeight>();
  packed->source_format = source.format;
  packed->path = context.path;
  packed->dtype = source.dtype;
  packed->num_outputs = source.n;
  packed->num_inputs = source.k;
  packed->group_size = source.format == WeightFormat::kDense ? 0 : source.group_size;
  packed->has_zeros = source.format == WeightFormat::kInt4 && source.zeros != nullptr;
  RETURN_IF_ERROR(HasPanels(context.path) ? PackPanels(source, context, *packed) : PackReference(source, *packed));
  return packed;
}

size_t PackedWeightBytes(WeightFormat format, DType dtype, int64_t n, int64_t k, int group_size, CpuPath path) {
  if (HasPanels(path)) {
    const PanelLayout layout = PanelLayoutFor({.format = format,
                                               .dtype = dtype,
                                               .n = n,
                                               .k = k,
                                               .group_size = group_size,
                                               .has_zeros = format == WeightFormat::kInt4},
                                              path);
    const bool has_channel_scales = format == WeightFormat::kInt8 && group_size == 0;
    const int64_t scales_bytes = has_channel_scales ? layout.num_panels * layout.num_channels * 4 : 0;
    return static_cast<size_t>(layout.num_panels * layout.panel_bytes() + scales_bytes);
  }
  const size_t count = static_cast<size_t>(n) * k;
  if (format == WeightFormat::kDense) return count * DTypeBytes(dtype);
  const size_t num_groups = static_cast<size_t>(n) * (group_size == 0 ? 1 : k / group_size);
  const size_t zeros_bytes = format == WeightFormat::kInt4 ? num_groups : 0;
  return (format == WeightFormat::kInt4 ? count / 2 : count) + num_groups * sizeof(float) + zeros_bytes;
}

size_t MatmulWorkspace::BytesFor(int64_t max_rows, int64_t max_k, int num_threads) {
  // The plain path needs one quantised row and its scales.
  const size_t reference_bytes = static_cast<size_t>(max_k + 64) + static_cast<size_t>(max_k / 32 + 1) * sizeof(float);
  return std::max(reference_bytes, PanelWorkspaceBytes(std::max<int64_t>(max_rows, 1), max_k, num_threads));
}

absl::Status MatmulWorkspace::Reserve(int64_t rows, int64_t k, int num_threads) {
  if (rows <= max_rows && k <= max_k) return absl::OkStatus();
  max_rows = std::max(rows, max_rows);
  max_k = std::max(k, max_k);
  memory = PageBuffer();
  ASSIGN_OR_RETURN(memory, PageBuffer::Allocate(BytesFor(max_rows, max_k, num_threads)));
  return absl::OkStatus();
}

void Matmul(const MatmulArgs& args, const OpContext& context, MatmulWorkspace& workspace) {
  const CpuPackedWeight& w = static_cast<const CpuPackedWeight&>(*args.w);
  MILLRACE_CHECK(w.path == context.path, "a weight must be packed by the device that multiplies it");
  MILLRACE_CHECK(args.x.dtype == DType::kF32 && args.out.dtype == DType::kF32, "CPU activations are float32");
  MILLRACE_CHECK(args.x.cols == w.num_inputs && args.out.cols == w.num_outputs && args.x.rows == args.out.rows,
                 "shapes of x, w and out must agree");
  MILLRACE_CHECK(w.num_inputs <= workspace.max_k, "ReserveWorkspace must cover the inputs of every weight");
  if (args.x.rows == 0) return;
  HasPanels(w.path) ? MatmulPanels(args, context, workspace) : MatmulReference(args, context, workspace);
}

}  // namespace millrace::cpu
