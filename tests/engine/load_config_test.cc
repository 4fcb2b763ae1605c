// SPDX-License-Identifier: Apache-2.0
// config.json and generation_config.json: what each field means, and hostile ones.
#include <catch2/catch.hpp>
#include <string>

#include "engine/load/hf_config.h"
#include "engine/load/weight_formats.h"
#include "engine/run/rope_table.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;

// A config of the architecture with further or replacing fields (the last of equal names is not read, so the base
// holds only what a test never replaces).
std::string Config(const std::string& architecture, const std::string& extra = "") {
  return R"({"architectures": [")" + architecture + R"("], "hidden_size": 256, "intermediate_size": 512,
    "num_attention_heads": 4, "num_hidden_layers": 6, "vocab_size": 1000)" +
         (extra.empty() ? "" : ", " + extra) + "}";
}

ModelInfo Parse(const std::string& json) {
  const auto info = ParseModelConfig(json);
  REQUIRE(info.status().ToString() == "OK");
  return *info;
}

std::string Error(const std::string& json) { return std::string(ParseModelConfig(json).status().message()); }

TEST_CASE("Config: defaults of each architecture", "[load]") {
  const ModelInfo llama = Parse(Config("LlamaForCausalLM"));
  CHECK(llama.num_kv_heads == 4);
  CHECK(llama.head_dim == 64);
  CHECK(llama.rope.theta == 10000.0);
  CHECK_FALSE(llama.has_tied_embeddings);
  CHECK_FALSE(llama.has_qkv_bias);
  CHECK(Parse(Config("Qwen2ForCausalLM")).has_qkv_bias);
  CHECK_FALSE(Parse(Config("Qwen2ForCausalLM")).has_o_bias);
  CHECK(Parse(Config("Qwen3ForCausalLM")).has_qk_norm);
  CHECK(Parse(Config("Qwen3ForCausalLM")).head_dim == 128);
  CHECK(Parse(Config("MistralForCausalLM", R"("head_dim": 32)")).head_dim == 32);
  CHECK(Parse(Config("LlamaForCausalLM", R"("attention_bias": true, "mlp_bias": true)")).has_o_bias);
  CHECK(Parse(Config("LlamaForCausalLM", R"("mlp_bias": true)")).has_mlp_bias);
}

TEST_CASE("Config: ids are a number, a list, null or -1", "[load]") {
  CHECK(Parse(Config("LlamaForCausalLM", R"("eos_token_id": 7)")).eos_token_ids == std::vector<int32_t>{7});
  CHECK(Parse(Config("LlamaForCausalLM", R"("eos_token_id": [7, 9])")).eos_token_ids == std::vector<int32_t>{7, 9});
  CHECK(Parse(Config("LlamaForCausalLM", R"("eos_token_id": null, "pad_token_id": -1)")).eos_token_ids.empty());
  CHECK_FALSE(Parse(Config("LlamaForCausalLM", R"("pad_token_id": -1)")).pad_token_id.has_value());
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("eos_token_id": "</s>")")), Contains("eos_token_id"));
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("eos_token_id": 4294967296)")), Contains("eos_token_id"));
}

TEST_CASE("Config: an id outside the vocabulary is refused with field and value", "[load]") {
  const std::string field = GENERATE("bos_token_id", "eos_token_id", "pad_token_id");
  CAPTURE(field);
  for (const char* value : {"1000", "[7, 1000]"}) {
    const auto info = ParseModelConfig(Config("LlamaForCausalLM", "\"" + field + "\": " + value));
    CHECK(absl::IsInvalidArgument(info.status()));
    CHECK_THAT(std::string(info.status().message()), Contains(field + ": 1000 is outside the vocabulary of 1000"));
  }
  CHECK_THAT(Error(Config("LlamaForCausalLM", "\"" + field + "\": 4294967296")), Contains(field + ": 4294967296"));
  Parse(Config("LlamaForCausalLM", "\"" + field + "\": 999"));
}

TEST_CASE("Config: rope scalings in the old and the new spelling", "[load]") {
  const char* const llama3 = R"({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"})";
  const ModelInfo old =
      Parse(Config("LlamaForCausalLM", std::string(R"("rope_theta": 500000.0, "rope_scaling": )") + llama3));
  CHECK(old.rope.scaling == RopeScaling::kLlama3);
  CHECK(old.rope.theta == 500000.0);
  CHECK(old.rope.factor == 8.0);
  CHECK(old.rope.original_max_positions == 8192);
  const ModelInfo renamed =
      Parse(Config("LlamaForCausalLM", R"("rope_parameters": {"rope_type": "linear", "factor": 2.0,
    "rope_theta": 1e6})"));
  CHECK(renamed.rope.scaling == RopeScaling::kLinear);
  CHECK(renamed.rope.theta == 1e6);
  const ModelInfo yarn =
      Parse(Config("Qwen2ForCausalLM", R"("max_position_embeddings": 32768, "rope_scaling": {"type": "yarn",
    "factor": 4.0, "original_max_position_embeddings": 32768})"));
  CHECK(yarn.rope.scaling == RopeScaling::kYarn);
  CHECK(yarn.max_positions == 131072);
  CHECK(RopeAttentionFactor(yarn.rope) == Approx(0.1 * std::log(4.0) + 1.0));
  CHECK(Parse(Config("LlamaForCausalLM", R"("rope_scaling": null)")).rope.scaling == RopeScaling::kNone);
  CHECK(Parse(Config("LlamaForCausalLM", R"("rope_parameters": {"rope_type": "default", "rope_theta": 5e4})"))
            .rope.theta == 5e4);
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("rope_scaling": {"type": "dynamic", "factor": 2})")),
             Contains("'dynamic' is not supported; supported: default, linear, llama3, yarn"));
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("rope_scaling": {"type": "yarn", "factor": 2, "truncate": false})")),
             Contains("truncate"));
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("rope_scaling": {"type": "linear", "factor": 0})")),
             Contains("factor"));
  CHECK_THAT(Error(Config("LlamaForCausalLM", R"("rope_scaling": [1])")), Contains("rope_scaling"));
}

TEST_CASE("RopeFrequencies: divisors of their own divide after the scaling", "[load]") {
  RopeParams params;
  params.frequency_divisors = {1, 2, 4, 8};
  const std::vector<double> plain = RopeFrequencies(RopeParams{}, 8), divided = RopeFrequencies(params, 8);
  for (size_t i = 0; i < 4; ++i) CHECK(divided[i] == Approx(plain[i] / static_cast<double>(1 << i)));
}

TEST_CASE("Config: a sliding window holds for all layers or none", "[load]") {
  CHECK(Parse(Config("MistralForCausalLM", R"("sliding_window": 4096)")).window_tokens == 4096);
  CHECK(Parse(Config("MistralForCausalLM", R"("sliding_window": null)")).window_tokens == 0);
  CHECK(Parse(Config("LlamaForCausalLM", R"("sliding_window": 4096)")).window_tokens == 0);
  const std::string window = R"("sliding_window": 4096, "use_sliding_window": )";
  CHECK(Parse(Config("Qwen2ForCausalLM", window + "false")).window_tokens == 0);
  CHECK(Parse(Config("Qwen2ForCausalLM", window + R"(true, "max_window_layers": 6)")).window_tokens == 0);
  CHECK(Parse(Config("Qwen2ForCausalLM", window + R"(true, "max_window_layers": 0)")).window_tokens == 4096);
  CHECK_THAT(Error(Config("Qwen2ForCausalLM", window + R"(true, "max_window_layers": 3)")),
             Contains("some layers only"));
  CHECK(Parse(Config("Qwen3ForCausalLM", window + R"(true, "layer_types": ["sliding_attention", "sliding_attention"])"))
            .window_tokens == 4096);
  CHECK(Parse(Config("Qwen3ForCausalLM", window + R"(true, "layer_types": ["full_attention"])")).window_tokens == 0);
  CHECK_THAT(Error(Config("Qwen3ForCausalLM", R"("layer_types": ["full_attention", "sliding_attention"])")),
             Contains("some layers only"));
  CHECK_THAT(Error(Config("Qwen3ForCausalLM", R"("layer_types": ["linear_attention"])")), Contains("linear_attention"));
}

TEST_CASE("Config: quantisation methods", "[load]") {
  const auto quantized = [](const std::string& fields) {
    return Config("LlamaForCausalLM", R"("quantization_config": {)" + fields + "}");
  };
  const ModelInfo gptq =
      Parse(quantized(R"("quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true, "sym": true)"));
  CHECK(gptq.quantization.method == CheckpointQuantization::Method::kGptq);
  CHECK(gptq.quantization.uses_activation_order);
  CHECK_FALSE(gptq.quantization.has_true_zeros);
  CHECK(Parse(quantized(R"("quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2")"))
            .quantization.has_true_zeros);
  const ModelInfo awq = Parse(
      quantized(R"("quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": true, "version": "GEMM")"));
  CHECK(awq.quantization.group_size == 64);
  CHECK_FALSE(awq.quantization.is_symmetric);
  CHECK_THAT(Error(quantized(R"("quant_method": "gptq", "bits": 3)")), Contains("3 bits"));
  CHECK_THAT(Error(quantized(R"("quant_method": "awq", "bits": 4, "version": "gemv")")), Contains("gemv"));
  CHECK_THAT(Error(quantized(R"("quant_method": "fp8")")), Contains("'fp8' is not supported; supported: gptq, awq"));
}

TEST_CASE("Config: a hostile or foreign one is refused with the field", "[load]") {
  struct Case {
    std::string json;
    const char* message;
  };
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "[";
  const Case test = GENERATE_COPY(values<Case>({
      {"", "config.json"},
      {"[]", "config.json"},
      {"{\"a\": " + nested, "config.json"},
      {std::string(9u << 20, ' '), "too large"},
      {"{}", "supported: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"},
      {Config("MambaForCausalLM"), "'MambaForCausalLM' is not supported"},
      {R"({"architectures": ["LlamaForCausalLM"]})", "num_hidden_layers: missing"},
      {Config("LlamaForCausalLM", R"("num_key_value_heads": 3)"), "4 attention heads are no multiple of 3"},
      {Config("LlamaForCausalLM", R"("num_key_value_heads": 0)"), "num_key_value_heads: 0 is outside"},
      {Config("LlamaForCausalLM", R"("head_dim": 63)"), "a head dimension of 63"},
      {Config("LlamaForCausalLM", R"("head_dim": "x")"), "head_dim: not a whole number"},
      {Config("LlamaForCausalLM", R"("max_position_embeddings": 99999999999)"), "max_position_embeddings"},
      {Config("LlamaForCausalLM", R"("rms_norm_eps": -1)"), "rms_norm_eps"},
      {Config("LlamaForCausalLM", R"("hidden_act": "gelu")"), "hidden_act"},
      {Config("LlamaForCausalLM", R"("partial_rotary_factor": 0.5)"), "partial_rotary_factor"},
      {Config("LlamaForCausalLM", R"("tie_word_embeddings": 1)"), "tie_word_embeddings"},
      {Config("LlamaForCausalLM", R"("quantization_config": 1)"), "quantization_config"},
  }));
  CAPTURE(test.message);
  CHECK_THAT(Error(test.json), Contains(test.message));
}

TEST_CASE("generation_config.json: gives defaults and the ends", "[load]") {
  ModelInfo info = Parse(Config("LlamaForCausalLM", R"("eos_token_id": 7)"));
  REQUIRE(ParseGenerationConfig(R"({"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05,
    "eos_token_id": [1, 2], "do_sample": true})",
                                info)
              .ok());
  CHECK(info.default_temperature == 0.6f);
  CHECK(info.default_top_k == 20);
  CHECK(info.default_top_p == 0.95f);
  CHECK(info.default_repetition_penalty == 1.05f);
  CHECK(info.eos_token_ids == std::vector<int32_t>{1, 2});
  CHECK_FALSE(ParseGenerationConfig(R"({"temperature": "hot"})", info).ok());
  CHECK_FALSE(ParseGenerationConfig("{", info).ok());
  CHECK_THAT(std::string(ParseGenerationConfig(R"({"eos_token_id": [1, 1000]})", info).message()),
             Contains("eos_token_id: 1000 is outside the vocabulary of 1000"));
}

TEST_CASE("DeviceActivations: float16 for float16 weights that stay dense, and where it is asked for", "[load]") {
  ModelInfo float16, bfloat16, float32, gptq, gguf;
  float16.dtype_name = gptq.dtype_name = gguf.dtype_name = "float16";
  float16.source = "/models/org/name";
  bfloat16.dtype_name = "bfloat16";
  float32.dtype_name = "float32";
  gptq.quantization.method = CheckpointQuantization::Method::kGptq;
  gguf.source = "/models/m.gguf";
  CHECK(DeviceActivations(float16, {}) == DType::kF16);
  CHECK(DeviceActivations(float16, {.quantization = "int4"}) == DType::kBF16);
  CHECK(DeviceActivations(float16, {.dtype = "bfloat16"}) == DType::kBF16);
  for (const ModelInfo& info : {bfloat16, float32, gptq, gguf}) {
    CHECK(DeviceActivations(info, {}) == DType::kBF16);
    CHECK(DeviceActivations(info, {.dtype = "float32"}) == DType::kBF16);
    CHECK(DeviceActivations(info, {.dtype = "float16"}) == DType::kF16);
  }
}

TEST_CASE("OptionsFor: by itself a device's dense weights take its activations' type, and the CPU's the file's",
          "[load]") {
  ModelInfo info;
  info.dtype_name = "float16";
  const auto dense = [&info](const std::string& dtype, DType activations) {
    return ChooseWeightFormats(info, OptionsFor({.dtype = dtype}, activations))->linear.dtype;
  };
  CHECK(dense("auto", DType::kF32) == DType::kF16);
  CHECK(dense("auto", DType::kBF16) == DType::kBF16);  // from float32 tensors at once, not by way of float16
  CHECK(dense("auto", DType::kF16) == DType::kF16);
  CHECK(dense("float32", DType::kBF16) == DType::kF32);
}

}  // namespace
}  // namespace millrace
