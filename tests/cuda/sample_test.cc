// SPDX-License-Identifier: Apache-2.0
// Sampling: greedy rows, draws and filters against the CPU's rules in double, edits of logits, faults, and the
// independence of a row from its batch.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/cuda/sample_fixture.h"

namespace millrace::cuda_test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// One below and above a quad, a thread's share and a chunk (4096 logits).
constexpr size_t kVocabs[] = {1, 3, 17, 255, 1009, 4095, 4096, 4097, 9001};

RowToSample Row(std::vector<float> logits, cuda::DeviceSampleRow row = {}) {
  return {.row = row, .logits = std::move(logits)};
}

// Draws `asked` at `count` positions at once and checks each token.
void ExpectDraws(RowToSample asked, int count, const std::string& where) {
  ReferenceWeights reference = Weights(asked);
  while (reference.is_doubtful) {  // then a little more or less of top-p, where rounding has no say
    asked.row.top_p *= 0.9999f;
    reference = Weights(asked);
  }
  std::vector<RowToSample> rows;
  for (int i = 0; i < count; ++i) {
    rows.push_back(asked);
    ++asked.row.position;
  }
  const Sampled sampled = Sample(rows, 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT(sampled.results[i].is_failed == 0) << where;
    EXPECT(IsDrawOf(rows[i], reference, sampled.results[i].token))
        << where << " draw " << i << " gave " << sampled.results[i].token;
  }
}

}  // namespace

KERNEL_TEST("sample: greedy takes the lowest id of the largest logit") {
  Random random(1);
  for (const size_t vocab : kVocabs) {
    for (const int64_t padding : {0, 1}) {
      auto logits = NormalLogits(random, vocab, 2);
      const size_t first = vocab / 3;
      for (size_t i = first; i < vocab; i += vocab / 3 + 1) logits[i] = 40;
      auto low = logits;
      for (float& logit : low) logit -= 100;  // negative numbers order the same
      const cuda::DeviceSampleRow greedy{.temperature = 0};
      const Sampled sampled = Sample({Row(logits, greedy), Row(low, greedy)}, padding);
      EXPECT(sampled.results[0].token == static_cast<int32_t>(first)) << "vocabulary " << vocab;
      EXPECT(sampled.results[1].token == static_cast<int32_t>(first)) << "vocabulary " << vocab;
    }
  }
}

KERNEL_TEST("sample: zero and negative zero tie") {
  const Sampled sampled = Sample({Row({-1, -0.0f, 0.0f, -2}, {.temperature = 0})});
  EXPECT(sampled.results[0].token == 1);
}

KERNEL_TEST("sample: a NaN, an infinity or nothing to draw from is a failure, masked or not") {
  const uint32_t all_but_two = ~4u;
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float top_p : {1.0f, 0.5f}) {
      const cuda::DeviceSampleRow row{.temperature = temperature, .top_p = top_p};
      std::vector<RowToSample> rows = {Row({1, 2, std::nanf(""), 3}, row),         Row({1, 2, kInfinity, 3}, row),
                                       Row({kNever, kNever, kNever, kNever}, row), Row({1, 2, 3, 4}, row),
                                       Row({1, 2, std::nanf(""), 3}, row),         Row({1, 2, kInfinity, 3}, row)};
      rows[3].mask = {0};
      rows[4].mask = rows[5].mask = {all_but_two};
      rows[4].banned = {2};
      const Sampled sampled = Sample(rows);
      for (size_t i = 0; i < 5; ++i) {
        EXPECT(sampled.results[i].is_failed == 1 && sampled.results[i].token == -1) << "row " << i;
      }
      EXPECT(sampled.results[5].is_failed == 0) << "an infinity behind the mask is not there";
    }
  }
}

KERNEL_TEST("sample: temperature alone draws by the inverse CDF of the CPU") {
  Random random(2);
  for (const size_t vocab : kVocabs) {
    for (const float temperature : {0.01f, 0.7f, 3.0f}) {
      auto logits = NormalLogits(random, vocab, 2);
      if (vocab > 3) logits[2] = kNever;
      ExpectDraws(Row(logits, {.temperature = temperature, .seed = 11}), 12,
                  "vocabulary " + std::to_string(vocab) + " temperature " + std::to_string(temperature));
    }
  }
}

KERNEL_TEST("sample: top-k, top-p and min-p, alone and together, keep what the CPU keeps") {
  Random random(3);
  for (const size_t vocab : {size_t{3}, size_t{255}, size_t{9001}}) {
    for (const int32_t top_k : {0, 1, 2, 40, 100000}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 0.0f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          if (top_k == 0 && top_p == 1 && min_p == 0) continue;
          const cuda::DeviceSampleRow row{
              .temperature = 0.8f, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = 5};
          ExpectDraws(Row(NormalLogits(random, vocab, 3), row), 4,
                      "vocabulary " + std::to_string(vocab) + " k " + std::to_string(top_k) + " p " +
                          std::to_string(top_p) + " min-p " + std::to_string(min_p));
        }
      }
    }
  }
}

KERNEL_TEST("sample: ties at the end of top-k stay, at the end of top-p the lowest ids stay") {
  std::vector<float> logits(5000, -3.0f);
  for (size_t i = 100; i < 5000; i += 700) logits[i] = 1;  // eight that tie
  logits[3333] = 4;
  ExpectDraws(Row(logits, {.top_k = 3, .seed = 1}), 20, "top-k");
  ExpectDraws(Row(logits, {.top_p = 0.6f, .min_p = 0.01f, .seed = 2}), 20, "top-p");
  ExpectDraws(Row(logits, {.top_k = 3, .top_p = 0.5f, .seed = 3}), 20, "both");
}

KERNEL_TEST("sample: filters that leave thousands of tokens are exact too") {
  Random random(4);
  const auto flat = NormalLogits(random, 9001, 0.05f);
  ExpectDraws(Row(flat, {.top_p = 0.95f, .seed = 1}), 6, "top-p");
  ExpectDraws(Row(flat, {.top_k = 5000, .seed = 2}), 6, "top-k");
  ExpectDraws(Row(flat, {.top_k = 5000, .top_p = 0.4f, .seed = 3}), 6, "top-k and top-p");
  ExpectDraws(Row(flat, {.min_p = 0.9f, .seed = 4}), 6, "min-p");
  ExpectDraws(Row(std::vector<float>(9001, 2.5f), {.top_p = 0.5f, .seed = 5}), 6, "all alike");
}

KERNEL_TEST("sample: bias, penalties, bans and mask change the logits as on the CPU, in this order") {
  Random random(5);
  for (const size_t vocab : {size_t{33}, size_t{4100}}) {
    const int last = static_cast<int>(vocab) - 1;
    for (const float penalty : {1.0f, 1.3f, 0.8f}) {
      for (const float top_p : {1.0f, 0.8f}) {
        RowToSample asked = Row(NormalLogits(random, vocab, 2));
        asked.row = {.temperature = 0.9f,
                     .top_p = top_p,
                     .repetition_penalty = penalty,
                     .presence_penalty = 0.4f,
                     .frequency_penalty = 0.25f,
                     .seed = 9};
        asked.biased = {4, 7, 4, -1, last + 1, last};
        asked.biases = {2.5f, -1, 0.125f, 50, 50, 3};
        asked.banned = {1, 1, 12, -5, last + 9};
        for (int i = 0; i < 400; ++i) asked.prompt.push_back(random.Int(-1, last + 1));
        for (int i = 0; i < 300; ++i) asked.output.push_back(random.Int(0, 1) == 0 ? 5 : random.Int(-1, last + 1));
        for (size_t i = 0; i < (vocab + 31) / 32; ++i) asked.mask.push_back(random.Bits() | random.Bits());
        ExpectDraws(asked, 8, "vocabulary " + std::to_string(vocab) + " penalty " + std::to_string(penalty));
        asked.row.temperature = 0;
        const auto edited = Edited(asked);
        const auto best = std::max_element(edited.begin(), edited.end()) - edited.begin();
        EXPECT(Sample({asked}).results[0].token == static_cast<int32_t>(best)) << "greedy";
      }
    }
  }
}

KERNEL_TEST("sample: a row's result does not depend on the batch, and a row of padding is left alone") {
  Random random(6);
  std::vector<RowToSample> rows;
  for (int i = 0; i < 9; ++i) {
    RowToSample asked = Row(NormalLogits(random, 4300, 2));
    asked.row = {.temperature = i == 2 ? 0.0f : 0.5f + 0.1f * static_cast<float>(i),
                 .top_k = i % 3 == 0 ? 0 : 7 * i,
                 .top_p = i % 2 == 0 ? 1.0f : 0.9f,
                 .presence_penalty = i == 4 ? 0.5f : 0.0f,
                 .seed = static_cast<uint64_t>(i),
                 .position = 77,
                 .num_top_logprobs = i % 4 - 1};
    asked.output = {3, 3, 4};
    rows.push_back(asked);
  }
  rows[5].row.row = -2;
  const Sampled together = Sample(rows, 3);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& result = together.results[i];
    if (i == 5) {
      EXPECT(result.token == -1 && result.is_failed == -1) << "as poisoned before";
      continue;
    }
    const Sampled alone = Sample({rows[i]}, 3);
    EXPECT(std::memcmp(&alone.results[0], &result, sizeof(result)) == 0) << "row " << i;
    const auto* top = together.top.data() + i * cuda::kMaxTopLogprobs;
    EXPECT(std::memcmp(alone.top.data(), top, sizeof(*top) * cuda::kMaxTopLogprobs) == 0) << "row " << i;
  }
}

KERNEL_TEST("sample: many seeds draw the distribution") {
  // Chi-square: its mean is the degrees of freedom d, its variance 2d; six deviations happen once in a billion.
  Random random(7);
  const auto logits = NormalLogits(random, 24, 1);
  for (const cuda::DeviceSampleRow& row :
       {cuda::DeviceSampleRow{.temperature = 1.2f}, cuda::DeviceSampleRow{.top_k = 9, .top_p = 0.95f}}) {
    constexpr int kBatch = 400, kBatches = 2;
    std::vector<double> counts(logits.size());
    ReferenceWeights reference;
    for (int b = 0; b < kBatches; ++b) {
      std::vector<RowToSample> rows(kBatch, Row(logits, row));
      for (int i = 0; i < kBatch; ++i) rows[static_cast<size_t>(i)].row.seed = static_cast<uint64_t>(b * kBatch + i);
      if (b == 0) reference = Weights(rows[0]);
      for (const auto& result : Sample(rows).results) ++counts[static_cast<size_t>(result.token)];
    }
    double chi_square = 0, freedom = -1;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double expected = reference.weights[i] / reference.total * kBatch * kBatches;
      if (expected == 0) {
        EXPECT(counts[i] == 0) << "token " << i << " was filtered out";
        continue;
      }
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++freedom;
    }
    EXPECT(chi_square < freedom + 6 * std::sqrt(2 * freedom)) << chi_square << " with " << freedom;
  }
}

}  // namespace millrace::cuda_test
