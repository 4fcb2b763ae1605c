// SPDX-License-Identifier: Apache-2.0
#pragma once
// The page a token lies in, without a division on the device.
#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

// Divides tokens, which are below 2^31, by those of a page, d (Granlund and Montgomery, PLDI 1994): where 2^l is the
// first power of two from d on, a token times ceil(2^(31 + l) / d) exceeds the quotient times 2^(31 + l) by less than
// 2^(31 + l) / d, too little to reach the next quotient.
struct PageDivisor {
  uint32_t multiplier;
  uint32_t num_bits;

  static PageDivisor Of(int page_tokens) {
    const auto divisor = static_cast<uint64_t>(page_tokens);
    uint32_t num_bits = 0;
    while (uint64_t{1} << num_bits < divisor) ++num_bits;
    return {static_cast<uint32_t>(((uint64_t{1} << (31 + num_bits)) + divisor - 1) / divisor), num_bits};
  }
  __host__ __device__ int32_t Divide(int32_t token) const {
    const uint64_t product = static_cast<uint64_t>(2 * static_cast<uint32_t>(token)) * multiplier;
    return static_cast<int32_t>(static_cast<uint32_t>(product >> 32) >> num_bits);
  }
};

}  // namespace millrace::cuda
