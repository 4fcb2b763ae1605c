// SPDX-License-Identifier: Apache-2.0
// Models divided among ranks of the CPU against the same models whole.
#include "engine/run/rank_group.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/load/memory_plan.h"
#include "engine/load/model_part.h"
#include "engine/load/quantize_checkpoint.h"
#include "engine/load/weight_plan.h"
#include "engine/run/runner.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/json_numbers.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace {
namespace {

using testing::TemporaryDir;
using testing::TinyCheckpoint;

std::string GoldenDir(const std::string& name) {
  return std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/" + name;
}
std::string BundledDir() { return std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny"; }

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

double CosineDistance(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return 1.0 - ab / std::sqrt(aa * bb);
}

// Two float32 forward passes that add in different orders: each of their matmuls rounds sums of up to K products, and
// all these roundings, independent of one another, wander by the root of their number at the logits' scale.
double Float32Tolerance(const ModelInfo& info, const std::vector<float>& logits) {
  double largest = 0;
  for (const float logit : logits) largest = std::max(largest, std::abs(static_cast<double>(logit)));
  const double num_matmuls = 7.0 * info.num_layers + 1;
  const double num_products = std::max({info.hidden_dim, info.ffn_dim, info.experts.ffn_dim});
  return 2 * std::ldexp(1.0, -24) * std::sqrt(num_matmuls * num_products) * largest;
}

FixtureOptions Options(int num_ranks, const std::string& quantization = "") {
  FixtureOptions options{.dtype = quantization.empty() ? "float32" : "bfloat16", .quantization = quantization};
  options.num_threads = 1;
  options.num_ranks = num_ranks;
  return options;
}

TEST_CASE("RankGroup: every architecture gives the whole model's logits and greedy ids", "[ranks][golden]") {
  const std::string name = GENERATE("llama2", "llama3", "llama_yarn", "llama_linear", "mistral", "qwen2", "qwen3",
                                    "qwen3_moe", "qwen3_moe_mixed", "mixtral");
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(name, num_ranks);
  const GoldenFile golden(GoldenDir(name) + "/golden.json");
  const auto prompt = golden.Numbers<int32_t>("/prompt");
  const int num_tokens = static_cast<int>(prompt.size());
  ModelFixture whole(GoldenDir(name), Options(1)), ranks(GoldenDir(name), Options(num_ranks));
  const std::vector<float> expected = whole.Logits(prompt, 0, num_tokens);
  const std::vector<float> logits = ranks.Logits(prompt, 0, num_tokens);
  CHECK(ranks.Wait().ok());
  CHECK(LargestDifference(logits, expected) < Float32Tolerance(whole.model().info(), expected));
  CHECK(LargestDifference(ranks.LastHidden(prompt), whole.LastHidden(prompt)) < 1e-5);
  CHECK(ranks.Greedy(prompt, 16) == golden.Numbers<int32_t>("/greedy"));
  // The same bits in another run.
  ModelFixture again(GoldenDir(name), Options(num_ranks));
  CHECK(again.Logits(prompt, 0, num_tokens) == logits);
}

// Of the rows, so that those do not count where rounding tips a router's choice between two experts.
double MedianCosineDistance(const std::vector<float>& a, const std::vector<float>& b, int num_rows) {
  std::vector<double> distances;
  const auto row_of = [num_rows](const std::vector<float>& rows, int row) {
    const auto cols = static_cast<std::ptrdiff_t>(rows.size()) / num_rows;
    return std::vector<float>(rows.begin() + row * cols, rows.begin() + (row + 1) * cols);
  };
  for (int row = 0; row < num_rows; ++row) distances.push_back(CosineDistance(row_of(a, row), row_of(b, row)));
  std::sort(distances.begin(), distances.end());
  return distances[distances.size() / 2];
}

// Quantised activations have a scale for each row of a matrix's inputs, of which a rank sees a part: the ranks' logits
// are not the whole's, but as near to those in full precision.
void CheckAsExact(const std::string& dir, const FixtureOptions& options, const std::vector<float>& exact,
                  const std::vector<int32_t>& prompt) {
  FixtureOptions whole_options = options;
  whole_options.num_ranks = 1;
  ModelFixture whole(dir, whole_options), ranks(dir, options);
  const int num_tokens = static_cast<int>(prompt.size());
  const std::vector<float> expected = whole.Logits(prompt, 0, num_tokens);
  const std::vector<float> logits = ranks.Logits(prompt, 0, num_tokens);
  const auto distance = [&](const std::vector<float>& a, const std::vector<float>& b) {
    return whole.model().info().experts.num_experts > 0 ? MedianCosineDistance(a, b, num_tokens) : CosineDistance(a, b);
  };
  CHECK(distance(logits, exact) < 1.5 * distance(expected, exact) + 1e-6);
  CHECK(distance(logits, expected) < 2 * distance(expected, exact) + 1e-6);
}

TEST_CASE("RankGroup: int8 weights and 8-bit caches stay as near to full precision as in one rank", "[ranks][golden]") {
  const std::string name = GENERATE("llama2", "llama3", "llama_yarn", "llama_linear", "mistral", "qwen2", "qwen3",
                                    "qwen3_moe", "qwen3_moe_mixed", "mixtral");
  const DType kv_dtype = GENERATE(DType::kBF16, DType::kI8);
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(name, num_ranks, DTypeName(kv_dtype));
  const auto prompt = GoldenFile(GoldenDir(name) + "/golden.json").Numbers<int32_t>("/prompt");
  ModelFixture float32(GoldenDir(name), Options(1));
  FixtureOptions options = Options(num_ranks, "int8");
  options.kv_dtype = kv_dtype;
  CheckAsExact(GoldenDir(name), options, float32.Logits(prompt, 0, static_cast<int>(prompt.size())), prompt);
}

const std::vector<int32_t> kTinyPrompt = {1, 17, 33, 2, 95, 64, 8, 9, 50, 71, 23};

TEST_CASE("RankGroup: int4, made here or stored, stays as near to full precision as in one rank", "[ranks]") {
  const std::string quantization = GENERATE("int8", "int4", "int4-g32");
  const bool is_stored = GENERATE(false, true);
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(quantization, is_stored, num_ranks);
  const TemporaryDir dir, parent;
  TinyCheckpoint().Write(dir.path());
  ModelFixture float32(dir.string(), Options(1));
  const auto exact = float32.Logits(kTinyPrompt, 0, static_cast<int>(kTinyPrompt.size()));
  if (!is_stored) return CheckAsExact(dir.string(), Options(num_ranks, quantization), exact, kTinyPrompt);
  const std::string copy = (parent.path() / "copy").string();
  REQUIRE(QuantizeCheckpoint(dir.string(), copy, {.quantization = quantization}).status().ToString() == "OK");
  FixtureOptions options = Options(num_ranks);
  options.dtype = "bfloat16";
  CheckAsExact(copy, options, exact, kTinyPrompt);
}

TEST_CASE("RankGroup: experts in every format stay as near to full precision as in one rank", "[ranks][experts]") {
  const std::string architecture = GENERATE("Qwen3MoeForCausalLM", "MixtralForCausalLM");
  const std::string quantization = GENERATE("int8", "int4", "int4-g32");
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(architecture, quantization, num_ranks);
  const TemporaryDir dir;
  testing::WriteFile(dir.path() / "config.json", R"({"architectures": [")" + architecture + R"("], "hidden_size": 64,
    "intermediate_size": 256, "moe_intermediate_size": 256, "num_local_experts": 6, "num_experts_per_tok": 2,
    "num_attention_heads": 4, "head_dim": 32, "num_hidden_layers": 2, "vocab_size": 96})");
  FixtureOptions float32 = Options(1), options = Options(num_ranks, quantization);
  float32.load_format = options.load_format = "dummy";
  ModelFixture exact(dir.string(), float32);
  CheckAsExact(dir.string(), options, exact.Logits(kTinyPrompt, 0, static_cast<int>(kTinyPrompt.size())), kTinyPrompt);
}

TEST_CASE("RankGroup: the bundled model draws the whole model's tokens in every format", "[ranks]") {
  const std::string quantization = GENERATE("", "int8", "int4");
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(quantization, num_ranks);
  const GoldenFile golden(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/millrace-tiny/greedy.json");
  auto prompt = golden.Numbers<int32_t>("/greedy/0/prompt_ids");
  if (prompt.size() > 40) prompt.resize(40);
  ModelFixture whole(BundledDir(), Options(1, quantization)), ranks(BundledDir(), Options(num_ranks, quantization));
  CHECK(ranks.Greedy(prompt, 24) == whole.Greedy(prompt, 24));
}

TEST_CASE("RankGroup: a rank's memory shrinks with their number", "[ranks]") {
  const auto device = MakeCpuDevice({.num_threads = 1});
  const auto info = ReadModelInfo(BundledDir(), {});
  REQUIRE(info.ok());
  const auto plan = [&](int num_ranks) {
    const auto made =
        PlanMemory(*PartOf(*info, 0, num_ranks), {}, {.available_bytes = size_t{4} << 30}, (*device)->ops());
    REQUIRE(made.status().ToString() == "OK");
    return *made;
  };
  const MemoryPlan whole = plan(1), half = plan(2), quarter = plan(4);
  // Norms and QK norms are every rank's.
  CHECK(half.weight_bytes < whole.weight_bytes * 51 / 100);
  CHECK(quarter.weight_bytes < half.weight_bytes * 76 / 100);  // two key-value heads: ranks share them
  CHECK(half.page_bytes == whole.page_bytes / 2);
  CHECK(quarter.page_bytes == half.page_bytes);
  CHECK_THAT(FormatMemoryPlan(half), Catch::StartsWith("memory plan of each of 2 ranks\n"));
  CHECK_THAT(FormatMemoryPlan(whole), Catch::StartsWith("memory plan\n"));
}

// A device that is lost after so many waits.
class FragileDevice final : public Device {
 public:
  FragileDevice(std::unique_ptr<Device> cpu, int num_waits) : cpu_(std::move(cpu)), num_waits_(num_waits) {}
  std::string name() const override { return "fragile"; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override { return cpu_->Allocate(num_bytes); }
  size_t available_bytes() const override { return cpu_->available_bytes(); }
  bool shares_host_memory() const override { return true; }
  absl::Status CopyToDevice(void* device, const void* host, size_t num_bytes) override {
    return cpu_->CopyToDevice(device, host, num_bytes);
  }
  absl::Status CopyToHost(void* host, const void* device, size_t num_bytes) override {
    return cpu_->CopyToHost(host, device, num_bytes);
  }
  Ops& ops() override { return cpu_->ops(); }
  absl::Status Wait() override {
    return num_waits_-- > 0 ? absl::OkStatus() : absl::InternalError("the card fell out");
  }
  absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(absl::Span<Device* const> devices) override {
    return cpu_->Connect(devices);
  }

 private:
  const std::unique_ptr<Device> cpu_;
  int num_waits_;
};

TEST_CASE("RankGroup: a rank whose device is lost fails the step, and no rank waits for ever", "[ranks]") {
  const int lost_rank = GENERATE(0, 1, 2, 3);
  CAPTURE(lost_rank);
  const auto info = ReadModelInfo(GoldenDir("llama3"), {});
  REQUIRE(info.ok());
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < 4; ++rank) {
    devices.push_back(
        std::make_unique<FragileDevice>(*MakeCpuDevice({.num_threads = 1}), rank == lost_rank ? 1 : 1000));
  }
  const ModelLimits limits{.max_rows = 8, .max_logit_rows = 8, .max_positions = 16, .num_pages = 4, .page_tokens = 4};
  auto ranks = ConnectRanks(std::move(devices));
  REQUIRE(ranks.ok());
  auto model = LoadModel(*info, {}, limits, *ranks);
  REQUIRE(model.status().ToString() == "OK");
  REQUIRE(ranks->devices.size() == 1);
  Runner runner(std::move(*model), *ranks->devices[0]);
  Request request{.prompt_tokens = {1, 2, 3}, .max_new_tokens = 1};
  const std::vector<PageId> pages = {0, 1};
  StepPlan plan;
  plan.sequences.push_back({.request = &request,
                            .num_tokens = 3,
                            .tokens = request.prompt_tokens,
                            .num_prompt_tokens = 3,
                            .pages = pages,
                            .samples = true});
  plan.num_rows = 3;
  StepResult result;
  CHECK(runner.Run(plan, &result).ToString() == "OK");
  for (int i = 0; i < 2; ++i) CHECK(runner.Run(plan, &result) == absl::InternalError("the card fell out"));
}

TEST_CASE("LoadModel: a model that does not divide among its devices is refused", "[ranks]") {
  const auto info = ReadModelInfo(GoldenDir("llama3"), {});
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < 3; ++rank) devices.push_back(*MakeCpuDevice({.num_threads = 1}));
  const ModelLimits limits{.max_rows = 8, .max_logit_rows = 8, .max_positions = 16, .num_pages = 4, .page_tokens = 4};
  auto ranks = ConnectRanks(std::move(devices));
  REQUIRE(ranks.ok());
  const absl::Status status = LoadModel(*info, {}, limits, *ranks).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Catch::Contains("4 attention heads"));
}

}  // namespace
}  // namespace millrace
