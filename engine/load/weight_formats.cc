// SPDX-License-Identifier: Apache-2.0
#include "engine/load/weight_formats.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/load/gguf_model.h"
#include "engine/load/model_shape.h"
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

std::string MethodName(CheckpointQuantization::Method method) {
  switch (method) {
    case CheckpointQuantization::Method::kNone:
      return "";
    case CheckpointQuantization::Method::kGptq:
      return "gptq";
    case CheckpointQuantization::Method::kAwq:
      return "awq";
    case CheckpointQuantization::Method::kMillrace:
      return "millrace";
  }
  return "";
}

WeightKind StoredKind(const CheckpointQuantization& quantization) {
  if (quantization.bits == 8) return {.format = WeightFormat::kInt8};
  const int group = quantization.group_size;
  return {.format = WeightFormat::kInt4, .group_size = group == 32 || group == 64 ? group : 128};
}

}  // namespace

int WeightKind::GroupFor(int64_t k) const {
  if (format != WeightFormat::kInt4) return group_size;
  for (int size = group_size; size > 32; size /= 2) {
    if (k % size == 0) return size;
  }
  return 32;
}

DType DeviceActivations(const ModelInfo& info, const LoadOptions& options) {
  if (options.dtype != "auto") return options.dtype == "float16" ? DType::kF16 : DType::kBF16;
  const bool stays_dense = info.quantization.method == CheckpointQuantization::Method::kNone &&
                           options.quantization.empty() && !IsGgufPath(info.source);
  return stays_dense && info.dtype_name == "float16" ? DType::kF16 : DType::kBF16;
}

LoadOptions OptionsFor(LoadOptions options, DType activation_dtype) {
  if (options.dtype == "auto" && activation_dtype != DType::kF32) options.dtype = DTypeName(activation_dtype);
  return options;
}

absl::StatusOr<WeightFormats> ChooseWeightFormats(const ModelInfo& info, const LoadOptions& options) {
  WeightFormats formats;
  ASSIGN_OR_RETURN(formats.embedding, DenseDType(options.dtype, info.dtype_name));
  formats.linear = {.format = WeightFormat::kDense, .dtype = formats.embedding};
  formats.lm_head = formats.linear;
  const std::string method = MethodName(info.quantization.method);
  const bool is_stored_method = !method.empty() && (options.quantization.empty() || options.quantization == method);
  if (is_stored_method) {
    // Random weights take the format that the checkpoint's own would have had.
    if (options.load_format == "dummy") formats.linear = StoredKind(info.quantization);
    formats.lm_head = {.format = WeightFormat::kInt8};
    return formats;
  }
  if (options.quantization.empty()) return formats;
  if (!method.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--quantization ", options.quantization, ": the checkpoint is already quantised (", method, ")"));
  }
  formats.may_keep_stored = false;
  if (options.quantization == "int8") {
    formats.linear = {.format = WeightFormat::kInt8};
  } else if (options.quantization == "int4" || options.quantization == "int4-g32") {
    formats.linear = {.format = WeightFormat::kInt4, .group_size = options.quantization == "int4" ? 128 : 32};
    for (const int64_t k : {int64_t{info.hidden_dim}, int64_t{DenseFfnDim(info)}, int64_t{info.experts.ffn_dim},
                            int64_t{info.num_heads} * info.head_dim}) {
      if (k % 32 != 0) {
        const int32_t num_ranks = info.part.num_ranks;
        return absl::InvalidArgumentError(absl::StrCat(
            "--quantization ", options.quantization, " needs inputs in multiples of 32; this model has a matrix with ",
            k, num_ranks > 1 ? absl::StrCat(" for each of ", num_ranks, " ranks") : ""));
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
