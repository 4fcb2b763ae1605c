// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's host side: sampling through its staging, faults, what it refuses.
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/load/float_bits.h"
#include "kernels/ops.h"
#include "tests/cuda_engine/cuda_backend.h"

namespace millrace {
namespace {

// Logits on a device, with results of sampling or of log-probabilities.
class Drawn {
 public:
  Drawn(std::unique_ptr<Device> device, const std::vector<float>& logits, int64_t vocab)
      : device_(std::move(device)),
        logits_(*device_->Allocate(logits.size() * sizeof(float))),
        results_(logits.size() / static_cast<size_t>(vocab)),
        top_(results_.size() * kNumTop) {
    REQUIRE(device_->ops().ReserveWorkspace(testing::kBackendLimits).ok());
    REQUIRE(device_->CopyToDevice(logits_->data(), logits.data(), logits.size() * sizeof(float)).ok());
    matrix_ = {.data = logits_->data(), .rows = static_cast<int64_t>(results_.size()), .cols = vocab, .stride = vocab};
    for (size_t i = 0; i < results_.size(); ++i) results_[i].top = absl::MakeSpan(top_).subspan(i * kNumTop, kNumTop);
  }
  const std::vector<SampleResult>& Sample(const std::vector<SampleRow>& rows) {
    device_->ops().Sample({.logits = matrix_, .rows = rows, .results = absl::MakeSpan(results_)});
    return Collected();
  }
  const std::vector<SampleResult>& Logprobs(const std::vector<int32_t>& targets) {
    device_->ops().Logprobs(
        {.logits = matrix_, .targets = targets, .num_top = kNumTop, .results = absl::MakeSpan(results_)});
    return Collected();
  }

 private:
  const std::vector<SampleResult>& Collected() {
    device_->ops().EndStep();
    REQUIRE(device_->ops().CollectStep().ok());
    return results_;
  }

  static constexpr int kNumTop = 3;
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<Buffer> logits_;
  std::vector<SampleResult> results_;
  std::vector<TokenLogprob> top_;
  Matrix matrix_;
};

std::vector<float> RandomLogits(size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

void CheckSame(const std::vector<SampleResult>& actual, const std::vector<SampleResult>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    CAPTURE(i);
    CHECK(actual[i].token == expected[i].token);
    CHECK(actual[i].is_failed == expected[i].is_failed);
    CHECK(actual[i].rank == expected[i].rank);
    CHECK(std::abs(actual[i].logprob - expected[i].logprob) < 1e-4f);
    for (size_t t = 0; t < expected[i].top.size(); ++t) {
      CHECK(actual[i].top[t].token == expected[i].top[t].token);
      CHECK(std::abs(actual[i].top[t].logprob - expected[i].top[t].logprob) < 1e-4f);
    }
  }
}

TEST_CASE("CudaOps: rows with every kind of list draw the CPU's tokens, in as many launches as the lists need",
          "[cuda]") {
  constexpr int64_t kVocab = 200;
  const std::vector<float> logits = RandomLogits(6 * kVocab);
  std::mt19937 random(11);
  std::vector<int32_t> prompt(15000), output(900);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % 60);
  for (int32_t& token : output) token = static_cast<int32_t>(random() % kVocab);
  const std::vector<TokenLogprob> bias = {{3, 4.0f}, {150, -2.5f}};
  const std::vector<int32_t> banned = {0, 7, 9};
  std::vector<uint32_t> mask((kVocab + 31) / 32, 0x0f0f0f0fu);
  std::vector<SampleRow> rows(6);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = {.row = static_cast<int32_t>(i), .seed = 100 + i, .position = 40 + i, .num_top_logprobs = 3};
    // Together longer than what is staged at once.
    rows[i].prompt_tokens = prompt;
    rows[i].output_tokens = output;
    rows[i].repetition_penalty = 1.2f;
  }
  rows[0].temperature = 0;
  rows[1].presence_penalty = 0.5f;
  rows[1].frequency_penalty = 0.01f;
  rows[2].logit_bias = bias;
  rows[2].top_k = 5;
  rows[3].banned_tokens = banned;
  rows[3].top_p = 0.8f;
  rows[4].mask = mask.data();
  rows[4].min_p = 0.05f;
  rows[5].repetition_penalty = 1;  // its lists are not needed
  auto cpu = MakeCpuDevice({.num_threads = 1});
  REQUIRE(cpu.ok());
  Drawn expected(*std::move(cpu), logits, kVocab), actual(testing::Cuda(), logits, kVocab);
  CheckSame(actual.Sample(rows), expected.Sample(rows));
}

TEST_CASE("CudaOps: log-probabilities of given tokens are the CPU's", "[cuda]") {
  constexpr int64_t kVocab = 200;
  const std::vector<float> logits = RandomLogits(4 * kVocab);
  const std::vector<int32_t> targets = {0, 199, 17, 64};
  auto cpu = MakeCpuDevice({.num_threads = 1});
  REQUIRE(cpu.ok());
  Drawn expected(*std::move(cpu), logits, kVocab), actual(testing::Cuda(), logits, kVocab);
  CheckSame(actual.Logprobs(targets), expected.Logprobs(targets));
}

TEST_CASE("CudaDevice: the first fault is told by every later wait, with what was launched", "[cuda]") {
  const std::unique_ptr<Device> device = testing::Cuda();
  REQUIRE(device->ops().ReserveWorkspace(testing::kBackendLimits).ok());
  REQUIRE(device->Wait().ok());
  const std::vector<int32_t> tokens = {1}, positions = {0}, pages = {0};
  const std::vector<int64_t> slots = {0};
  const std::vector<AttentionSequence> sequences = {{.num_rows = 1, .pages = pages.data()}};
  device->ops().BeginStep({.tokens = tokens, .positions = positions, .slots = slots, .sequences = sequences});
  const Matrix qkv{.dtype = DType::kBF16, .rows = 1, .cols = 128, .stride = 128};
  // No kernel of this backend appends float32.
  device->ops().RopeAppend({.qkv = qkv,
                            .num_heads = 2,
                            .positions = positions,
                            .slots = slots,
                            .kv = {.dtype = DType::kF32, .num_pages = 1, .num_kv_heads = 1, .head_dim = 32}});
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = device->Wait();
    CHECK(status.code() == absl::StatusCode::kInternal);
    CHECK_THAT(std::string(status.message()), Catch::Contains("CUDA: RoPE and the append of keys and values: "));
  }
  std::vector<SampleResult> results(1);
  const std::vector<SampleRow> rows = {{.row = 0}};
  const Matrix logits{.data = nullptr, .rows = 1, .cols = 200, .stride = 200};
  device->ops().Sample({.logits = logits, .rows = rows, .results = absl::MakeSpan(results)});
  device->ops().EndStep();
  CHECK(device->ops().CollectStep().code() == absl::StatusCode::kInternal);
  CHECK(results[0].is_failed);
}

TEST_CASE("CudaDevice: a device that is not there is said to be missing", "[cuda]") {
  for (const int ordinal : {-1, 1000}) {
    const absl::Status status = testing::OpenCuda({.ordinal = ordinal}).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK_THAT(std::string(status.message()), Catch::Contains("no CUDA device"));
  }
}

// What a packed weight [n, k] holds, told by rows that have one 1 each: every sum has one product that is not 0.
std::vector<float> NumbersOf(const PackedWeight& weight, Device& device) {
  const DType dtype = device.ops().activation_dtype();
  const int64_t n = weight.n(), k = weight.k();
  std::vector<uint16_t> ones(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) ones[static_cast<size_t>(i * k + i)] = dtype == DType::kBF16 ? 0x3f80 : 0x3c00;
  const auto x = *device.Allocate(ones.size() * 2), out = *device.Allocate(static_cast<size_t>(n * k) * sizeof(float));
  REQUIRE(device.CopyToDevice(x->data(), ones.data(), ones.size() * 2).ok());
  device.ops().Matmul({.x = {.data = x->data(), .dtype = dtype, .rows = k, .cols = k, .stride = k},
                       .w = &weight,
                       .out = {.data = out->data(), .rows = k, .cols = n, .stride = n}});
  std::vector<float> transposed(static_cast<size_t>(n * k)), values(transposed.size());
  REQUIRE(device.CopyToHost(transposed.data(), out->data(), transposed.size() * sizeof(float)).ok());
  for (int64_t i = 0; i < k * n; ++i)
    values[static_cast<size_t>(i % n * k + i / n)] = transposed[static_cast<size_t>(i)];
  return values;
}

// Numbers that bfloat16 and float16 hold exactly, ties of both, what rounds differently by way of the other, and what
// float16 holds with fewer bits.
std::vector<float> NumbersToRound(size_t count) {
  std::vector<float> values = {0.0f,       1.0f,         -1.5f,        0x1.01p0f,   0x1.03p0f,
                               0x1.002p0f, 0x1.006p0f,   0x1.00ffcp0f, 0x1.0101p0f, 0x1.00fep0f,
                               0x1.8p-20f, 0x1.234p-16f, -0x1.fep-15f};
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.1f);
  while (values.size() < count) values.push_back(normal(random));
  return values;
}

TEST_CASE("CudaOps: dense weights of another type than the activations are rounded to it once", "[cuda]") {
  const DType activations = GENERATE(DType::kBF16, DType::kF16),
              stored = GENERATE(DType::kF32, DType::kF16, DType::kBF16);
  CAPTURE(DTypeName(activations), DTypeName(stored));
  constexpr int64_t kRows = 24, kCols = 16;
  std::vector<float> numbers = NumbersToRound(kRows * kCols);
  std::vector<uint16_t> bits;
  for (float& number : numbers) {
    if (stored == DType::kF32) continue;
    bits.push_back(stored == DType::kF16 ? Float16Bits(number) : BFloat16Bits(number));
    number = stored == DType::kF16 ? FromFloat16(bits.back()) : FromBFloat16(bits.back());
  }
  const std::unique_ptr<Device> device = testing::Cuda({.activation_dtype = activations});
  const void* const values = bits.empty() ? static_cast<const void*>(numbers.data()) : bits.data();
  const auto weight = device->ops().Pack({.n = kRows, .k = kCols, .dtype = stored, .values = values});
  REQUIRE(weight.status().ToString() == "OK");
  REQUIRE(device->ops().ReserveWorkspace(testing::kBackendLimits).ok());
  const std::vector<float> packed = NumbersOf(**weight, *device);
  for (size_t i = 0; i < packed.size(); ++i) {
    CAPTURE(i, numbers[i]);
    CHECK(packed[i] ==
          (activations == DType::kF16 ? FromFloat16(Float16Bits(numbers[i])) : FromBFloat16(BFloat16Bits(numbers[i]))));
  }
}

TEST_CASE("CudaOps: weights are refused by shape, group and missing parts", "[cuda]") {
  const std::unique_ptr<Device> device = testing::Cuda();
  const std::vector<float> values(32 * 64, 0.5f);
  const auto code = [&](const WeightSource& source) { return device->ops().Pack(source).status().code(); };
  const WeightSource dense{.n = 32, .k = 64, .dtype = DType::kF32, .values = values.data()};
  CHECK(code(dense) == absl::StatusCode::kOk);
  WeightSource bad = dense;
  bad.values = nullptr;
  CHECK(code(bad) == absl::StatusCode::kInvalidArgument);
  bad = dense;
  bad.n = 0;
  CHECK(code(bad) == absl::StatusCode::kInvalidArgument);
  bad = dense;
  bad.dtype = DType::kI8;
  CHECK(code(bad) == absl::StatusCode::kInvalidArgument);
  WeightSource int4{.format = WeightFormat::kInt4, .n = 32, .k = 64, .values = values.data(), .group_size = 32};
  CHECK(code(int4) == absl::StatusCode::kInvalidArgument);  // no scales
  int4.scales = values.data();
  CHECK(code(int4) == absl::StatusCode::kOk);
  for (const int group : {0, 16, 48, 128}) {
    int4.group_size = group;
    CHECK(code(int4) == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace millrace
