// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's host side, on the emulator: sampling through its staging, recorded steps, faults, memory.
#include <cuda_runtime.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/backend/cuda_device.h"
#include "kernels/cuda/backend/graph_cache.h"
#include "kernels/ops.h"

namespace millrace {
namespace {

constexpr StepLimits kLimits{.max_rows = 32,
                             .max_logit_rows = 6,
                             .max_sequences = 24,
                             .max_sequence_pages = 1000,
                             .max_inputs = 64,
                             .max_outputs = 200,
                             .vocab_tokens = 200,
                             .num_heads = 2,
                             .num_kv_heads = 1,
                             .head_dim = 32,
                             .page_tokens = 16};

std::unique_ptr<Device> Cuda() {
  auto device = cuda::CudaDevice::Open({});
  REQUIRE(device.status().ToString() == "OK");
  return *std::move(device);
}

// Logits on a device, with results of sampling or of log-probabilities.
class Drawn {
 public:
  Drawn(std::unique_ptr<Device> device, const std::vector<float>& logits, int64_t vocab)
      : device_(std::move(device)),
        logits_(*device_->Allocate(logits.size() * sizeof(float))),
        results_(logits.size() / static_cast<size_t>(vocab)),
        top_(results_.size() * kNumTop) {
    REQUIRE(device_->ops().ReserveWorkspace(kLimits).ok());
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
  Drawn expected(*std::move(cpu), logits, kVocab), actual(Cuda(), logits, kVocab);
  CheckSame(actual.Sample(rows), expected.Sample(rows));
}

TEST_CASE("CudaOps: log-probabilities of given tokens are the CPU's", "[cuda]") {
  constexpr int64_t kVocab = 200;
  const std::vector<float> logits = RandomLogits(4 * kVocab);
  const std::vector<int32_t> targets = {0, 199, 17, 64};
  auto cpu = MakeCpuDevice({.num_threads = 1});
  REQUIRE(cpu.ok());
  Drawn expected(*std::move(cpu), logits, kVocab), actual(Cuda(), logits, kVocab);
  CheckSame(actual.Logprobs(targets), expected.Logprobs(targets));
}

TEST_CASE("CudaDevice: the first fault is told by every later wait, with what was launched", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
  REQUIRE(device->ops().ReserveWorkspace(kLimits).ok());
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
    const absl::Status status = cuda::CudaDevice::Open({.ordinal = ordinal}).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK_THAT(std::string(status.message()), Catch::Contains("no CUDA device"));
  }
}

TEST_CASE("CudaOps: what is reserved is what the plan counts", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
  const size_t before = device->available_bytes();
  REQUIRE(device->ops().ReserveWorkspace(kLimits).ok());
  const size_t taken = before - device->available_bytes();
  const size_t planned = device->ops().WorkspaceBytes(kLimits);
  CHECK(taken > 0);
  CHECK(taken <= planned);
  // The rest is for graphs, of which there are none yet.
  CHECK(planned - taken <= cuda::GraphCache::NumBytes(24) + 8 * 256);
}

TEST_CASE("CudaOps: weights are refused by shape, group and missing parts", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
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

TEST_CASE("GraphCache: rows are rounded up to what is recorded, and never beyond what was reserved", "[cuda]") {
  const cuda::GraphCache cache(20);
  CHECK(cache.RoundedRows(1) == 1);
  CHECK(cache.RoundedRows(3) == 4);
  CHECK(cache.RoundedRows(5) == 8);
  CHECK(cache.RoundedRows(17) == 20);
  CHECK(cache.RoundedRows(20) == 20);
  CHECK(cache.RoundedRows(21) == 0);
  CHECK(cuda::GraphCache(0).RoundedRows(1) == 0);
  CHECK(cache.RecordedRows() == std::vector<int64_t>{1, 2, 4, 8, 12, 16, 20});
  CHECK(cuda::GraphCache(16).RecordedRows() == std::vector<int64_t>{1, 2, 4, 8, 12, 16});
  CHECK(cuda::GraphCache(0).RecordedRows().empty());
  CHECK(cuda::GraphCache(4096).RoundedRows(513) == 0);
  CHECK(cuda::GraphCache::NumBytes(0) == 0);
  CHECK(cuda::GraphCache::NumBytes(8) < cuda::GraphCache::NumBytes(64));
}

TEST_CASE("CudaOps: every rounded number of rows is recorded before the first request, and what that takes is measured",
          "[cuda]") {
  StepLimits limits = kLimits;
  limits.max_sequences = 6;
  const std::unique_ptr<Device> device = Cuda();
  Ops& ops = device->ops();
  REQUIRE(ops.ReserveWorkspace(limits).ok());
  std::vector<int64_t> called;
  const auto forward = [&](const StepInputs& inputs) {
    CHECK(inputs.slots[0] < 0);
    ops.BeginStep(inputs);
    ops.Replay([&](int64_t num_rows) { called.push_back(num_rows); });
  };
  SECTION("within the plan") {
    simt::SetGraphBytes(size_t{1} << 20);
    CHECK(ops.RecordSteps(forward).ToString() == "OK");
    CHECK(called == std::vector<int64_t>{1, 2, 4, 6, 1, 2, 4, 6});
    const std::vector<int32_t> tokens(5, 0);
    const std::vector<int64_t> slots(5, -1);
    const std::vector<AttentionSequence> sequences(5);
    forward({.tokens = tokens, .positions = tokens, .slots = slots, .sequences = sequences});
    CHECK(called.size() == 8);  // replayed at once
    CHECK(static_cast<cuda::CudaDevice&>(*device).ops().num_replays() == 5);
  }
  SECTION("beyond it") {
    simt::SetGraphBytes(size_t{3} << 20);
    const absl::Status status = ops.RecordSteps(forward);
    CHECK(status.code() == absl::StatusCode::kResourceExhausted);
    CHECK_THAT(std::string(status.message()), Catch::Contains("take 12 MiB") && Catch::Contains("has 8 MiB"));
  }
  simt::SetGraphBytes(0);
}

TEST_CASE("GraphCache: what cannot be recorded is called instead, and is no fault", "[cuda]") {
  auto stream = cuda::CudaStream::Create();
  REQUIRE(stream.ok());
  cuda::GraphCache cache(8);
  int num_calls = 0;
  const auto body = [&] {
    ++num_calls;
    (*stream)->Keep(cudaStreamSynchronize((*stream)->get()), "a wait");  // not while a stream records
  };
  for (int i = 0; i < 3; ++i) cache.Run(4, **stream, body);
  CHECK(cache.num_replays() == 0);
  CHECK(num_calls >= 3);
  CHECK((*stream)->Synchronize().ok());
  CHECK(cache.RoundedRows(4) == 0);
}

}  // namespace
}  // namespace millrace
