// SPDX-License-Identifier: Apache-2.0
#include "engine/load/weight_formats.h"

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

absl::StatusOr<DType> DenseDType(const std::string& wanted, const std::string& of_checkpoint) {
  const std::string name = wanted == "auto" ? of_checkpoint : wanted;
  if (name == "float32" || name == "float") return DType::kF32;
  if (name == "float16" || name == "half") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  if (wanted == "auto") return DType::kBF16;
  return absl::InvalidArgumentError(
      absl::StrCat("--dtype ", wanted, " is not one of auto, float32, float16, bfloat16"));
}

}  // namespace

int WeightKind::GroupFor(int64_t k) const {
  if (format != WeightFormat::kInt4) return group_size;
  for (int size = group_size; size > 32; size /= 2) {
    if (k % size == 0) return size;
  }
  return 32;
}

absl::StatusOr<WeightFormats> ChooseWeightFormats(const ModelInfo& info, const LoadOptions& options) {
  WeightFormats formats;
  ASSIGN_OR_RETURN(formats.embedding, DenseDType(options.dtype, info.dtype_name));
  formats.linear = {.format = WeightFormat::kDense, .dtype = formats.embedding};
  formats.lm_head = formats.linear;
  if (options.quantization.empty()) return formats;
  if (options.quantization == "int8") {
    formats.linear = {.format = WeightFormat::kInt8};
  } else if (options.quantization == "int4" || options.quantization == "int4-g32") {
    formats.linear = {.format = WeightFormat::kInt4, .group_size = options.quantization == "int4" ? 128 : 32};
    for (const int64_t k : {int64_t{info.hidden_dim}, int64_t{info.ffn_dim}, int64_t{info.num_heads} * info.head_dim}) {
      if (k % 32 != 0) {
        return absl::InvalidArgumentError(absl::StrCat("--quantization ", options.quantization, " needs inputs in ",
                                                       "multiples of 32; this model has a matrix with ", k));
      }
    }
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("--quantization ", options.quantization, " is not one of int8, int4, int4-g32"));
  }
  formats.lm_head = {.format = WeightFormat::kInt8};
  return formats;
}

}  // namespace millrace
