// SPDX-License-Identifier: Apache-2.0
// GGUF files, right and hostile.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <string>

#include "engine/load/float_bits.h"
#include "engine/load/gguf.h"
#include "engine/load/gguf_model.h"
#include "engine/load/gguf_weights.h"
#include "engine/load/weight_plan.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;
using testing::GgufWriter;

constexpr uint32_t kF32 = 0, kQ4_0 = 2, kQ8_0 = 8;

std::string Floats(int64_t count, float value = 0.5f) {
  return testing::BytesOf(std::vector<float>(static_cast<size_t>(count), value));
}

// Metadata of a one-layer model with 64 hidden, 96 ffn, 4 heads, 2 for keys and values.
GgufWriter Metadata(const std::string& architecture = "llama") {
  GgufWriter writer;
  writer.String("general.architecture", architecture);
  writer.U32(architecture + ".block_count", 1);
  writer.U32(architecture + ".embedding_length", 64);
  writer.U32(architecture + ".feed_forward_length", 96);
  writer.U32(architecture + ".attention.head_count", 4);
  writer.U32(architecture + ".attention.head_count_kv", 2);
  writer.F32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  writer.F32(architecture + ".rope.freq_base", 500000.0f);
  writer.U32(architecture + ".context_length", 512);
  return writer;
}

void AddTensors(GgufWriter& writer) {
  writer.Tensor("token_embd.weight", kF32, {64, 8}, Floats(64 * 8));
  writer.Tensor("output_norm.weight", kF32, {64}, Floats(64));
  writer.Tensor("blk.0.attn_norm.weight", kF32, {64}, Floats(64));
  writer.Tensor("blk.0.ffn_norm.weight", kF32, {64}, Floats(64));
  writer.Tensor("blk.0.attn_q.weight", kF32, {64, 64}, Floats(64 * 64));
  writer.Tensor("blk.0.attn_k.weight", kF32, {64, 32}, Floats(64 * 32));
  writer.Tensor("blk.0.attn_v.weight", kF32, {64, 32}, Floats(64 * 32));
  writer.Tensor("blk.0.attn_output.weight", kF32, {64, 64}, Floats(64 * 64));
  writer.Tensor("blk.0.ffn_gate.weight", kF32, {64, 96}, Floats(64 * 96));
  writer.Tensor("blk.0.ffn_up.weight", kF32, {64, 96}, Floats(64 * 96));
  writer.Tensor("blk.0.ffn_down.weight", kF32, {96, 64}, Floats(64 * 96));
}

absl::StatusOr<ModelInfo> InfoOf(const GgufWriter& writer) {
  const std::string bytes = writer.Bytes();
  const auto file = ParseGguf(bytes);
  if (!file.ok()) return file.status();
  return GgufModelInfo(*file);
}

TEST_CASE("GGUF: the model's shape comes from metadata and tensors", "[load]") {
  GgufWriter writer = Metadata();
  AddTensors(writer);
  writer.U32("tokenizer.ggml.eos_token_id", 2);
  writer.Strings("tokenizer.ggml.tokens", {"a", "b", "</s>", "<|eot_id|>", "e", "f", "g", "h"});
  const auto info = InfoOf(writer);
  REQUIRE(info.status().ToString() == "OK");
  CHECK(info->architecture == Architecture::kLlama);
  CHECK(info->head_dim == 16);
  CHECK(info->num_kv_heads == 2);
  CHECK(info->vocab_tokens == 8);
  CHECK(info->rope.theta == 500000.0);
  CHECK(info->rope.interleaved);
  CHECK(info->has_tied_embeddings);
  CHECK_FALSE(info->has_qkv_bias);
  CHECK(info->eos_token_ids == std::vector<int32_t>{2, 3});
  CHECK(info->weights_name == "GGUF F32");
}

TEST_CASE("GGUF: Qwen files have biases, norms and pairs as Hugging Face has them", "[load]") {
  GgufWriter writer = Metadata("qwen2");
  AddTensors(writer);
  writer.Tensor("blk.0.attn_q.bias", kF32, {64}, Floats(64));
  writer.Tensor("output.weight", kF32, {64, 8}, Floats(64 * 8));
  const auto info = InfoOf(writer);
  REQUIRE(info.status().ToString() == "OK");
  CHECK(info->has_qkv_bias);
  CHECK_FALSE(info->rope.interleaved);
  CHECK_FALSE(info->has_tied_embeddings);
  GgufWriter qwen3 = Metadata("qwen3");
  AddTensors(qwen3);
  CHECK(InfoOf(qwen3)->has_qk_norm);
}

TEST_CASE("GGUF: Llama 3's frequency divisors are kept", "[load]") {
  GgufWriter writer = Metadata();
  AddTensors(writer);
  writer.Tensor("rope_freqs.weight", kF32, {8}, Floats(8, 8.0f));
  CHECK(InfoOf(writer)->rope.frequency_divisors == std::vector<float>(8, 8.0f));
  GgufWriter wrong = Metadata();
  AddTensors(wrong);
  wrong.Tensor("rope_freqs.weight", kF32, {8}, Floats(8, 0.0f));
  CHECK_THAT(std::string(InfoOf(wrong).status().message()), Contains("rope_freqs.weight"));
}

TEST_CASE("GGUF: what cannot be run is refused by name", "[load]") {
  struct Case {
    const char* key;
    uint32_t value;
    const char* message;
  };
  const Case test = GENERATE(Case{"split.count", 3, "split"}, Case{"llama.rope.dimension_count", 8, "rotating 8 of 16"},
                             Case{"llama.attention.value_length", 8, "values of 8"});
  GgufWriter writer = Metadata();
  AddTensors(writer);
  writer.U32(test.key, test.value);
  const auto info = InfoOf(writer);
  CHECK(info.status().code() == absl::StatusCode::kUnimplemented);
  CHECK_THAT(std::string(info.status().message()), Contains(test.message));
  CHECK_THAT(std::string(InfoOf(Metadata("mamba")).status().message()),
             Contains("mamba") && Contains("llama, qwen2, qwen3"));
  GgufWriter lying = Metadata();
  AddTensors(lying);
  lying.U32("llama.vocab_size", 8);
  lying.String("llama.attention.sliding_window", "wide");
  CHECK_THAT(std::string(InfoOf(lying).status().message()), Contains("sliding_window' is not a whole number"));
}

struct HostileFile {
  std::string bytes;
  const char* message;
};

std::string Made(const std::function<void(GgufWriter&)>& change) {
  GgufWriter writer;
  change(writer);
  return writer.Bytes();
}

std::string ArrayOf(uint32_t type, uint64_t count) {
  return Made([&](GgufWriter& w) { w.Raw("k", 9, GgufWriter::ArrayHead(type, count)); });
}

void CheckRefused(const HostileFile& test) {
  CAPTURE(test.message);
  const auto file = ParseGguf(test.bytes);
  REQUIRE_FALSE(file.ok());
  CHECK_THAT(std::string(file.status().message()), Contains(test.message));
}

TEST_CASE("ParseGguf: a hostile head or key is refused with the fault", "[load]") {
  std::string nested;
  for (int i = 0; i < 64; ++i) nested += GgufWriter::ArrayHead(9, 1);
  std::string long_key;
  GgufWriter::Append<uint64_t>(long_key, 10'000'000'000u);
  std::string head = "GGUF";
  GgufWriter::Append<uint32_t>(head, 3);
  GgufWriter::Append<uint64_t>(head, 0);
  GgufWriter::Append<uint64_t>(head, 1);
  CheckRefused(GENERATE_COPY(values<HostileFile>({
      {"", "the magic number"},
      {"GGML\x03", "does not begin with GGUF"},
      {"GGUF", "inside the version"},
      {std::string("GGUF\x00\x00\x00\x03", 8), "big-endian"},
      {Made([](GgufWriter& w) { w.version = 1; }), "version 1 is not supported"},
      {Made([](GgufWriter& w) { w.extra_tensors = uint64_t{1} << 60; }), "claims 1152921504606846976 tensors"},
      {Made([](GgufWriter& w) { w.extra_keys = uint64_t{1} << 60; }), "claims 1152921504606846976 keys"},
      {head + long_key, "a key claims 10000000000 bytes"},
      {Made([](GgufWriter& w) { w.Raw("k", 99, ""); }), "unknown type 99"},
      {Made([](GgufWriter& w) { w.Raw("k", 8, std::string("\xff\xff\xff\xff\x00\x00\x00\x00", 8)); }),
       "claims 4294967295"},
      {ArrayOf(4, 10'000'000'000u), "claims 10000000000 elements"},
      {ArrayOf(8, 1u << 23), "claims 8388608 elements"},
      {ArrayOf(99, 1), "unknown type 99"},
      {Made([&](GgufWriter& w) { w.Raw("k", 9, nested); }), "nests arrays too deeply"},
      {Made([](GgufWriter& w) { w.U32("k", 1), w.U32("k", 2); }), "'k' comes twice"},
  })));
}

TEST_CASE("ParseGguf: a hostile tensor is refused with the fault", "[load]") {
  CheckRefused(GENERATE(values<HostileFile>({
      {Made([](GgufWriter& w) { w.U32("general.alignment", 33); }), "an alignment of 33"},
      {Made([](GgufWriter& w) { w.Tensor("w", kF32, {}, ""); }), "'w' has 0 dimensions"},
      {Made([](GgufWriter& w) { w.Tensor("w", kF32, {1, 1, 1, 1, 1}, "1234"); }), "'w' has 5 dimensions"},
      {Made([](GgufWriter& w) { w.Tensor("w", kF32, {0, 4}, ""); }), "an impossible dimension of 0"},
      {Made([](GgufWriter& w) { w.Tensor("w", kF32, {1u << 30, 1u << 30}, ""); }), "an impossible dimension"},
      {Made([](GgufWriter& w) { w.Tensor("w", 12, {32}, ""); }),
       "'w' has type Q4_K; supported: F32, F16, BF16, Q8_0, Q4_0"},
      {Made([](GgufWriter& w) { w.Tensor("w", 77, {32}, ""); }), "'w' has type number 77"},
      {Made([](GgufWriter& w) { w.Tensor("w", kQ8_0, {33}, std::string(68, 0)); }), "rows of 33"},
      {Made([](GgufWriter& w) { w.Tensor("w", kF32, {4}, "1234"); }), "16 bytes at 0 lie outside the file's 4"},
      {Made([](GgufWriter& w) { w.TensorAt("w", kF32, {4}, uint64_t{1} << 63); }), "lie outside"},
      {Made([](GgufWriter& w) { w.TensorAt("w", kF32, {4}, 5); }), "offset 5 is not aligned"},
      {Made([](GgufWriter& w) { w.Tensor("v", kF32, {4}, std::string(16, 0)), w.TensorAt("w", kF32, {4}, 0); }),
       "overlaps"},
      {Made([](GgufWriter& w) {
         w.Tensor("w", kF32, {4}, std::string(16, 0)), w.Tensor("w", kF32, {4}, std::string(16, 0));
       }),
       "'w' comes twice"},
  })));
}

TEST_CASE("ParseGguf: a file cut anywhere is refused", "[load]") {
  GgufWriter writer = Metadata();
  writer.Strings("tokenizer.ggml.tokens", {"a", "b"});
  AddTensors(writer);
  const std::string bytes = writer.Bytes();
  for (size_t num_bytes = 0; num_bytes < bytes.size(); num_bytes += num_bytes < 2000 ? 1 : 997) {
    CHECK_FALSE(ParseGguf(bytes.substr(0, num_bytes)).ok());
  }
}

TEST_CASE("GGUF: blocks of Q8_0 and Q4_0 keep their numbers", "[load]") {
  std::string q8, q4;
  for (int block = 0; block < 64 * 64 / 32; ++block) {
    const uint16_t scale = Float16Bits(0.25f + static_cast<float>(block % 7));
    q8.append(reinterpret_cast<const char*>(&scale), 2);
    q4.append(reinterpret_cast<const char*>(&scale), 2);
    for (int i = 0; i < 32; ++i) q8 += static_cast<char>((block * 31 + i * 7) % 255 - 127);
    for (int i = 0; i < 16; ++i) q4 += static_cast<char>((i + block) % 16 | ((i * 5 + block) % 16) << 4);
  }
  GgufWriter writer = Metadata();
  writer.Tensor("blk.0.attn_q.weight", kQ8_0, {64, 64}, q8);
  writer.Tensor("blk.0.attn_output.weight", kQ4_0, {64, 64}, q4);
  const testing::TemporaryDir dir;
  testing::WriteFile(dir.path() / "m.gguf", writer.Bytes());
  const auto source = OpenGgufTensors((dir.path() / "m.gguf").string());
  REQUIRE(source.status().ToString() == "OK");
  for (const bool is_q8 : {true, false}) {
    CAPTURE(is_q8);
    const std::string name = std::string("model.layers.0.self_attn.") + (is_q8 ? "q_proj" : "o_proj");
    const auto rows = (*source)->Matrix(name + ".weight", 64, 64);
    const auto stored = (*source)->Stored(name, 64, 64);
    REQUIRE(rows.status().ToString() == "OK");
    REQUIRE(stored.status().ToString() == "OK");
    for (int row = 0; row < 64; ++row) {
      std::vector<float> values(64);
      rows->read(row, values.data());
      for (int i = 0; i < 64; ++i) {
        const int block = row * 2 + i / 32, j = i % 32;
        const float scale = 0.25f + static_cast<float>(block % 7);
        const int nibble = j < 16 ? (j + block) % 16 : ((j - 16) * 5 + block) % 16;
        const int q = is_q8 ? (block * 31 + j * 7) % 255 - 127 : nibble - 8;
        REQUIRE(values[static_cast<size_t>(i)] == static_cast<float>(q) * scale);
        const size_t index = static_cast<size_t>(row * 64 + i);
        const int kept = is_q8 ? static_cast<int8_t>((*stored)->values[index])
                               : (((*stored)->values[index / 2] >> (i % 2 * 4)) & 15) - 8;
        REQUIRE(kept == q);
        REQUIRE((*stored)->scales[static_cast<size_t>(block)] == scale);
      }
    }
  }
  CHECK_THAT(std::string((*source)->Matrix("model.layers.0.self_attn.q_proj.weight", 64, 32).status().message()),
             Contains("blk.0.attn_q.weight has shape [64, 64]"));
}

TEST_CASE("PlanLinear: fused matrices that are stored differently become int8 or floats", "[load]") {
  GgufWriter writer = Metadata();
  writer.Tensor("blk.0.attn_q.weight", kQ8_0, {64, 64}, std::string(64 * 68, '\0'));
  writer.Tensor("blk.0.attn_k.weight", kQ4_0, {64, 32}, std::string(32 * 36, '\0'));
  writer.Tensor("blk.0.attn_v.weight", kF32, {64, 32}, Floats(64 * 32));
  const testing::TemporaryDir dir;
  testing::WriteFile(dir.path() / "m.gguf", writer.Bytes());
  const auto source = *OpenGgufTensors((dir.path() / "m.gguf").string());
  const std::string attn = "model.layers.0.self_attn.";
  const LinearSpec::Part q = {attn + "q_proj", 64}, k = {attn + "k_proj", 32}, v = {attn + "v_proj", 32};
  const WeightKind wanted = {.dtype = DType::kF16};
  const auto alone = *PlanLinear({.parts = {q}, .k = 64}, wanted, true, *source);
  CHECK(alone.is_stored);
  CHECK(alone.kind.format == WeightFormat::kInt8);
  const auto mixed = *PlanLinear({.parts = {q, k}, .k = 64}, wanted, true, *source);
  CHECK_FALSE(mixed.is_stored);
  CHECK(mixed.kind.format == WeightFormat::kInt8);
  CHECK(mixed.kind.group_size == 32);
  const auto with_floats = *PlanLinear({.parts = {q, k, v}, .k = 64}, wanted, true, *source);
  CHECK_FALSE(with_floats.is_stored);
  CHECK(with_floats.kind.format == WeightFormat::kDense);
  CHECK_FALSE(PlanLinear({.parts = {q}, .k = 64}, wanted, false, *source)->is_stored);
}

TEST_CASE("GGUF: the vocabulary and the template come out as they went in", "[load]") {
  GgufWriter writer;
  writer.String("tokenizer.ggml.model", "gpt2");
  writer.String("tokenizer.ggml.pre", "qwen2");
  writer.Strings("tokenizer.ggml.tokens", {"a", "b", "ab", "<|im_end|>"});
  writer.Strings("tokenizer.ggml.merges", {"a b"});
  writer.Array<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 3});
  writer.U32("tokenizer.ggml.eos_token_id", 3);
  writer.U32("tokenizer.ggml.padding_token_id", 0xffffffffu);
  writer.String("tokenizer.chat_template", "{{ messages }}");
  const std::string bytes = writer.Bytes();
  const auto text = GgufTextOf(*ParseGguf(bytes));
  REQUIRE(text.status().ToString() == "OK");
  CHECK(text->vocab.model == "gpt2");
  CHECK(text->vocab.pre == "qwen2");
  CHECK(text->vocab.tokens.size() == 4);
  CHECK(text->vocab.merges == std::vector<std::string>{"a b"});
  CHECK(text->vocab.token_types[3] == VocabTokenType::kControl);
  CHECK(text->vocab.eos_id == 3);
  CHECK_FALSE(text->vocab.add_bos);
  CHECK(text->chat_template == "{{ messages }}");

  GgufWriter odd;
  odd.String("tokenizer.ggml.model", "llama");
  odd.Strings("tokenizer.ggml.tokens", {"a", "b"});
  odd.Array<float>("tokenizer.ggml.scores", 6, {0.5f});
  const std::string odd_bytes = odd.Bytes();
  CHECK_THAT(std::string(GgufTextOf(*ParseGguf(odd_bytes)).status().message()),
             Contains("1 values") && Contains("2 tokens"));
}

}  // namespace
}  // namespace millrace
