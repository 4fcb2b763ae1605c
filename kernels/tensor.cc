// SPDX-License-Identifier: Apache-2.0
#include "kernels/tensor.h"

namespace millrace {

std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    case DType::kI8:
      return "int8";
    case DType::kU8:
      return "uint8";
    case DType::kI32:
      return "int32";
    case DType::kF8E4M3:
      return "fp8_e4m3";
  }
  return "unknown";
}

}  // namespace millrace
