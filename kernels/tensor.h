// SPDX-License-Identifier: Apache-2.0
#pragma once
// Views of memory and of weight matrices, shared by every backend. A view owns nothing and names no device type;
// whoever made the memory frees it. Immutable after construction, so any thread may read one.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace millrace {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kU8, kI32, kF8E4M3 };

constexpr size_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kF8E4M3:
      return 1;
  }
  return 0;
}
std::string_view DTypeName(DType dtype);  // "float32", "float16", "bfloat16", "int8", "uint8", "int32", "fp8_e4m3"

// A matrix view: `rows` rows of `cols` elements, row starts `stride` elements apart (stride >= cols).
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};

// How the numbers of a weight matrix are stored.
enum class WeightFormat : uint8_t {
  kDense,  // F32, F16 or BF16
  kInt8,   // int8, w = q * scale; one scale per output channel, or per group of group_size along K
  kInt4,   // 4 bits, w = (q - zero) * scale; one scale (and zero) per group of group_size along K
};

// A weight matrix as it comes from a file or a quantiser: W [N, K], row-major, y = x * W^T. Input of Ops::Pack.
struct WeightSource {
  WeightFormat format = WeightFormat::kDense;
  int64_t n = 0;                   // output channels
  int64_t k = 0;                   // input channels
  DType dtype = DType::kBF16;      // kDense: element type of `values`
  const void* values = nullptr;    // kDense [N, K]; kInt8 int8 [N, K]; kInt4 uint8 [N, K/2], low nibble = even k, 0..15
  int group_size = 0;              // 0: one group per row (kInt8 only); else 32, 64 or 128, dividing K
  const float* scales = nullptr;   // [N, K/group_size] ([N] when group_size is 0)
  const uint8_t* zeros = nullptr;  // kInt4: [N, K/group_size] in 0..15; null means symmetric, zero = 8
};

// A weight matrix in a backend's own layout. Made once at load by Ops::Pack, read by Ops::Matmul.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual WeightFormat format() const = 0;
  virtual int64_t n() const = 0;
  virtual int64_t k() const = 0;
  virtual size_t num_bytes() const = 0;  // memory it holds, scales and padding included
};

}  // namespace millrace
