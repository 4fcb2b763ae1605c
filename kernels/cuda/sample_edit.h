// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a row's lists do to its logits before the draw, by one block: bias, penalties, bans, in this order, as
// kernels/cpu/sample.cc does them; and its reversal, so that log-probabilities are of the logits as they came. Device
// code.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/common/ptx.h"
#include "kernels/cuda/sample_rows.h"

namespace millrace::cuda {

struct TokenList {
  const int32_t* tokens;
  int32_t count;
};

__device__ inline int32_t NumListed(const DeviceSampleRow& row) {
  return row.num_biased + row.num_banned + row.num_prompt + row.num_output;
}

// True for one thread per distinct token of the calls since `seen` [ceil(V/32)] was cleared.
__device__ inline bool IsFirstTouch(uint32_t* seen, int32_t token) {
  const uint32_t bit = 1u << (token % 32);
  return (atomicOr(&seen[token / 32], bit) & bit) == 0;
}

__device__ inline void ClearSeen(uint32_t* seen, int32_t vocab) {
  __syncthreads();  // nobody still asks
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < (vocab + 31) / 32; i += kSampleThreads) seen[i] = 0;
  __syncthreads();  // all of it is clear
}

template <typename Visit>
__device__ inline void ForEachToken(const TokenList& list, int32_t vocab, const Visit& visit) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < list.count; i += kSampleThreads) {
    const int32_t token = list.tokens[i];
    if (token >= 0 && token < vocab) visit(token, i);
  }
}

__device__ inline void AddBiases(const TokenList& biased, const float* biases, int32_t vocab, float* logits) {
  ForEachToken(biased, vocab, [&](int32_t token, int32_t at) {
    // A token named twice gets both numbers, one after the other, from the thread of the first.
    for (int32_t i = 0; i < at; ++i) {
      if (biased.tokens[i] == token) return;
    }
    float logit = logits[token];
    for (int32_t i = at; i < biased.count; ++i) {
      if (biased.tokens[i] == token) logit += biases[i];
    }
    logits[token] = logit;
  });
}

__device__ inline void Penalize(const DeviceSampleRow& row, const TokenList& prompt, const TokenList& output,
                                int32_t vocab, float* logits) {
  uint32_t* seen = ptx::SharedMemory<uint32_t>();
  if (row.repetition_penalty != 1) {
    ClearSeen(seen, vocab);
    const auto repeat = [&](int32_t token, int32_t /*at*/) {
      if (!IsFirstTouch(seen, token)) return;
      const float logit = logits[token];
      logits[token] = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    };
    ForEachToken(prompt, vocab, repeat);
    ForEachToken(output, vocab, repeat);
    __syncthreads();  // the next penalty reads what this one wrote
  }
  if (row.presence_penalty != 0) {
    ClearSeen(seen, vocab);
    ForEachToken(output, vocab, [&](int32_t token, int32_t /*at*/) {
      if (IsFirstTouch(seen, token)) logits[token] -= row.presence_penalty;
    });
    __syncthreads();  // as above
  }
  if (row.frequency_penalty != 0) {
    // All that is added to one logit is alike, so the order of the additions does not matter.
    ForEachToken(output, vocab,
                 [&](int32_t token, int32_t /*at*/) { atomicAdd(&logits[token], -row.frequency_penalty); });
    __syncthreads();  // as above
  }
}

__device__ inline void EditLogits(const SamplePass& pass, const DeviceSampleRow& row) {
  float* logits = pass.logits + row.row * pass.stride;
  const int32_t vocab = pass.vocab;
  const int32_t* tokens = pass.tokens + row.first_token;
  if (row.num_top_logprobs >= 0) {
    ForEachToken({tokens, NumListed(row)}, vocab,
                 [&](int32_t token, int32_t at) { pass.saved[row.first_token + at] = logits[token]; });
    __syncthreads();  // nothing is changed before it is saved
  }
  const TokenList biased = {tokens, row.num_biased};
  const TokenList banned = {biased.tokens + biased.count, row.num_banned};
  const TokenList prompt = {banned.tokens + banned.count, row.num_prompt};
  const TokenList output = {prompt.tokens + prompt.count, row.num_output};
  AddBiases(biased, pass.biases + row.first_bias, vocab, logits);
  __syncthreads();  // penalties read what the biases made
  Penalize(row, prompt, output, vocab, logits);
  ForEachToken(banned, vocab, [&](int32_t token, int32_t /*at*/) { logits[token] = Allowed(logits[token], false); });
}

__device__ inline void RestoreLogits(const SamplePass& pass, const DeviceSampleRow& row) {
  float* logits = pass.logits + row.row * pass.stride;
  // A token of several lists was saved several times, always the same.
  ForEachToken({pass.tokens + row.first_token, NumListed(row)}, pass.vocab,
               [&](int32_t token, int32_t at) { logits[token] = pass.saved[row.first_token + at]; });
}

}  // namespace millrace::cuda
