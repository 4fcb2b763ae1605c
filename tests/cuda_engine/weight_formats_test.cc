// SPDX-License-Identifier: Apache-2.0
// Models of random weights in every architecture, weight format and KV format, on the CUDA backend against the CPU
// backend. On a GPU they are large enough to fill the tiles of its kernels, and prompts long enough for those that
// multiply many rows.
#include <catch2/catch.hpp>
#include <filesystem>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_engine/cuda_backend.h"
#include "tests/cuda_engine/device_session.h"
#include "tests/cuda_engine/same_tokens.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/stored_int4.h"

namespace millrace::testing {
namespace {

std::vector<int32_t> Prompt(int num_tokens, int vocab) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < num_tokens; ++i) prompt.push_back((i * 131 + 7) % vocab);
  return prompt;
}

struct Shape {
  const char* name;
  const char* fields;  // of config.json
  bool has_experts = false;
};
const Shape kShapes[] = {
    {"llama", R"("architectures": ["LlamaForCausalLM"], "rope_theta": 500000)"},
    {"mistral", R"("architectures": ["MistralForCausalLM"], "sliding_window": 24)"},
    {"qwen2", R"("architectures": ["Qwen2ForCausalLM"])"},
    {"qwen3", R"("architectures": ["Qwen3ForCausalLM"])"},
    {"mixtral", R"("architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2)", true},
    {"qwen3_moe", R"("architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
      "moe_intermediate_size": 128, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [])",
     true},
};

// Of a GPU: as wide as it takes to meet every kernel; of the emulator: as narrow as all formats allow.
std::string Config(const Shape& shape) {
  const char* sizes = kIsEmulated ? R"("hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 2,
      "num_key_value_heads": 1, "head_dim": 64, "num_hidden_layers": 1, "vocab_size": 128)"
                                  : R"("hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 8,
      "num_key_value_heads": 2, "head_dim": 128, "num_hidden_layers": 2, "vocab_size": 4096)";
  return std::string("{") + shape.fields + ", " + sizes +
         R"(, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "eos_token_id": 2,
      "hidden_act": "silu", "tie_word_embeddings": false})";
}

struct Format {
  const char* quantization;
  DType kv_dtype;
  double near_tie;  // as in cuda_engine_test.cc; of logits that scatter by one
};
const Format kFormats[] = {{"", DType::kBF16, 0.13},    {"", DType::kF16, 0.13},        {"", DType::kI8, 0.24},
                           {"int8", DType::kBF16, 0.4}, {"int8", DType::kI8, 0.4},      {"int4", DType::kBF16, 0.4},
                           {"int4", DType::kI8, 0.4},   {"int4-g32", DType::kBF16, 0.4}};
// A near tie between two experts sends a row through another one.
constexpr double kNearTieOfExperts = 1.2;

TEST_CASE("CUDA engine: random weights of every architecture, in every format, draw the CPU's tokens", "[cuda]") {
  const size_t shape_index = GENERATE(range(size_t{0}, std::size(kShapes)));
  const size_t format_index = GENERATE(range(size_t{0}, std::size(kFormats)));
  // The emulator takes a third: every shape, and every format.
  if (kIsEmulated && (shape_index + format_index) % 3 != 0) return;
  const Shape& shape = kShapes[shape_index];
  const Format& format = kFormats[format_index];
  CAPTURE(shape.name, format.quantization, DTypeName(format.kv_dtype));
  const TemporaryDir dir;
  WriteFile(dir.path() / "config.json", Config(shape));
  SessionOptions options{.quantization = format.quantization, .load_format = "dummy", .kv_dtype = format.kv_dtype};
  if (!kIsEmulated) options.max_rows = options.max_tokens = 512;
  DeviceSession cpu(dir.string(), Cpu(), options), cuda(dir.string(), Cuda(), options);
  // An odd number of rows, and more than a tile of them.
  CheckSameTokens(cpu, cuda, Prompt(kIsEmulated ? 33 : 301, cpu.info().vocab_tokens),
                  {shape.has_experts ? kNearTieOfExperts : format.near_tie, kIsEmulated ? 3 : 16});
}

TEST_CASE("CUDA engine: random weights with an 8-bit float KV cache keep near the CPU's bfloat16 one", "[cuda]") {
  const TemporaryDir dir;
  WriteFile(dir.path() / "config.json", Config(kShapes[0]));
  SessionOptions options{.load_format = "dummy"};
  if (!kIsEmulated) options.max_rows = options.max_tokens = 512;
  DeviceSession cpu(dir.string(), Cpu(), options);
  options.kv_dtype = DType::kF8E4M3;
  DeviceSession cuda(dir.string(), Cuda(), options);
  CheckSameTokens(cpu, cuda, Prompt(kIsEmulated ? 33 : 301, cpu.info().vocab_tokens), {0.5, kIsEmulated ? 3 : 16});
}

TEST_CASE("CUDA engine: GPTQ and AWQ checkpoints draw the CPU's tokens", "[cuda]") {
  const Scheme scheme = GENERATE(from_range(std::begin(kSchemes), std::end(kSchemes)));
  CAPTURE(scheme.config, scheme.group);
  const TemporaryDir packed_dir, float_dir;
  std::map<std::string, Int4Matrix> matrices;
  WritePair(scheme, packed_dir.path(), float_dir.path(), matrices);
  DeviceSession cpu(packed_dir.string(), Cpu(), {}), cuda(packed_dir.string(), Cuda(), {});
  CheckSameTokens(cpu, cuda, Prompt(19, TinyCheckpoint::kVocab), {0.54, kIsEmulated ? 4 : 16});
}

}  // namespace
}  // namespace millrace::testing
