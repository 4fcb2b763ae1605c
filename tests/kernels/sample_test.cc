// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/op_functions.h"
#include "kernels/ops.h"
#include "kernels/rng.h"

namespace millrace {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Set by each test to one path after the other.
CpuPath& PathUnderTest() {
  static CpuPath path = CpuPath::kReference;
  return path;
}

void ForEachPath() {
  const CpuPath path = GENERATE(CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512);
  PathUnderTest() = cpu::HasCpuPath(path) ? path : CpuPath::kReference;
}

std::vector<float> RandomLogits(size_t count, uint32_t seed, float spread = 2) {
  std::mt19937 noise(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(noise);
  return logits;
}

// The result of one row alone, on one thread. `logits` is a copy because the op overwrites it.
SampleResult SampleAlone(std::vector<float> logits, SampleRow row, absl::Span<TokenLogprob> top = {}) {
  cpu::ThreadPool pool(1);
  SampleResult result{.top = top};
  row.row = 0;
  const int64_t vocab = static_cast<int64_t>(logits.size());
  cpu::Sample({.logits = {.data = logits.data(), .rows = 1, .cols = vocab, .stride = vocab},
               .rows = absl::MakeConstSpan(&row, 1),
               .results = absl::MakeSpan(&result, 1)},
              cpu::OpContext{pool, PathUnderTest()});
  return result;
}

int32_t Greedy(const std::vector<float>& logits, SampleRow row = {}) {
  row.temperature = 0;
  const SampleResult result = SampleAlone(logits, row);
  CHECK(result.is_failed == (result.token < 0));
  return result.token;
}

// The same row at `count` positions (or, with is_seed_varied, seeds) in batches; the tokens drawn.
std::vector<int32_t> DrawMany(const std::vector<float>& logits, const SampleRow& row, size_t count,
                              bool is_seed_varied = false) {
  constexpr size_t kBatch = 500;
  cpu::ThreadPool pool(2);
  std::vector<int32_t> tokens;
  for (size_t at = 0; at < count; at += kBatch) {
    std::vector<float> copies;
    std::vector<SampleRow> rows(kBatch, row);
    std::vector<SampleResult> results(kBatch);
    for (size_t i = 0; i < kBatch; ++i) {
      copies.insert(copies.end(), logits.begin(), logits.end());
      rows[i].row = static_cast<int32_t>(i);
      (is_seed_varied ? rows[i].seed : rows[i].position) += at + i;
    }
    const int64_t vocab = static_cast<int64_t>(logits.size());
    cpu::Sample({.logits = {.data = copies.data(), .rows = kBatch, .cols = vocab, .stride = vocab},
                 .rows = rows,
                 .results = absl::MakeSpan(results)},
                cpu::OpContext{pool, PathUnderTest()});
    for (const SampleResult& result : results) tokens.push_back(result.is_failed ? -1 : result.token);
  }
  return tokens;
}

void Normalize(std::vector<double>& probabilities) {
  const double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  for (double& p : probabilities) p /= sum;
}

// Logits after bias, penalties, bans and mask, in double.
std::vector<double> ReferenceLogits(const std::vector<float>& raw, const SampleRow& row) {
  std::vector<double> logits(raw.begin(), raw.end());
  for (const TokenLogprob& bias : row.logit_bias) logits[static_cast<size_t>(bias.token)] += bias.logprob;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto outputs = std::count(row.output_tokens.begin(), row.output_tokens.end(), static_cast<int32_t>(i));
    const auto prompts = std::count(row.prompt_tokens.begin(), row.prompt_tokens.end(), static_cast<int32_t>(i));
    double factor = static_cast<double>(row.repetition_penalty);
    if (logits[i] > 0) factor = 1 / factor;
    if (outputs + prompts > 0) logits[i] *= factor;
    if (outputs > 0) logits[i] -= row.presence_penalty;
    logits[i] -= static_cast<double>(outputs) * row.frequency_penalty;
    const bool is_allowed = row.mask == nullptr || (row.mask[i / 32] >> (i % 32) & 1u) != 0;
    const bool is_banned = std::count(row.banned_tokens.begin(), row.banned_tokens.end(), static_cast<int32_t>(i)) > 0;
    if (!is_allowed || is_banned) logits[i] = -std::numeric_limits<double>::infinity();
  }
  return logits;
}

// The exact distribution of a row's token by enumeration: min-p, top-k (ties stay), then top-p of what is left.
std::vector<double> Enumerate(const std::vector<float>& raw, const SampleRow& row) {
  std::vector<double> p = ReferenceLogits(raw, row);
  const double largest = *std::max_element(p.begin(), p.end());
  for (double& logit : p) logit = std::exp((logit - largest) / row.temperature);
  for (double& weight : p) weight = weight < row.min_p ? 0 : weight;  // the best token's weight is 1
  std::vector<double> sorted = p;
  std::sort(sorted.rbegin(), sorted.rend());
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < p.size()) {
    const double kth = sorted[static_cast<size_t>(row.top_k - 1)];
    for (double& weight : p) weight = weight < kth ? 0 : weight;
  }
  Normalize(p);
  sorted = p;
  std::sort(sorted.rbegin(), sorted.rend());
  double reached = 0, smallest = 0;
  for (size_t i = 0; i < sorted.size() && reached < row.top_p; ++i) reached += smallest = sorted[i];
  if (row.top_p < 1) {
    for (double& weight : p) weight = weight < smallest ? 0 : weight;
  }
  Normalize(p);
  return p;
}

// Pearson's statistic relative to its quantile at four sigma (Wilson and Hilferty, 1931): above 1 the draws do not
// follow `p`. Cells of fewer than five expected draws are merged. Infinite when a token of probability zero was drawn.
double ChiSquareRatio(const std::vector<int32_t>& tokens, const std::vector<double>& p) {
  std::vector<double> counts(p.size(), 0);
  for (const int32_t token : tokens) {
    if (token < 0 || p[static_cast<size_t>(token)] == 0) return std::numeric_limits<double>::infinity();
    ++counts[static_cast<size_t>(token)];
  }
  double statistic = 0, rare_count = 0, rare_expected = 0;
  int cells = 0;
  const auto add = [&](double count, double expected) {
    statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * static_cast<double>(tokens.size());
    if (expected >= 5) {
      add(counts[i], expected);
    } else {
      rare_count += counts[i];
      rare_expected += expected;
    }
  }
  if (rare_expected >= 5) add(rare_count, rare_expected);
  if (cells < 2) return 0;
  const double freedom = cells - 1;
  const double root = 1 - 2 / (9 * freedom) + 4 * std::sqrt(2 / (9 * freedom));
  return statistic / (freedom * root * root * root);
}

constexpr size_t kDraws = 20000;

void CheckDistribution(const std::vector<float>& logits, const SampleRow& row) {
  const auto p = Enumerate(logits, row);
  const auto support = std::count_if(p.begin(), p.end(), [](double value) { return value > 0; });
  CAPTURE(logits.size(), row.temperature, row.top_k, row.top_p, row.min_p, support);
  CHECK(ChiSquareRatio(DrawMany(logits, row, kDraws), p) < 1);
}

}  // namespace

TEST_CASE("Sample: greedy takes the largest logit and the lowest id of a tie", "[kernels][sample]") {
  ForEachPath();
  CHECK(Greedy({1, 3, 2}) == 1);
  CHECK(Greedy({1, 3, 3, 3}) == 1);
  CHECK(Greedy({-5, -5, -5}) == 0);
  CHECK(Greedy({-kInfinity, -1e30f, -kInfinity}) == 1);
  CHECK(Greedy({0.0f, -0.0f}) == 0);
  CHECK(Greedy({-0.0f, 0.0f}) == 0);
  CHECK(Greedy({7}) == 0);
  for (const int64_t vocab : {31, 32, 33, 1009}) {
    std::vector<float> logits(static_cast<size_t>(vocab), -1);
    for (const int64_t best : {vocab - 1, vocab / 2, int64_t{0}}) {
      logits[static_cast<size_t>(best)] = 1;
      CHECK(Greedy(logits) == best);
    }
  }
}

TEST_CASE("Sample: a row of NaN, of infinity or with nothing allowed fails alone", "[kernels][sample]") {
  ForEachPath();
  const uint32_t none[] = {0, 0};
  const int32_t all[] = {0, 1, 2};
  for (const float temperature : {0.0f, 1.0f}) {
    const SampleRow row{.temperature = temperature, .num_top_logprobs = 0};
    SampleRow masked = row, banned = row;
    masked.mask = none;
    banned.banned_tokens = all;
    CHECK(SampleAlone({1, kNan, 2}, row).is_failed);
    CHECK(SampleAlone({kNan, kNan, kNan}, row).is_failed);
    CHECK(SampleAlone({1, 2, kInfinity}, row).is_failed);
    CHECK(SampleAlone({-kInfinity, -kInfinity}, row).is_failed);
    CHECK(SampleAlone(std::vector<float>(40, 1), masked).is_failed);
    CHECK(SampleAlone({1, 2, 3}, banned).is_failed);
    CHECK_FALSE(SampleAlone({1, 2, 3}, row).is_failed);
  }
  // The neighbours of a failed row are what they are alone.
  std::vector<float> logits = {1, 5, 2, kNan, 1, 2, 3, 2, 1};
  const SampleRow rows[] = {{.row = 0, .temperature = 0}, {.row = 1, .temperature = 0}, {.row = 2, .temperature = 0}};
  SampleResult results[3];
  cpu::ThreadPool pool(2);
  cpu::Sample({.logits = {.data = logits.data(), .rows = 3, .cols = 3, .stride = 3}, .rows = rows, .results = results},
              cpu::OpContext{pool, PathUnderTest()});
  CHECK(results[0].token == 1);
  CHECK(results[1].is_failed);
  CHECK(results[2].token == 0);
  CHECK_FALSE((results[0].is_failed || results[2].is_failed));
}

TEST_CASE("Sample: a mask or a ban does not hide a logit that is not a number", "[kernels][sample]") {
  ForEachPath();
  const uint32_t mask[] = {0b101};
  const int32_t banned[] = {1};
  SampleRow row{.temperature = 0, .mask = mask, .num_top_logprobs = 0};
  CHECK(SampleAlone({1, kNan, 2}, row).is_failed);
  row.mask = nullptr;
  row.banned_tokens = banned;
  CHECK(SampleAlone({1, kNan, 2}, row).is_failed);
}

TEST_CASE("Sample: the noise is Philox4x32-10 as its authors publish it", "[kernels][sample]") {
  const uint32_t published[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const PhiloxWords noise = Philox(0, 0);
  CHECK(std::equal(std::begin(published), std::end(published), noise.words));
}

TEST_CASE("Sample: temperature alone draws from the softmax", "[kernels][sample]") {
  ForEachPath();
  for (const size_t vocab : {size_t{8}, size_t{13}, size_t{50}}) {
    for (const float temperature : {0.3f, 1.0f, 2.5f}) {
      CheckDistribution(RandomLogits(vocab, 3), {.temperature = temperature, .seed = 42});
    }
  }
  // The check can fail: draws at one temperature are not those of another near it.
  const auto logits = RandomLogits(50, 3);
  const auto tokens = DrawMany(logits, {.temperature = 1, .seed = 42}, kDraws);
  CHECK(ChiSquareRatio(tokens, Enumerate(logits, {.temperature = 1.1f})) > 1);
}

TEST_CASE("Sample: top-k keeps the k best and what ties with the last of them", "[kernels][sample]") {
  ForEachPath();
  const auto logits = RandomLogits(50, 5);
  for (const int32_t top_k : {1, 2, 7, 49, 50, 1000}) CheckDistribution(logits, {.top_k = top_k, .seed = 1});
  CheckDistribution({3, 1, 2, 2, 2, 0, -1, 2}, {.top_k = 2, .seed = 1});
}

TEST_CASE("Sample: top-p keeps the smallest set that reaches p", "[kernels][sample]") {
  ForEachPath();
  for (const size_t vocab : {size_t{8}, size_t{50}}) {
    for (const float top_p : {1e-6f, 0.1f, 0.5f, 0.9f, 0.99f}) {
      CheckDistribution(RandomLogits(vocab, 7), {.top_p = top_p, .seed = 2});
      CheckDistribution(RandomLogits(vocab, 7), {.temperature = 1.7f, .top_p = top_p, .seed = 2});
    }
  }
}

TEST_CASE("Sample: min-p keeps what is at least that fraction of the best", "[kernels][sample]") {
  ForEachPath();
  const auto logits = RandomLogits(50, 9);
  for (const float min_p : {0.001f, 0.05f, 0.3f, 0.9f, 1.0f}) {
    CheckDistribution(logits, {.min_p = min_p, .seed = 3});
    CheckDistribution(logits, {.temperature = 0.6f, .min_p = min_p, .seed = 3});
  }
}

TEST_CASE("Sample: all filters together follow their order", "[kernels][sample]") {
  ForEachPath();
  const int32_t prompt[] = {0, 4, 4, 9}, output[] = {1, 1, 1, 4, 12, 30};
  const TokenLogprob bias[] = {{.token = 2, .logprob = 1.5f}, {.token = 1, .logprob = -0.25f}};
  const int32_t banned[] = {5, 49};
  const uint32_t mask[] = {0xfffff7ff, 0x3bfff};
  for (uint32_t seed = 0; seed < 6; ++seed) {
    SampleRow row{.temperature = 1.3f, .top_k = 20, .top_p = 0.8f, .min_p = 0.06f, .seed = seed};
    CheckDistribution(RandomLogits(50, 20 + seed), row);
    row.repetition_penalty = 1.4f;
    row.presence_penalty = 0.3f;
    row.frequency_penalty = 0.2f;
    row.prompt_tokens = prompt;
    row.output_tokens = output;
    row.logit_bias = bias;
    row.banned_tokens = banned;
    row.mask = mask;
    CheckDistribution(RandomLogits(50, 20 + seed), row);
  }
}

TEST_CASE("Sample: seeds and neighbouring positions draw independently", "[kernels][sample]") {
  ForEachPath();
  const auto logits = RandomLogits(8, 1, 1);
  const SampleRow row{.seed = 100, .position = uint64_t{1} << 32};
  const auto p = Enumerate(logits, row);
  CHECK(ChiSquareRatio(DrawMany(logits, row, kDraws, true), p) < 1);
  const auto tokens = DrawMany(logits, row, 2 * kDraws);
  std::vector<int32_t> pairs;
  std::vector<double> pair_p;
  for (size_t i = 0; i < tokens.size(); i += 2) pairs.push_back(tokens[i] * 8 + tokens[i + 1]);
  for (const double first : p) {
    for (const double second : p) pair_p.push_back(first * second);
  }
  CHECK(ChiSquareRatio(pairs, pair_p) < 1);
}

TEST_CASE("Sample: penalties and bias change a logit by exactly their amount", "[kernels][sample]") {
  ForEachPath();
  const float above = std::nextafter(5.0f, 10.0f), below = std::nextafter(5.0f, 0.0f);
  const float next_down = std::nextafter(-20.0f, -100.0f), next_up = std::nextafter(-20.0f, 0.0f);
  const int32_t zero[] = {0}, zero_thrice[] = {0, 0, 0}, outside[] = {-1, 2, 1 << 30};
  const auto flips = [&](float logit, const SampleRow& row, float low, float exact, float high) {
    CHECK(Greedy({logit, low}, row) == 0);
    CHECK(Greedy({logit, exact}, row) == 0);
    CHECK(Greedy({logit, high}, row) == 1);
  };
  SampleRow repetition{.repetition_penalty = 2, .prompt_tokens = zero};
  flips(10, repetition, below, 5, above);
  flips(-10, repetition, next_down, -20, next_up);
  repetition.output_tokens = zero_thrice;  // once, however often it was seen
  flips(10, repetition, below, 5, above);
  flips(7, {.presence_penalty = 2, .output_tokens = zero_thrice}, below, 5, above);
  flips(6.5f, {.frequency_penalty = 0.5f, .output_tokens = zero_thrice}, below, 5, above);
  flips(14,
        {.repetition_penalty = 2, .presence_penalty = 0.5f, .frequency_penalty = 0.5f, .output_tokens = zero_thrice},
        below, 5, above);
  // The prompt does not count for presence and frequency, and ids outside the vocabulary count for nothing.
  flips(5, {.presence_penalty = 2, .frequency_penalty = 2, .prompt_tokens = zero}, below, 5, above);
  flips(5, {.repetition_penalty = 2, .prompt_tokens = outside, .output_tokens = outside, .banned_tokens = outside},
        below, 5, above);
  const TokenLogprob bias[] = {{.token = 0, .logprob = -1.5f}, {.token = 7, .logprob = 100}, {.token = -1}};
  flips(6.5f, {.logit_bias = bias}, below, 5, above);
  // Bias comes before the penalties: (11.5 - 1.5) / 2.
  flips(11.5f, {.repetition_penalty = 2, .prompt_tokens = zero, .logit_bias = bias}, below, 5, above);
  // A penalty leaves nothing behind for the next row on the same thread.
  flips(5, {.repetition_penalty = 2}, below, 5, above);
}

TEST_CASE("Sample: masked and banned tokens are never drawn", "[kernels][sample]") {
  ForEachPath();
  for (const size_t vocab : {size_t{31}, size_t{32}, size_t{33}, size_t{50}}) {
    std::vector<float> logits(vocab, 0.0f);
    std::vector<uint32_t> mask((vocab + 31) / 32, 0);
    std::vector<int32_t> banned;
    std::vector<bool> is_allowed(vocab, false);
    for (size_t i = 0; i < vocab; ++i) {
      if (i % 3 != 0) mask[i / 32] |= 1u << (i % 32);
      if (i % 5 == 0) banned.push_back(static_cast<int32_t>(i));
      is_allowed[i] = i % 3 != 0 && i % 5 != 0;
      if (!is_allowed[i]) logits[i] = 50;
    }
    for (const int32_t top_k : {0, 3, 40}) {
      for (const float top_p : {1.0f, 0.7f}) {
        const SampleRow row{.top_k = top_k, .top_p = top_p, .seed = 8, .banned_tokens = banned, .mask = mask.data()};
        std::vector<bool> is_drawn(vocab, false);
        for (const int32_t token : DrawMany(logits, row, 5000)) is_drawn[static_cast<size_t>(token)] = true;
        for (size_t i = 0; i < vocab; ++i) CHECK((!is_drawn[i] || is_allowed[i]));
        if (top_p == 1) CHECK(is_drawn == is_allowed);
      }
    }
  }
}

TEST_CASE("Sample: a result depends on its seed and position, not on the batch or the threads", "[kernels][sample]") {
  ForEachPath();
  constexpr size_t kRows = 37, kVocab = 211, kTop = 5;
  std::vector<SampleRow> rows(kRows);
  std::vector<std::vector<float>> logits;
  const std::vector<int32_t> output = {3, 5, 3, 200};
  for (size_t r = 0; r < kRows; ++r) {
    logits.push_back(RandomLogits(kVocab, static_cast<uint32_t>(r)));
    rows[r] = {.temperature = static_cast<float>(r % 4) * 0.5f, .top_k = r % 3 == 0 ? 9 : 0, .seed = r / 2};
    rows[r].top_p = r % 5 == 0 ? 0.7f : 1.0f;
    rows[r].min_p = r % 7 == 0 ? 0.1f : 0.0f;
    rows[r].repetition_penalty = r % 2 == 0 ? 1.3f : 1.0f;
    rows[r].position = r * r;
    rows[r].output_tokens = output;
    rows[r].num_top_logprobs = static_cast<int32_t>(r % (kTop + 2)) - 1;
  }
  std::vector<SampleResult> alone(kRows);
  std::vector<TokenLogprob> tops(kRows * kTop);
  for (size_t r = 0; r < kRows; ++r) {
    alone[r] = SampleAlone(logits[r], rows[r], absl::MakeSpan(tops).subspan(r * kTop, kTop));
  }
  for (const int num_threads : {1, 2, 3, 8}) {
    cpu::ThreadPool pool(num_threads);
    std::vector<size_t> order(kRows);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<uint32_t>(num_threads)));
    std::vector<float> batch;
    std::vector<SampleRow> batch_rows;
    std::vector<SampleResult> results(kRows);
    std::vector<TokenLogprob> batch_tops(kRows * kTop);
    for (size_t i = 0; i < kRows; ++i) {
      batch.insert(batch.end(), logits[order[i]].begin(), logits[order[i]].end());
      batch.resize(batch.size() + 3, 99);  // a stride wider than the vocabulary
      batch_rows.push_back(rows[order[i]]);
      batch_rows.back().row = static_cast<int32_t>(i);
      results[i].top = absl::MakeSpan(batch_tops).subspan(i * kTop, kTop);
    }
    cpu::Sample({.logits = {.data = batch.data(), .rows = kRows, .cols = kVocab, .stride = kVocab + 3},
                 .rows = batch_rows,
                 .results = absl::MakeSpan(results)},
                cpu::OpContext{pool, PathUnderTest()});
    for (size_t i = 0; i < kRows; ++i) {
      const SampleResult& want = alone[order[i]];
      CHECK(results[i].token == want.token);
      CHECK(results[i].rank == want.rank);
      CHECK(std::memcmp(&results[i].logprob, &want.logprob, sizeof(float)) == 0);
      CHECK(std::memcmp(results[i].top.data(), want.top.data(), kTop * sizeof(TokenLogprob)) == 0);
    }
  }
}

TEST_CASE("Sample: over a large vocabulary each draw is where the exact distribution's inverse puts it",
          "[kernels][sample]") {
  ForEachPath();
  struct Filters {
    float temperature;
    int32_t top_k;
    float top_p, min_p;
  };
  // Above and below the number of blocks; nuclei of few and of nearly all tokens.
  const Filters all_filters[] = {{1, 0, 1, 0},         {0.7f, 40, 1, 0},        {1, 700, 1, 0},    {1, 0, 0.9f, 0},
                                 {30, 0, 0.95f, 0},    {0.01f, 0, 0.5f, 0},     {1, 0, 0.999f, 0}, {1, 0, 1, 0.02f},
                                 {1.5f, 100, 0.8f, 0}, {1, 3000, 0.9f, 0.001f}, {1, 1, 1, 0},      {2, 0, 0.3f, 0.01f}};
  for (const size_t vocab : {size_t{257}, size_t{32000}, size_t{50021}}) {
    auto logits = RandomLogits(vocab, 31, 3);
    logits[vocab / 2] = -kInfinity;
    for (const Filters& filters : all_filters) {
      SampleRow row{.temperature = filters.temperature,
                    .top_k = filters.top_k,
                    .top_p = filters.top_p,
                    .min_p = filters.min_p,
                    .seed = 5};
      const auto p = Enumerate(logits, row);
      std::vector<double> reached(vocab);
      std::partial_sum(p.begin(), p.end(), reached.begin());
      for (row.position = 0; row.position < 12; ++row.position) {
        const SampleResult result = SampleAlone(logits, row);
        REQUIRE_FALSE(result.is_failed);
        const double noise = UniformNoise(row.seed, row.position);
        const double end = reached[static_cast<size_t>(result.token)];
        const double begin = end - p[static_cast<size_t>(result.token)];
        CAPTURE(static_cast<int>(PathUnderTest()), vocab, filters.temperature, filters.top_k, filters.top_p);
        CAPTURE(filters.min_p, row.position, result.token, noise, begin, end);
        // Weights are float32 and a filter's border may move by one token.
        CHECK(begin - 1e-4 <= noise);
        CHECK(noise <= end + 1e-4);
        CHECK(p[static_cast<size_t>(result.token)] > 0);
      }
    }
  }
}

}  // namespace millrace
