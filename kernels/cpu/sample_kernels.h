// SPDX-License-Identifier: Apache-2.0
#pragma once
// The passes over a whole vocabulary that one instruction set brings to sampling; everything after them works on few
// numbers and is plain. Plain types only (see matmul_kernels.h for why). Stateless; any thread.
#include <cstdint>

namespace millrace::cpu {

constexpr int64_t kSampleBlock = 256;  // logits; the unit of the two passes that summarise

struct SampleKernels {
  // Largest logit of each block. False when a logit is NaN or plus infinity (the maxima then mean nothing).
  bool (*block_maxima)(const float* logits, int64_t vocab, float* maxima) = nullptr;
  // Sum of e^((logit - largest) / temperature) of each block, in one fixed order.
  void (*block_sums)(const float* logits, int64_t vocab, float largest, float temperature, float* sums) = nullptr;
  // The terms of those sums.
  void (*weigh)(const float* logits, int64_t count, float largest, float temperature, float* weights) = nullptr;
  // Ids and logits of those at or above the threshold, in order of id; returns how many.
  int64_t (*collect)(const float* logits, int64_t vocab, float threshold, int32_t* ids, float* values) = nullptr;
  int64_t (*count_at_least)(const float* logits, int64_t vocab, float threshold) = nullptr;
  // Minus infinity where the mask's bit is clear; NaN stays.
  void (*forbid)(float* logits, int64_t vocab, const uint32_t* mask) = nullptr;
};

SampleKernels SampleKernelsAvx512();
SampleKernels SampleKernelsAvx2();

}  // namespace millrace::cpu
