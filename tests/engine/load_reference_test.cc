// SPDX-License-Identifier: Apache-2.0
// Published small models as Hugging Face directory and as GGUF: equal tensors, and the reference's numbers.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "engine/load/gguf_model.h"
#include "engine/load/tensor_source.h"
#include "engine/text/text_loader.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/json_numbers.h"

namespace millrace {
namespace {

std::string SharedData() {
  const char* path = std::getenv("MILLRACE_SHARED_DATA");
  return path != nullptr ? path : MILLRACE_SHARED_DATA_DIR;
}

bool IsMissing(const std::string& path) {
  if (std::filesystem::exists(path)) return false;
  WARN("[SKIPPED] " << path << " is not here");
  return true;
}

std::unique_ptr<TensorSource> Open(const std::string& path) {
  auto info = ReadModelInfo(path, {});
  REQUIRE(info.status().ToString() == "OK");
  auto source = OpenTensors(*info, {});
  REQUIRE(source.status().ToString() == "OK");
  return std::move(*source);
}

std::vector<float> Read(TensorSource& source, const std::string& name, int64_t n, int64_t k) {
  auto rows = source.Matrix(name, n, k);
  REQUIRE(rows.status().ToString() == "OK");
  std::vector<float> values(static_cast<size_t>(n * k));
  for (int64_t row = 0; row < n; ++row) rows->read(row, values.data() + row * k);
  return values;
}

double Perplexity(ModelFixture& fixture, const GoldenFile& ids) {
  double sum = 0;
  int num_tokens = 0;
  const simdjson::dom::array lists = ids.root().get_array().value();
  for (const simdjson::dom::element list : lists) {
    const auto tokens = GoldenFile::ToNumbers<int32_t>(list);
    const std::vector<float> logits = fixture.Logits(tokens, 0, static_cast<int>(tokens.size()));
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const float* row = logits.data() + i * static_cast<size_t>(fixture.vocab());
      double total = 0;
      for (int v = 0; v < fixture.vocab(); ++v) total += std::exp(static_cast<double>(row[v]));
      sum += std::log(total) - static_cast<double>(row[tokens[i + 1]]);
      ++num_tokens;
    }
  }
  CHECK(num_tokens == 535);
  return std::exp(sum / num_tokens);
}

TEST_CASE("GGUF: tensors equal the Hugging Face checkpoint's, q and k in interleaved pairs", "[load][shared]") {
  const std::string hf_path = SharedData() + "/models/TinyStories-656K";
  const std::string gguf_path = SharedData() + "/models/gguf/TinyStories-656K-f32.gguf";
  if (IsMissing(hf_path) || IsMissing(gguf_path)) return;
  const auto hf = Open(hf_path), gguf = Open(gguf_path);
  const std::string layer = "model.layers.1.";
  CHECK(Read(*hf, "model.embed_tokens.weight", 2048, 128) == Read(*gguf, "model.embed_tokens.weight", 2048, 128));
  for (const auto& [name, n, k] : {std::tuple("self_attn.v_proj", 64, 128),
                                   {"self_attn.o_proj", 128, 128},
                                   {"mlp.gate_proj", 384, 128},
                                   {"mlp.up_proj", 384, 128},
                                   {"mlp.down_proj", 128, 384}}) {
    CAPTURE(name);
    CHECK(Read(*hf, layer + name + ".weight", n, k) == Read(*gguf, layer + name + ".weight", n, k));
  }
  CHECK(*hf->Vector("model.norm.weight", 128) == *gguf->Vector("model.norm.weight", 128));
  const std::vector<float> a = Read(*hf, layer + "self_attn.q_proj.weight", 128, 128);
  const std::vector<float> b = Read(*gguf, layer + "self_attn.q_proj.weight", 128, 128);
  for (int head = 0; head < 8; ++head) {
    for (int i = 0; i < 16; ++i) {
      const int in_gguf = head * 16 + i % 8 * 2 + i / 8;  // row i of HF's head
      const std::vector<float> hf_row(a.begin() + (head * 16 + i) * 128, a.begin() + (head * 16 + i + 1) * 128);
      const std::vector<float> gguf_row(b.begin() + in_gguf * 128, b.begin() + (in_gguf + 1) * 128);
      CHECK(hf_row == gguf_row);
    }
  }
}

TEST_CASE("GGUF: logits of the f32 file equal those of the Hugging Face checkpoint", "[load][shared]") {
  const std::string hf_path = SharedData() + "/models/TinyStories-656K";
  const std::string gguf_path = SharedData() + "/models/gguf/TinyStories-656K-f32.gguf";
  if (IsMissing(hf_path) || IsMissing(gguf_path)) return;
  ModelFixture hf(hf_path), gguf(gguf_path);
  const std::vector<int32_t> tokens = {1, 313, 598, 303, 1049, 1468, 267, 628};
  const std::vector<float> a = hf.Logits(tokens, 0, 8), b = gguf.Logits(tokens, 0, 8);
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  CHECK(worst < 1e-4);
}

TEST_CASE("GGUF and quantisation: perplexity is the reference's for each format", "[load][shared]") {
  struct Case {
    const char* path;
    const char* quantization;
    double perplexity;
    double tolerance;  // activations are rounded to int8 for quantised weights, which the reference does not do
  };
  const Case test = GENERATE(
      Case{"TinyStories-656K", "", 10.2431, 0.002}, Case{"gguf/TinyStories-656K-f32.gguf", "", 10.2431, 0.002},
      Case{"gguf/TinyStories-656K-f16.gguf", "", 10.2431, 0.01},
      Case{"gguf/TinyStories-656K-q8_0.gguf", "", 10.2546, 0.06},
      Case{"gguf/TinyStories-656K-q4_0.gguf", "", 11.4157, 0.12}, Case{"TinyStories-656K", "int8", 10.2431, 0.06},
      Case{"TinyStories-656K", "int4-g32", 11.08, 0.25}, Case{"TinyStories-656K", "int4", 11.17, 0.25});
  const std::string path = SharedData() + "/models/" + test.path;
  const std::string ids_path = SharedData() + "/reference/TinyStories-656K.ppl-ids.json";
  if (IsMissing(path) || IsMissing(ids_path)) return;
  CAPTURE(test.path, test.quantization);
  ModelFixture fixture(path, {.quantization = test.quantization, .max_tokens = 256});
  const double perplexity = Perplexity(fixture, GoldenFile(ids_path));
  INFO("perplexity " << perplexity);
  CHECK(std::abs(perplexity - test.perplexity) < test.tolerance);
}

TEST_CASE("GGUF: stories260K gives llama2.c's greedy tokens", "[load][shared]") {
  const std::string path = SharedData() + "/models/gguf/stories260K-f32.gguf";
  const std::string golden_path = SharedData() + "/reference/stories260K.reference.json";
  if (IsMissing(path) || IsMissing(golden_path)) return;
  const GoldenFile golden(golden_path);
  ModelFixture fixture(path, {.max_tokens = 256});
  CHECK(fixture.Greedy({1}, 199) == golden.Numbers<int32_t>("/cases/0/greedy_ids"));
}

TEST_CASE("GGUF: its vocabulary makes a tokenizer that decodes the reference", "[load][shared]") {
  const std::string path = SharedData() + "/models/gguf/TinyStories-656K-q4_0.gguf";
  if (IsMissing(path)) return;
  auto text = LoadModelText(path, "");
  REQUIRE(text.status().ToString() == "OK");
  CHECK(text->chat_template == nullptr);
  CHECK(text->tokenizer->bos_id() == 1);
  const auto ids = text->tokenizer->Encode("Once upon a time", SpecialTokens::kPlainText, Framing::kTemplate);
  const GoldenFile golden(SharedData() + "/reference/TinyStories-656K.reference.json");
  REQUIRE(ids.status().ToString() == "OK");
  CHECK(*ids == golden.Numbers<int32_t>("/cases/0/prompt_ids"));
}

}  // namespace
}  // namespace millrace
