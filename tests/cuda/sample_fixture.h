// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rows to sample, run on the device, and what they should give: the CPU's order of edits and filters in plain code, the
// edits in float32 because they decide ties, the weights in double. Tests only.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/sample.h"
#include "kernels/rng.h"
#include "tests/cuda/harness.h"

namespace millrace::cuda_test {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// A row before its lists are laid into the common arrays.
struct RowToSample {
  cuda::DeviceSampleRow row;  // without what says where the lists are
  std::vector<float> logits;
  std::vector<int32_t> biased, banned, prompt, output;
  std::vector<float> biases;
  std::vector<uint32_t> mask;  // empty: all allowed
};

struct Sampled {
  std::vector<cuda::DeviceSampleResult> results;
  std::vector<cuda::DeviceTokenLogprob> top;  // [rows, kMaxTopLogprobs]
  std::vector<float> logits;                  // afterwards
};

inline bool HasFilters(const cuda::DeviceSampleRow& row) { return row.top_k > 0 || row.top_p < 1 || row.min_p > 0; }

// Runs all rows as one launch; logits lie in the opposite order of the rows, `padding` floats apart.
inline Sampled Sample(const std::vector<RowToSample>& asked, int64_t padding = 0) {
  const int64_t num_rows = static_cast<int64_t>(asked.size());
  const int64_t vocab = static_cast<int64_t>(asked[0].logits.size()), stride = vocab + padding;
  std::vector<float> logits(static_cast<size_t>(num_rows * stride), std::nanf(""));
  std::vector<cuda::DeviceSampleRow> rows;
  std::vector<int32_t> tokens(1, -7);  // so that no list begins at zero
  std::vector<float> biases(1, 1e9f);
  std::vector<uint32_t> masks;
  cuda::SampleFeatures features;
  for (const RowToSample& one : asked) {
    cuda::DeviceSampleRow row = one.row;
    const int64_t at = num_rows - 1 - static_cast<int64_t>(rows.size());
    std::copy(one.logits.begin(), one.logits.end(), logits.begin() + at * stride);
    row.row = one.row.row < -1 ? -1 : static_cast<int32_t>(at);  // -2: a row of padding
    row.first_token = static_cast<int32_t>(tokens.size());
    row.first_bias = static_cast<int32_t>(biases.size());
    row.num_biased = static_cast<int32_t>(one.biased.size());
    row.num_banned = static_cast<int32_t>(one.banned.size());
    row.num_prompt = static_cast<int32_t>(one.prompt.size());
    row.num_output = static_cast<int32_t>(one.output.size());
    for (const auto* list : {&one.biased, &one.banned, &one.prompt, &one.output}) {
      tokens.insert(tokens.end(), list->begin(), list->end());
    }
    biases.insert(biases.end(), one.biases.begin(), one.biases.end());
    if (!one.mask.empty()) {
      row.mask_row = static_cast<int32_t>(masks.size() / one.mask.size());
      masks.insert(masks.end(), one.mask.begin(), one.mask.end());
    }
    features.has_filters = features.has_filters || (row.temperature > 0 && HasFilters(row));
    features.has_logprobs = features.has_logprobs || row.num_top_logprobs >= 0;
    rows.push_back(row);
  }
  DeviceArray<float> device_logits(logits), device_biases(biases);
  DeviceArray<cuda::DeviceSampleRow> device_rows(rows);
  DeviceArray<int32_t> device_tokens(tokens);
  DeviceArray<uint32_t> device_masks(masks);
  DeviceArray<cuda::DeviceSampleResult> results(rows.size());
  DeviceArray<cuda::DeviceTokenLogprob> top(rows.size() * cuda::kMaxTopLogprobs);
  DeviceArray<uint8_t> workspace(cuda::SampleWorkspaceBytes(num_rows, vocab, static_cast<int64_t>(tokens.size())));
  const cuda::SampleLaunch launch = {
      .logits = {.data = device_logits.data(), .rows = num_rows, .cols = vocab, .stride = stride},
      .rows = device_rows.data(),
      .num_rows = static_cast<int>(num_rows),
      .features = features,
      .tokens = device_tokens.data(),
      .biases = device_biases.data(),
      .masks = device_masks.data(),
      .results = results.data(),
      .top = top.data(),
      .workspace = workspace.data()};
  EXPECT(cuda::LaunchSample(launch, nullptr) == cudaSuccess);
  return {results.Download(), top.Download(), device_logits.Download()};
}

// The logits after bias, penalties, bans and mask.
inline std::vector<float> Edited(const RowToSample& asked) {
  std::vector<float> logits = asked.logits;
  const int32_t vocab = static_cast<int32_t>(logits.size());
  const auto is_known = [&](int32_t token) { return token >= 0 && token < vocab; };
  for (size_t i = 0; i < asked.biased.size(); ++i) {
    if (is_known(asked.biased[i])) logits[static_cast<size_t>(asked.biased[i])] += asked.biases[i];
  }
  std::vector<bool> is_repeated(logits.size()), is_present(logits.size());
  for (const auto* list : {&asked.prompt, &asked.output}) {
    for (const int32_t token : *list) {
      if (!is_known(token) || is_repeated[static_cast<size_t>(token)]) continue;
      is_repeated[static_cast<size_t>(token)] = true;
      float& logit = logits[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / asked.row.repetition_penalty : logit * asked.row.repetition_penalty;
    }
  }
  for (const int32_t token : asked.output) {
    if (!is_known(token)) continue;
    float& logit = logits[static_cast<size_t>(token)];
    if (!is_present[static_cast<size_t>(token)]) logit -= asked.row.presence_penalty;
    is_present[static_cast<size_t>(token)] = true;
    logit -= asked.row.frequency_penalty;
  }
  for (const int32_t token : asked.banned) {
    if (is_known(token)) logits[static_cast<size_t>(token)] = kNever;
  }
  for (size_t i = 0; i < logits.size() && !asked.mask.empty(); ++i) {
    if ((asked.mask[i / 32] >> (i % 32) & 1u) == 0) logits[i] = kNever;
  }
  return logits;
}

struct ReferenceWeights {
  std::vector<double> weights;  // by id; 0: filtered out
  double total = 0;
  bool is_doubtful = false;  // rounding may move the end of top-p
};

inline ReferenceWeights Weights(const RowToSample& asked) {
  const std::vector<float> logits = Edited(asked);
  const cuda::DeviceSampleRow& row = asked.row;
  const float largest = *std::max_element(logits.begin(), logits.end());
  const float threshold = row.min_p > 0 ? largest + row.temperature * std::log(row.min_p) : kNever;
  std::vector<size_t> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= threshold && logits[i] != kNever) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < order.size()) {
    const float last = logits[order[static_cast<size_t>(row.top_k) - 1]];
    while (logits[order.back()] < last) order.pop_back();
  }
  ReferenceWeights reference{.weights = std::vector<double>(logits.size())};
  const auto weight_of = [&](size_t id) {
    return std::exp((static_cast<double>(logits[id]) - largest) / static_cast<double>(row.temperature));
  };
  double all = 0;
  for (const size_t id : order) all += weight_of(id);
  for (const size_t id : order) {
    if (row.top_p < 1 && reference.total > 0 && reference.total >= row.top_p * all) break;
    reference.weights[id] = weight_of(id);
    reference.total += reference.weights[id];
    if (row.top_p < 1 && std::fabs(reference.total / all - row.top_p) < 1e-6) reference.is_doubtful = true;
  }
  return reference;
}

// Whether a token is the one that the noise falls on, or a neighbour of it where rounding may decide.
inline bool IsDrawOf(const RowToSample& asked, const ReferenceWeights& reference, int32_t token) {
  constexpr double kRounding = 1e-5;
  if (token < 0 || reference.weights[static_cast<size_t>(token)] == 0) return false;
  double before = 0;
  for (int32_t i = 0; i < token; ++i) before += reference.weights[static_cast<size_t>(i)];
  const double noise = UniformNoise(asked.row.seed, asked.row.position) * reference.total;
  const double slack = kRounding * reference.total;
  return noise >= before - slack && noise <= before + reference.weights[static_cast<size_t>(token)] + slack;
}

inline std::vector<float> NormalLogits(Random& random, size_t count, float spread) {
  std::vector<float> logits(count);
  for (float& logit : logits) {
    float sum = 0;
    for (int i = 0; i < 12; ++i) sum += random.Float(-0.5f, 0.5f);
    logit = sum * spread;
  }
  return logits;
}

}  // namespace millrace::cuda_test
