// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: configs right and wrong, GGUF's stacked tensors, quantised experts, and what they take.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "engine/load/gguf_model.h"
#include "engine/load/gguf_weights.h"
#include "engine/load/hf_config.h"
#include "engine/load/memory_plan.h"
#include "engine/load/model_shape.h"
#include "engine/load/quantize_checkpoint.h"
#include "engine/load/tensor_source.h"
#include "engine/load/weight_plan.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/json_numbers.h"
#include "tests/support/safetensors_writer.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;
using testing::GgufWriter;
using testing::TemporaryDir;
using testing::WriteFile;

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

std::string GoldenDir(const std::string& name) {
  return std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/" + name;
}
std::vector<int32_t> GoldenPrompt(const std::string& name) {
  return GoldenFile(GoldenDir(name) + "/golden.json").Numbers<int32_t>("/prompt");
}

std::string Config(const std::string& architecture, const std::string& extra) {
  return R"({"architectures": [")" + architecture + R"("], "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_hidden_layers": 6, "vocab_size": 100, )" +
         extra + "}";
}
std::string Qwen(const std::string& extra = "") {
  return Config("Qwen3MoeForCausalLM", R"("num_experts_per_tok": 2, "moe_intermediate_size": 32)" + extra);
}

ModelInfo Parse(const std::string& json) {
  const auto info = ParseModelConfig(json);
  REQUIRE(info.status().ToString() == "OK");
  return *info;
}

TEST_CASE("Config: experts of Qwen3-MoE and Mixtral", "[load][experts]") {
  const ModelInfo qwen = Parse(Qwen(R"(, "num_experts": 8, "norm_topk_prob": true, "mlp_only_layers": null)"));
  CHECK(qwen.architecture == Architecture::kQwen3Moe);
  CHECK(qwen.experts.num_experts == 8);
  CHECK(qwen.experts.num_choices == 2);
  CHECK(qwen.experts.ffn_dim == 32);
  CHECK(qwen.experts.is_normalized);
  CHECK(qwen.has_qk_norm);
  CHECK(qwen.head_dim == 16);
  CHECK(DenseFfnDim(qwen) == 0);
  // Per layer: q, k, v, o of 64 x 64; 8 experts of 3 x 64 x 32; the router; norms of 64, 64, 16 and 16.
  CHECK(qwen.num_parameters == 6 * (4 * 64 * 64 + 8 * 3 * 64 * 32 + 8 * 64 + 160) + 2 * 100 * 64 + 64);

  const ModelInfo renamed = Parse(Qwen(R"(, "num_local_experts": 4)"));
  CHECK(renamed.experts.num_experts == 4);
  CHECK_FALSE(renamed.experts.is_normalized);

  const ModelInfo mixtral =
      Parse(Config("MixtralForCausalLM", R"("num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": null)"));
  CHECK(mixtral.architecture == Architecture::kMixtral);
  CHECK(mixtral.experts.ffn_dim == 96);
  CHECK(mixtral.experts.is_normalized);
  CHECK_FALSE(mixtral.has_qk_norm);
  CHECK_FALSE(mixtral.has_qkv_bias);
}

TEST_CASE("Config: layers without experts are those of the step and of the list", "[load][experts]") {
  const ModelInfo info = Parse(Qwen(R"(, "num_experts": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3])"));
  std::vector<bool> has_experts;
  for (int32_t layer = 0; layer < 6; ++layer) has_experts.push_back(HasExperts(info, layer));
  CHECK(has_experts == std::vector<bool>{false, true, false, false, false, true});
  CHECK(DenseFfnDim(info) == 96);
  const LayerSpec dense = LayerSpecOf(info, 0), sparse = LayerSpecOf(info, 1);
  CHECK(dense.router.parts.empty());
  CHECK(dense.Linears().size() == 4);
  CHECK(sparse.gate_up.parts.empty());
  CHECK(sparse.Linears().size() == 2 + 2 * 8);
  CHECK(sparse.router.parts[0].name == "model.layers.1.mlp.gate");
}

TEST_CASE("Config: a sliding window of Qwen3-MoE is on all layers", "[load][experts]") {
  CHECK(Parse(Qwen(R"(, "num_experts": 8, "sliding_window": 32, "use_sliding_window": true)")).window_tokens == 32);
  CHECK(Parse(Qwen(R"(, "num_experts": 8, "sliding_window": 32)")).window_tokens == 0);
}

TEST_CASE("Config: experts that do not go together are refused with the field", "[load][experts]") {
  struct Case {
    std::string json;
    const char* message;
  };
  const auto test = GENERATE(values<Case>({
      {Qwen(), "num_local_experts: missing"},
      {Qwen(R"(, "num_experts": 0)"), "num_experts: 0 is outside"},
      {Qwen(R"(, "num_experts": 1)"), "2 experts a token of 1"},
      {Qwen(R"(, "num_experts": 513)"), "2 of 513 experts a token; supported: 32 of 512"},
      {Qwen(R"(, "num_experts": 1000000)"), "num_experts: 1000000 is outside"},
      {Qwen(R"(, "num_experts": 8, "decoder_sparse_step": 0)"), "decoder_sparse_step: 0 is outside"},
      {Qwen(R"(, "num_experts": 8, "mlp_only_layers": 3)"), "mlp_only_layers: not a list"},
      {Qwen(R"(, "num_experts": 8, "mlp_only_layers": [6])"), "mlp_only_layers: not a list of at most 6"},
      {Qwen(R"(, "num_experts": 8, "mlp_only_layers": [0, 0, 0, 0, 0, 0, 0])"), "mlp_only_layers: not a list of at"},
      {Config("Qwen3MoeForCausalLM", R"("num_experts": 8, "num_experts_per_tok": 2)"),
       "moe_intermediate_size: missing"},
      {Config("MixtralForCausalLM", R"("num_local_experts": 8)"), "num_experts_per_tok: missing"},
      {Config("MixtralForCausalLM", R"("num_local_experts": 64, "num_experts_per_tok": 33)"), "33 of 64 experts"},
  }));
  CAPTURE(test.json);
  CHECK_THAT(std::string(ParseModelConfig(test.json).status().message()), Contains(test.message));
}

TEST_CASE("Experts: a checkpoint that lacks one is refused by its name", "[load][experts]") {
  const TemporaryDir dir;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenDir("mixtral"))) {
    std::filesystem::copy(entry.path(), dir.path() / entry.path().filename());
  }
  std::ifstream file(dir.path() / "config.json");
  std::string config((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string four = "\"num_local_experts\": 4";
  config.replace(config.find(four), four.size(), "\"num_local_experts\": 5");
  WriteFile(dir.path() / "config.json", config);
  auto device = *MakeCpuDevice({.num_threads = 1});
  const auto weights = LoadWeights(*ReadModelInfo(dir.string(), {}), {}, *device);
  CHECK_THAT(std::string(weights.status().message()),
             Contains("6 tensors are missing") && Contains("model.layers.0.block_sparse_moe.experts.4.w1.weight"));
}

size_t HeldBytes(const ModelWeights& weights) {
  size_t num_bytes =
      weights.lm_head->num_bytes() +
      static_cast<size_t>(weights.embedding.rows * weights.embedding.cols) * DTypeBytes(weights.embedding.dtype);
  for (const LayerWeights& layer : weights.layers) {
    num_bytes += layer.qkv->num_bytes() + layer.o->num_bytes() + layer.router->num_bytes();
    num_bytes += layer.expert_gate_up->num_bytes() + layer.expert_down->num_bytes();
  }
  return num_bytes;
}

TEST_CASE("PlanMemory: experts take what was planned, in every format", "[load][experts]") {
  const std::string quantization = GENERATE("", "int8", "int4");
  CAPTURE(quantization);
  const TemporaryDir dir;
  WriteFile(
      dir.path() / "config.json",
      Config("Qwen3MoeForCausalLM", R"("num_experts_per_tok": 2, "moe_intermediate_size": 256, "num_experts": 16)"));
  auto device = *MakeCpuDevice({.num_threads = 1});
  const LoadOptions load = {.load_format = "dummy", .quantization = quantization};
  const ModelInfo info = *ReadModelInfo(dir.string(), load);
  const MemoryPlanOptions options = {.available_bytes = size_t{1} << 30, .max_step_tokens = 64};
  const auto plan = PlanMemory(info, load, options, device->ops());
  REQUIRE(plan.status().ToString() == "OK");
  const auto weights = LoadWeights(info, load, *device);
  REQUIRE(weights.status().ToString() == "OK");
  CHECK(HeldBytes(*weights) <= plan->weight_bytes + 64 * 1024);
  CHECK(static_cast<double>(HeldBytes(*weights)) >= static_cast<double>(plan->weight_bytes) * 0.9);
  // One expert's matrix is built at a time.
  CHECK(plan->scratch_bytes <= 2 * 256 * 64 * sizeof(float) + 100 * 64 * sizeof(float));
  // Of 64 rows: gate and up, their product and rows in and out of 2 experts each.
  CHECK(plan->activation_bytes > 64 * 2 * (3 * 256 + 64) * sizeof(float));
}

TEST_CASE("Experts: a quantised copy loads bit for bit as quantising on load", "[load][experts]") {
  const std::string name = GENERATE("qwen3_moe", "mixtral");
  const std::string quantization = name == "mixtral" ? "int8" : GENERATE("int8", "int4-g32");
  CAPTURE(name, quantization);
  const TemporaryDir dir;
  const std::string out = (dir.path() / "out").string();
  const auto result = QuantizeCheckpoint(GoldenDir(name), out, {.quantization = quantization});
  REQUIRE(result.status().ToString() == "OK");
  const auto prompt = GoldenPrompt(name);
  ModelFixture on_load(GoldenDir(name), {.dtype = "bfloat16", .quantization = quantization});
  ModelFixture copy(out, {.dtype = "bfloat16"});
  CHECK(on_load.Logits(prompt, 0, 24) == copy.Logits(prompt, 0, 24));
}

// What a checkpoint's quantiser left of each matrix.
class StoredForms final : public TensorSource {
 public:
  explicit StoredForms(std::map<std::string, StoredForm> forms) : forms_(std::move(forms)) {}
  bool Has(const std::string& /*name*/) const override { return true; }
  absl::StatusOr<MatrixRows> Matrix(const std::string& /*name*/, int64_t /*n*/, int64_t /*k*/) override {
    return absl::InternalError("not asked for");
  }
  absl::StatusOr<std::vector<float>> Vector(const std::string& /*name*/, int64_t /*n*/) override {
    return absl::InternalError("not asked for");
  }
  absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& name, int64_t /*n*/, int64_t /*k*/) override {
    const auto found = forms_.find(name);
    if (found == forms_.end()) return std::nullopt;
    return found->second;
  }

 private:
  const std::map<std::string, StoredForm> forms_;
};

TEST_CASE("PlanExperts: all experts of a layer get one format", "[load][experts]") {
  const StoredForm int4 = {.kind = {.format = WeightFormat::kInt4, .group_size = 128}};
  const StoredForm scattered = {.kind = {.format = WeightFormat::kInt8}, .is_exact = false};
  const std::vector<LinearSpec> specs = {{.parts = {{"a", 8}}, .k = 128}, {.parts = {{"b", 8}}, .k = 128}};
  const WeightKind wanted = {.dtype = DType::kF16};
  StoredForms alike({{"a", int4}, {"b", int4}}), different({{"a", int4}, {"b", scattered}}), halved({{"a", int4}});
  CHECK(PlanExperts(specs, wanted, true, alike)->is_stored);
  CHECK(PlanExperts(specs, wanted, true, alike)->kind.format == WeightFormat::kInt4);
  CHECK_FALSE(PlanExperts(specs, wanted, true, different)->is_stored);
  CHECK(PlanExperts(specs, wanted, true, different)->kind.format == WeightFormat::kInt8);
  CHECK(PlanExperts(specs, wanted, true, halved)->kind.format == WeightFormat::kDense);
}

// The golden Qwen3-MoE as a GGUF file: every tensor as it is, the experts' stacked.
class GgufCopy {
 public:
  explicit GgufCopy(const std::string& name) : info_(*ReadModelInfo(GoldenDir(name), {})) {
    tensors_ = *OpenTensors(info_, {});
    Metadata();
    Add("model.embed_tokens.weight", info_.vocab_tokens, info_.hidden_dim);
    Add("lm_head.weight", info_.vocab_tokens, info_.hidden_dim);
    AddVector("model.norm.weight", info_.hidden_dim);
    for (int32_t layer = 0; layer < info_.num_layers; ++layer) AddLayer(layer);
  }
  GgufWriter writer;

 private:
  void Metadata() {
    const std::string prefix = "qwen3moe.";
    const auto number = [&](const char* key, int32_t value) { writer.U32(prefix + key, static_cast<uint32_t>(value)); };
    writer.String("general.architecture", "qwen3moe");
    number("block_count", info_.num_layers);
    number("embedding_length", info_.hidden_dim);
    number("feed_forward_length", info_.ffn_dim);
    number("attention.head_count", info_.num_heads);
    number("attention.head_count_kv", info_.num_kv_heads);
    number("attention.key_length", info_.head_dim);
    number("attention.value_length", info_.head_dim);
    number("context_length", info_.max_positions);
    number("expert_count", info_.experts.num_experts);
    number("expert_used_count", info_.experts.num_choices);
    number("expert_feed_forward_length", info_.experts.ffn_dim);
    writer.F32(prefix + "attention.layer_norm_rms_epsilon", info_.norm_eps);
    writer.F32(prefix + "rope.freq_base", static_cast<float>(info_.rope.theta));
  }
  void AddLayer(int32_t layer) {
    const LayerSpec spec = LayerSpecOf(info_, layer);
    for (const std::string& name : {spec.attn_norm, spec.mlp_norm}) AddVector(name, info_.hidden_dim);
    for (const std::string& name : {spec.q_norm, spec.k_norm}) AddVector(name, info_.head_dim);
    for (const LinearSpec* linear : {&spec.qkv, &spec.o, &spec.router}) {
      for (const LinearSpec::Part& part : linear->parts) Add(part.name + ".weight", part.n, linear->k);
    }
    for (const auto* experts : {&spec.expert_gate_ups, &spec.expert_downs}) {
      for (size_t part = 0; part < experts->front().parts.size(); ++part) {
        std::string stacked;
        for (const LinearSpec& expert : *experts) stacked += Floats(expert.parts[part].name + ".weight", expert, part);
        const auto n = static_cast<uint64_t>(experts->front().parts[part].n);
        writer.Tensor(GgufTensorName(experts->front().parts[part].name + ".weight"), kF32,
                      {static_cast<uint64_t>(experts->front().k), n, experts->size()}, stacked);
      }
    }
  }
  std::string Floats(const std::string& name, const LinearSpec& spec, size_t part) {
    return Floats(name, spec.parts[part].n, spec.k);
  }
  std::string Floats(const std::string& name, int64_t n, int64_t k) {
    const MatrixRows rows = *tensors_->Matrix(name, n, k);
    std::vector<float> values(static_cast<size_t>(n * k));
    for (int64_t row = 0; row < n; ++row) rows.read(row, values.data() + row * k);
    return testing::BytesOf(values);
  }
  void Add(const std::string& name, int64_t n, int64_t k) {
    writer.Tensor(GgufTensorName(name), kF32, {static_cast<uint64_t>(k), static_cast<uint64_t>(n)}, Floats(name, n, k));
  }
  void AddVector(const std::string& name, int64_t n) {
    writer.Tensor(GgufTensorName(name), kF32, {static_cast<uint64_t>(n)}, testing::BytesOf(*tensors_->Vector(name, n)));
  }

  const ModelInfo info_;
  std::unique_ptr<TensorSource> tensors_;
};

TEST_CASE("GGUF: a mixture of experts computes what the Hugging Face directory does", "[load][experts]") {
  const GgufCopy copy("qwen3_moe");
  const TemporaryDir dir;
  WriteFile(dir.path() / "m.gguf", copy.writer.Bytes());
  const auto prompt = GoldenPrompt("qwen3_moe");
  ModelFixture gguf((dir.path() / "m.gguf").string()), directory(GoldenDir("qwen3_moe"));
  CHECK(gguf.model().info().architecture_name == "Qwen3MoeForCausalLM");
  CHECK(gguf.Logits(prompt, 0, 24) == directory.Logits(prompt, 0, 24));
}

GgufWriter MixtralMetadata() {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  for (const auto& [key, value] : std::map<std::string, uint32_t>{{"block_count", 1},
                                                                  {"embedding_length", 64},
                                                                  {"feed_forward_length", 96},
                                                                  {"attention.head_count", 4},
                                                                  {"expert_count", 3}}) {
    writer.U32("llama." + key, value);
  }
  writer.Tensor("token_embd.weight", kF32, {64, 8}, std::string(64 * 8 * 4, '\0'));
  return writer;
}

absl::StatusOr<ModelInfo> InfoOf(const GgufWriter& writer) {
  const std::string bytes = writer.Bytes();
  const auto file = ParseGguf(bytes);
  REQUIRE(file.status().ToString() == "OK");
  return GgufModelInfo(*file);
}

TEST_CASE("GGUF: a llama with experts is Mixtral, and its experts are parts of one tensor", "[load][experts]") {
  GgufWriter writer = MixtralMetadata();
  writer.U32("llama.expert_used_count", 2);
  std::string q8;
  for (int expert = 0; expert < 3; ++expert) {
    for (int block = 0; block < 96 * 64 / 32; ++block)
      q8 += std::string("\x00\x3c", 2) + std::string(32, static_cast<char>(expert + 1));
  }
  writer.Tensor("blk.0.ffn_up_exps.weight", kQ8_0, {64, 96, 3}, q8);
  const auto info = InfoOf(writer);
  REQUIRE(info.status().ToString() == "OK");
  CHECK(info->architecture == Architecture::kMixtral);
  CHECK(info->experts.num_experts == 3);
  CHECK(info->experts.num_choices == 2);
  CHECK(info->experts.ffn_dim == 96);
  CHECK(info->rope.interleaved);
  const TemporaryDir dir;
  WriteFile(dir.path() / "m.gguf", writer.Bytes());
  const auto source = *OpenGgufTensors((dir.path() / "m.gguf").string());
  const std::string experts = "model.layers.0.block_sparse_moe.experts.";
  for (int expert = 0; expert < 3; ++expert) {
    const std::string name = experts + std::to_string(expert) + ".w3";
    std::vector<float> row(64);
    source->Matrix(name + ".weight", 96, 64)->read(95, row.data());
    CHECK(row == std::vector<float>(64, static_cast<float>(expert + 1)));
    CHECK((*source->Stored(name, 96, 64))->values == std::vector<uint8_t>(96 * 64, static_cast<uint8_t>(expert + 1)));
    CHECK((*source->FormOf(name, 96, 64))->kind.format == WeightFormat::kInt8);
  }
  const auto error = [&](const std::string& name, int64_t n) {
    return std::string(source->Matrix(name, n, 64).status().message());
  };
  CHECK_THAT(error(experts + "3.w3.weight", 96), Contains("[3, 96, 64], the metadata asks for [4, 96, 64]"));
  CHECK_THAT(error(experts + "0.w3.weight", 32), Contains("asks for [3, 32, 64]"));
  CHECK_THAT(error(experts + "0.w1.weight", 96), Contains("blk.0.ffn_gate_exps.weight is missing"));
  CHECK_THAT(error(experts + "-1.w3.weight", 96), Contains("is missing"));
  CHECK_THAT(error(experts + "x.w3.weight", 96), Contains("is missing"));
}

TEST_CASE("GGUF: experts that do not go together are refused by key", "[load][experts]") {
  CHECK_THAT(std::string(InfoOf(MixtralMetadata()).status().message()),
             Contains("llama.expert_used_count' is missing"));
  GgufWriter many = MixtralMetadata();
  many.U32("llama.expert_used_count", 4);
  CHECK_THAT(std::string(InfoOf(many).status().message()), Contains("4 experts a token of 3"));
}

}  // namespace
}  // namespace millrace
