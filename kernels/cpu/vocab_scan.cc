// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/vocab_scan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace millrace::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The plain twins of sample_simd.h.
bool BlockMaximaPlain(const float* logits, int64_t vocab, float* maxima) {
  for (int64_t begin = 0; begin < vocab; begin += kSampleBlock) {
    float largest = kNever;
    for (int64_t i = begin; i < std::min(begin + kSampleBlock, vocab); ++i) {
      if (std::isnan(logits[i]) || logits[i] == -kNever) return false;
      largest = std::max(largest, logits[i]);
    }
    *maxima++ = largest;
  }
  return true;
}

void WeighPlain(const float* logits, int64_t count, float largest, float temperature, float* weights) {
  for (int64_t i = 0; i < count; ++i) weights[i] = std::exp((logits[i] - largest) / temperature);
}

void BlockSumsPlain(const float* logits, int64_t vocab, float largest, float temperature, float* sums) {
  for (int64_t begin = 0; begin < vocab; begin += kSampleBlock) {
    double sum = 0;
    for (int64_t i = begin; i < std::min(begin + kSampleBlock, vocab); ++i) {
      sum += std::exp((logits[i] - largest) / temperature);
    }
    *sums++ = static_cast<float>(sum);
  }
}

int64_t CollectPlain(const float* logits, int64_t vocab, float threshold, int32_t* ids, float* values) {
  int64_t num_found = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    if (!(logits[i] >= threshold)) continue;
    ids[num_found] = static_cast<int32_t>(i);
    values[num_found++] = logits[i];
  }
  return num_found;
}

int64_t CountAtLeastPlain(const float* logits, int64_t vocab, float threshold) {
  return std::count_if(logits, logits + vocab, [&](float logit) { return logit >= threshold; });
}

void ForbidPlain(float* logits, int64_t vocab, const uint32_t* mask) {
  for (int64_t i = 0; i < vocab; ++i) {
    const bool is_allowed = (mask[i / 32] >> (i % 32) & 1u) != 0;
    if (!is_allowed && !std::isnan(logits[i])) logits[i] = kNever;
  }
}

SampleKernels KernelsOf(CpuPath path) {
  if (path == CpuPath::kAvx512) return SampleKernelsAvx512();
  if (path == CpuPath::kAvx2) return SampleKernelsAvx2();
  return {.block_maxima = BlockMaximaPlain,
          .block_sums = BlockSumsPlain,
          .weigh = WeighPlain,
          .collect = CollectPlain,
          .count_at_least = CountAtLeastPlain,
          .forbid = ForbidPlain};
}

}  // namespace

void VocabScan::Reserve(int64_t vocab, CpuPath path) {
  kernels_ = KernelsOf(path);
  if (static_cast<int64_t>(values_.size()) >= vocab) return;
  const size_t count = static_cast<size_t>(vocab);
  const size_t blocks = static_cast<size_t>((vocab + kSampleBlock - 1) / kSampleBlock);
  values_.resize(count);
  ordered_.resize(count);
  ids_.resize(count);
  collected_.resize(count);
  maxima_.resize(blocks);
  sums_.resize(blocks);
}

int32_t VocabScan::FindLargest(const float* logits, int64_t vocab) {
  logits_ = logits;
  vocab_ = vocab;
  if (vocab == 0 || !kernels_.block_maxima(logits, vocab, maxima_.data())) return -1;
  const auto end = maxima_.begin() + num_blocks();
  const auto best = std::max_element(maxima_.begin(), end);
  largest_ = *best;
  if (largest_ == kNever) return -1;
  const float* at = logits + (best - maxima_.begin()) * kSampleBlock;
  while (*at != largest_) ++at;
  return static_cast<int32_t>(at - logits);
}

double VocabScan::SumWeights(float temperature) {
  kernels_.block_sums(logits_, vocab_, largest_, temperature, sums_.data());
  double total = 0;
  for (int64_t block = 0; block < num_blocks(); ++block) total += sums_[static_cast<size_t>(block)];
  return total;
}

int32_t VocabScan::FindAtWeight(double left, float temperature) {
  // Rounding may leave a little over at the end: the last block, and in it the last id, with any weight is taken then.
  int64_t chosen = 0;
  double left_in_chosen = left;
  for (int64_t block = 0; block < num_blocks(); ++block) {
    const float sum = sums_[static_cast<size_t>(block)];
    if (sum == 0) continue;
    chosen = block;
    left_in_chosen = left;
    left -= sum;
    if (left < 0) break;
  }
  const int64_t begin = chosen * kSampleBlock;
  const int64_t count = std::min(kSampleBlock, vocab_ - begin);
  float weights[kSampleBlock];
  kernels_.weigh(logits_ + begin, count, largest_, temperature, weights);
  int64_t last = begin;
  for (int64_t i = 0; i < count && left_in_chosen >= 0; ++i) {
    if (weights[i] == 0) continue;
    last = begin + i;
    left_in_chosen -= weights[i];
  }
  return static_cast<int32_t>(last);
}

float VocabScan::KthLargest(const float* values, int64_t count, int64_t k) {
  std::copy_n(values, count, ordered_.begin());
  const auto kth = ordered_.begin() + (k - 1);
  std::nth_element(ordered_.begin(), kth, ordered_.begin() + count, std::greater<>());
  return *kth;
}

absl::Span<TokenLogprob> VocabScan::Collect(float threshold, int64_t top_k) {
  const bool is_limited = top_k > 0 && top_k < vocab_;
  // At least k logits reach the k-th largest of the blocks' maxima, so the k best are among those that do: few.
  if (is_limited && top_k <= num_blocks()) {
    threshold = std::max(threshold, KthLargest(maxima_.data(), num_blocks(), top_k));
  }
  const int64_t num_found = kernels_.collect(logits_, vocab_, threshold, ids_.data(), values_.data());
  float least = kNever;
  if (is_limited && num_found > top_k) least = KthLargest(values_.data(), num_found, top_k);
  size_t num_kept = 0;
  for (size_t i = 0; i < static_cast<size_t>(num_found); ++i) {
    if (values_[i] < least || values_[i] == kNever) continue;
    collected_[num_kept++] = {.token = ids_[i], .logprob = values_[i]};
  }
  return absl::MakeSpan(collected_.data(), num_kept);
}

void VocabScan::Weigh(absl::Span<TokenLogprob> collected, float temperature) {
  for (size_t i = 0; i < collected.size(); ++i) values_[i] = collected[i].logprob;
  kernels_.weigh(values_.data(), static_cast<int64_t>(collected.size()), largest_, temperature, ordered_.data());
  for (size_t i = 0; i < collected.size(); ++i) collected[i].logprob = ordered_[i];
}

int64_t VocabScan::CountAtLeast(float threshold) const { return kernels_.count_at_least(logits_, vocab_, threshold); }

void VocabScan::Forbid(float* logits, int64_t vocab, const uint32_t* mask) const {
  kernels_.forbid(logits, vocab, mask);
}

}  // namespace millrace::cpu
