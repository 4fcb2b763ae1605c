// SPDX-License-Identifier: Apache-2.0
// The memory plan and the random weights it is tried on.
#include "engine/load/memory_plan.h"

#include <catch2/catch.hpp>
#include <string>

#include "engine/load/tensor_source.h"
#include "engine/load/weight_plan.h"
#include "engine/run/model.h"
#include "kernels/device.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;
using testing::TemporaryDir;
using testing::TinyCheckpoint;
using testing::WriteFile;

constexpr size_t kMiB = size_t{1} << 20;

// A model without weights: its config alone.
class Planned {
 public:
  explicit Planned(const std::string& extra = "") : device_(*MakeCpuDevice({.num_threads = 1})) {
    WriteFile(dir_.path() / "config.json", TinyCheckpoint::Config(extra));
    info_ = *ReadModelInfo(dir_.string(), {.load_format = "dummy"});
  }
  absl::StatusOr<MemoryPlan> Plan(const MemoryPlanOptions& options, const std::string& quantization = "") {
    return PlanMemory(info_, {.load_format = "dummy", .quantization = quantization}, options, device_->ops());
  }
  const ModelInfo& info() const { return info_; }
  Device& device() { return *device_; }
  std::string dir() const { return dir_.string(); }

 private:
  TemporaryDir dir_;
  std::unique_ptr<Device> device_;
  ModelInfo info_;
};

size_t HeldBytes(const ModelWeights& weights) {
  size_t num_bytes = weights.lm_head->num_bytes() + weights.final_norm.size() * 4;
  num_bytes +=
      static_cast<size_t>(weights.embedding.rows * weights.embedding.cols) * DTypeBytes(weights.embedding.dtype);
  for (const LayerWeights& layer : weights.layers) {
    for (const PackedWeight* weight : {layer.qkv.get(), layer.o.get(), layer.gate_up.get(), layer.down.get()}) {
      num_bytes += weight->num_bytes();
    }
    num_bytes += (layer.attn_norm.size() + layer.mlp_norm.size() + layer.qkv_bias.size()) * 4;
  }
  return num_bytes;
}

TEST_CASE("PlanMemory: weights take what was planned, in every format", "[load]") {
  const std::string dtype = GENERATE("float32", "bfloat16", "float16");
  const std::string quantization = GENERATE("", "int8", "int4", "int4-g32");
  CAPTURE(dtype, quantization);
  Planned model;
  const LoadOptions load = {.dtype = dtype, .load_format = "dummy", .quantization = quantization};
  const auto plan = PlanMemory(model.info(), load, {.available_bytes = 512 * kMiB}, model.device().ops());
  REQUIRE(plan.status().ToString() == "OK");
  const auto weights = LoadWeights(model.info(), load, model.device());
  REQUIRE(weights.status().ToString() == "OK");
  // Planned with zero points, which symmetric int4 does not hold; page buffers round up.
  CHECK(HeldBytes(*weights) <= plan->weight_bytes + 64 * 1024);
  CHECK(static_cast<double>(HeldBytes(*weights)) >= static_cast<double>(plan->weight_bytes) * 0.9);
  CHECK(plan->scratch_bytes > 0);
}

TEST_CASE("PlanMemory: pages fill what is left, up to what the sequences can use", "[load]") {
  Planned model;
  const auto wide = model.Plan({.available_bytes = 4096 * kMiB, .max_sequences = 4, .max_step_tokens = 64});
  REQUIRE(wide.status().ToString() == "OK");
  CHECK(wide->num_pages == 4 * 256 / 16);
  CHECK(wide->max_model_tokens == 256);
  CHECK(wide->total_bytes() <= wide->budget_bytes);

  const size_t fixed = wide->weight_bytes + wide->activation_bytes + wide->workspace_bytes;
  const size_t available = (fixed + 10 * (wide->page_bytes + RopeTableBytes(model.info().head_dim, 16))) * 2;
  const auto narrow =
      model.Plan({.available_bytes = available, .utilization = 0.5, .max_sequences = 4, .max_step_tokens = 64});
  REQUIRE(narrow.status().ToString() == "OK");
  CHECK(narrow->num_pages == 10);
  CHECK(narrow->max_model_tokens == 160);
  CHECK(narrow->total_bytes() <= available / 2);

  const auto given = model.Plan({.available_bytes = 4096 * kMiB,
                                 .kv_cache_bytes = static_cast<int64_t>(20 * wide->page_bytes),
                                 .max_sequences = 4,
                                 .max_step_tokens = 64});
  REQUIRE(given.status().ToString() == "OK");
  CHECK(given->num_pages == 20);
}

TEST_CASE("PlanMemory: the tables of a long model's positions count, and are refused with the numbers", "[load]") {
  Planned model;
  ModelInfo info = model.info();
  info.max_positions = 1 << 20;
  const auto plan = [&](size_t available, int32_t max_model_tokens) {
    const MemoryPlanOptions options = {.available_bytes = available,
                                       .utilization = 1,
                                       .max_model_tokens = max_model_tokens,
                                       .max_sequences = 1,
                                       .max_step_tokens = 64};
    return PlanMemory(info, {.load_format = "dummy"}, options, model.device().ops());
  };
  const auto roomy = plan(4096 * kMiB, 1 << 20);
  REQUIRE(roomy.status().ToString() == "OK");
  CHECK(roomy->rope_bytes == 128 * kMiB);
  CHECK(plan(roomy->total_bytes(), 1 << 20).ok());
  const absl::Status refused = plan(roomy->total_bytes() - 1, 1 << 20).status();
  CHECK(absl::IsResourceExhausted(refused));
  CHECK_THAT(std::string(refused.message()), Contains("RoPE tables 128.0 MiB"));
  const auto shrunk = plan(roomy->total_bytes() / 2, 0);
  REQUIRE(shrunk.status().ToString() == "OK");
  CHECK(shrunk->max_model_tokens > 450'000);
  CHECK(shrunk->rope_bytes == RopeTableBytes(info.head_dim, shrunk->max_model_tokens));
  CHECK(shrunk->total_bytes() <= shrunk->budget_bytes);
}

TEST_CASE("PlanMemory: a smaller KV type gives more tokens", "[load]") {
  Planned model;
  const auto pages = [&](const std::string& dtype) {
    const auto plan = model.Plan(
        {.available_bytes = 64 * kMiB, .kv_cache_dtype = dtype, .max_sequences = 100000, .max_step_tokens = 64});
    REQUIRE(plan.status().ToString() == "OK");
    return plan->num_pages;
  };
  CHECK(pages("float32") * 2 <= pages("bfloat16") + 2);
  CHECK(pages("int8") > pages("bfloat16") * 3 / 2);
  CHECK_FALSE(model.Plan({.available_bytes = 64 * kMiB, .kv_cache_dtype = "int3"}).ok());
  // A type there is, but not here.
  const auto refused = model.Plan({.available_bytes = 64 * kMiB, .kv_cache_dtype = "fp8"});
  CHECK(refused.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(refused.status().message()), Catch::Contains("fp8 is not available on this device"));
}

TEST_CASE("PlanMemory: what does not fit is refused with the numbers and the flags", "[load]") {
  Planned model;
  struct Case {
    MemoryPlanOptions options;
    const char* message;
  };
  const Case test = GENERATE_COPY(values<Case>({
      {{.available_bytes = kMiB}, "--quantization"},
      {{.available_bytes = 0}, "0.0 MiB available"},
      {{.available_bytes = 8 * kMiB, .utilization = 0.01}, "--gpu-memory-utilization"},
      {{.available_bytes = 64 * kMiB, .kv_cache_bytes = int64_t{1} << 40}, "KV cache at least 1024.00 GiB"},
      {{.available_bytes = 64 * kMiB, .kv_cache_bytes = 1}, "does not fit"},
      {{.available_bytes = 64 * kMiB, .kv_cache_bytes = 32 * 1024, .max_model_tokens = 256}, "--max-model-len"},
  }));
  CAPTURE(test.message);
  const auto plan = model.Plan(test.options);
  REQUIRE(plan.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(plan.status().message()), Contains(test.message));
  const auto too_long = model.Plan({.available_bytes = 64 * kMiB, .max_model_tokens = 512});
  CHECK(too_long.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(too_long.status().message()), Contains("exceeds the 256 positions"));
}

TEST_CASE("PlanMemory: the table tells every part", "[load]") {
  Planned model;
  const std::string table = FormatMemoryPlan(*model.Plan({.available_bytes = 1024 * kMiB}));
  for (const char* part :
       {"weights", "KV cache", "activations", "workspace", "RoPE tables", "total", "bfloat16", "available"}) {
    CHECK_THAT(table, Contains(part));
  }
}

TEST_CASE("PlanMemory: a checkpoint that lacks tensors is refused before anything is loaded", "[load]") {
  const TemporaryDir dir;
  TinyCheckpoint checkpoint;
  checkpoint.tensors.erase("model.layers.1.mlp.up_proj.weight");
  checkpoint.Write(dir.path());
  const auto device = *MakeCpuDevice({.num_threads = 1});
  const auto plan = PlanMemory(*ReadModelInfo(dir.string(), {}), {}, {.available_bytes = 64 * kMiB}, device->ops());
  CHECK_THAT(std::string(plan.status().message()), Contains("a tensor is missing: model.layers.1.mlp.up_proj.weight"));
}

TEST_CASE("Dummy weights: the same seed gives the same model, and its logits are finite", "[load]") {
  Planned model;
  const auto rows = [&](uint64_t seed, const std::string& name) {
    const auto source = *OpenTensors(model.info(), {.load_format = "dummy", .dummy_seed = seed});
    std::vector<float> values(128);
    source->Matrix(name, 128, 128)->read(17, values.data());
    return values;
  };
  CHECK(rows(1, "a") == rows(1, "a"));
  CHECK(rows(1, "a") != rows(2, "a"));
  CHECK(rows(1, "a") != rows(1, "b"));
  double squares = 0;
  for (const float value : rows(1, "a")) squares += static_cast<double>(value) * value;
  CHECK(squares == Approx(1.0).epsilon(0.35));

  const std::string quantization = GENERATE("", "int8", "int4");
  ModelFixture fixture(model.dir(), {.quantization = quantization, .load_format = "dummy"});
  for (const float logit : fixture.Logits({1, 2, 3, 4, 5}, 0, 5)) REQUIRE(std::isfinite(logit));
}

}  // namespace
}  // namespace millrace
