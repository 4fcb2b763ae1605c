// SPDX-License-Identifier: Apache-2.0
// Published small models as Hugging Face directory and as GGUF: equal tensors, and the reference's numbers.
#include <algorithm>
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

double LogSumExp(const float* row, int vocab) {
  const double largest = *std::max_element(row, row + vocab);
  double total = 0;
  for (int v = 0; v < vocab; ++v) total += std::exp(row[v] - largest);
  return largest + std::log(total);
}

double MeanNll(ModelFixture& fixture, const GoldenFile& ids) {
  double sum = 0;
  int num_tokens = 0;
  const simdjson::dom::array lists = ids.root().get_array().value();
  for (const simdjson::dom::element list : lists) {
    const auto tokens = GoldenFile::ToNumbers<int32_t>(list);
    const std::vector<float> logits = fixture.Logits(tokens, 0, static_cast<int>(tokens.size()));
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const float* row = logits.data() + i * static_cast<size_t>(fixture.vocab());
      sum += LogSumExp(row, fixture.vocab()) - static_cast<double>(row[tokens[i + 1]]);
      ++num_tokens;
    }
  }
  CHECK(num_tokens == 535);
  return sum / num_tokens;
}

// How far a float32 forward pass may be from a float64 one: each of its matmuls rounds sums of up to K products, and
// all these roundings, independent of one another, wander by the root of their number at the logits' scale.
double Float32Tolerance(const ModelInfo& info, double largest_logit) {
  const double num_matmuls = 7.0 * info.num_layers + 1;
  const double num_products = std::max(info.hidden_dim, info.ffn_dim);
  return std::ldexp(1.0, -24) * std::sqrt(num_matmuls * num_products) * largest_logit;
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

TEST_CASE("GGUF and quantisation: perplexity is the reference's for each format, in ranks too", "[load][shared]") {
  const int num_ranks = GENERATE(1, 2, 4);
  struct Case {
    const char* path;
    const char* quantization;
    const char* reference;  // whose mean NLL
    double offset;          // our own quantisation: what it adds to that of the float32 weights
    double tolerance;       // activations are rounded to int8 for quantised weights, which the reference does not do
  };
  const Case test = GENERATE(
      Case{"TinyStories-656K", "", "f32", 0, 2e-5}, Case{"gguf/TinyStories-656K-f32.gguf", "", "f32", 0, 2e-5},
      Case{"gguf/TinyStories-656K-f16.gguf", "", "f16", 0, 2e-5},
      Case{"gguf/TinyStories-656K-q8_0.gguf", "", "q8_0", 0, 6e-3},
      Case{"gguf/TinyStories-656K-q4_0.gguf", "", "q4_0", 0, 1e-2}, Case{"TinyStories-656K", "int8", "f32", 0, 6e-3},
      Case{"TinyStories-656K", "int4-g32", "f32", 0.079, 0.02}, Case{"TinyStories-656K", "int4", "f32", 0.087, 0.02});
  const std::string path = SharedData() + "/models/" + test.path;
  const std::string ids_path = SharedData() + "/reference/TinyStories-656K.ppl-ids.json";
  if (IsMissing(path) || IsMissing(ids_path)) return;
  CAPTURE(test.path, test.quantization, num_ranks);
  const GoldenFile golden(SharedData() + "/reference/TinyStories-656K.quant-ppl.json");
  const double expected = golden.root()[test.reference]["mean_nll"].get_double().value() + test.offset;
  ModelFixture fixture(path, {.quantization = test.quantization, .max_tokens = 256, .num_ranks = num_ranks});
  const double mean_nll = MeanNll(fixture, GoldenFile(ids_path));
  INFO("mean NLL " << mean_nll << ", expected " << expected);
  CHECK(std::abs(mean_nll - expected) < test.tolerance);
}

// The reference's own continuation is read by our model: at each of its tokens ours has nothing clearly better.
TEST_CASE("GGUF: the greedy tokens of each stored format are the reference's", "[load][shared]") {
  struct Case {
    const char* format;
    double max_gap;  // of the reference's token to our best, in logits
  };
  const Case test = GENERATE(Case{"f32", 1e-3}, Case{"f16", 1e-3}, Case{"q8_0", 0.1}, Case{"q4_0", 0.1});
  const std::string path = SharedData() + "/models/gguf/TinyStories-656K-" + test.format + ".gguf";
  const std::string golden_path = SharedData() + "/reference/TinyStories-656K.quant-ppl.json";
  if (IsMissing(path) || IsMissing(golden_path)) return;
  CAPTURE(test.format);
  const GoldenFile golden(golden_path);
  const auto greedy = golden.Numbers<int32_t>(std::string("/") + test.format + "/greedy_once_upon_a_time");
  std::vector<int32_t> tokens =
      GoldenFile(SharedData() + "/reference/TinyStories-656K.reference.json").Numbers<int32_t>("/cases/0/prompt_ids");
  const size_t num_prompt = tokens.size();
  tokens.insert(tokens.end(), greedy.begin(), greedy.end());
  ModelFixture fixture(path, {.max_tokens = 256});
  const size_t vocab = static_cast<size_t>(fixture.vocab());
  const std::vector<float> logits = fixture.Logits(tokens, 0, static_cast<int>(tokens.size()));
  for (size_t i = 0; i < greedy.size(); ++i) {
    CAPTURE(i);
    const float* row = logits.data() + (num_prompt - 1 + i) * vocab;
    CHECK(*std::max_element(row, row + vocab) - row[greedy[i]] <= test.max_gap);
  }
}

// One case of a float64 reference: everything it tells of a prompt and its greedy continuation.
class ReferenceCase {
 public:
  ReferenceCase(simdjson::dom::element data, ModelFixture& fixture)
      : data_(data), vocab_(static_cast<size_t>(fixture.vocab())) {
    tokens_ = Numbers<int32_t>("prompt_ids");
    num_prompt_ = tokens_.size();
    const auto greedy = Numbers<int32_t>("greedy_ids");
    tokens_.insert(tokens_.end(), greedy.begin(), greedy.end());
    logits_ = fixture.Logits(tokens_, 0, static_cast<int>(tokens_.size()));
    float largest = 0;
    for (const float logit : logits_) largest = std::max(largest, std::abs(logit));
    tolerance_ = Float32Tolerance(fixture.model().info(), largest);
  }

  void CheckPrompt() const {
    const auto final_logits = Numbers<double>("final_logits");
    REQUIRE(final_logits.size() == vocab_);
    double worst = 0;
    for (size_t v = 0; v < vocab_; ++v) worst = std::max(worst, std::abs(Row(num_prompt_ - 1)[v] - final_logits[v]));
    CHECK(worst <= tolerance_);
    double nll = 0;
    for (size_t i = 1; i < num_prompt_; ++i) nll -= Logprob(i);
    CHECK(std::abs(nll - data_["prompt_nll"].get_double().value()) <=
          2 * tolerance_ * static_cast<double>(num_prompt_));
    CheckTops();
  }

  // Equal wherever the margin leaves no doubt.
  void CheckGreedy() const {
    const auto margins = Numbers<double>("greedy_margin_top1_top2"), logprobs = Numbers<double>("greedy_logprobs");
    REQUIRE(tokens_.size() == num_prompt_ + margins.size());
    for (size_t i = 0; i < margins.size(); ++i) {
      const size_t at = num_prompt_ + i;
      CAPTURE(i, margins[i]);
      CHECK(std::abs(Logprob(at) - logprobs[i]) <= 2 * tolerance_);
      const float* row = Row(at - 1);
      if (margins[i] > 2 * tolerance_) CHECK(std::max_element(row, row + vocab_) - row == tokens_[at]);
    }
  }

 private:
  template <typename T>
  std::vector<T> Numbers(const char* key) const {
    return GoldenFile::ToNumbers<T>(data_[key].value());
  }
  const float* Row(size_t position) const { return logits_.data() + position * vocab_; }
  double Logprob(size_t position) const {
    const float* row = Row(position - 1);
    return row[tokens_[position]] - LogSumExp(row, static_cast<int>(vocab_));
  }
  void CheckTops() const {
    size_t at = 0;
    const simdjson::dom::array positions = data_["prompt_positions"].get_array().value();
    for (const simdjson::dom::element position : positions) {
      const simdjson::dom::array tops = position["top5"].get_array().value();
      for (const simdjson::dom::element top : tops) {
        const auto [token, logit] = std::pair(top.at(0).get_int64().value(), top.at(1).get_double().value());
        CAPTURE(at, token);
        CHECK(std::abs(Row(at)[token] - logit) <= tolerance_);
      }
      ++at;
    }
    CHECK(at == num_prompt_);
  }

  const simdjson::dom::element data_;
  const size_t vocab_;
  std::vector<int32_t> tokens_;  // the prompt and the reference's continuation
  size_t num_prompt_ = 0;
  std::vector<float> logits_;
  double tolerance_ = 0;
};

TEST_CASE("Reference models: logits and greedy tokens are the float64 reference's in every case", "[load][shared]") {
  struct Model {
    const char* path;
    const char* reference;
    size_t num_cases;
  };
  const Model model = GENERATE(Model{"TinyStories-656K", "TinyStories-656K", 5},
                               Model{"gguf/TinyStories-656K-f32.gguf", "TinyStories-656K", 5},
                               Model{"gguf/stories260K-f32.gguf", "stories260K", 6});
  const std::string path = SharedData() + "/models/" + model.path;
  const std::string golden_path = SharedData() + "/reference/" + model.reference + ".reference.json";
  if (IsMissing(path) || IsMissing(golden_path)) return;
  const GoldenFile golden(golden_path);
  ModelFixture fixture(path, {.max_tokens = 256});
  const simdjson::dom::array cases = golden.root()["cases"].get_array().value();
  REQUIRE(cases.size() == model.num_cases);
  for (const simdjson::dom::element data : cases) {
    CAPTURE(model.path, std::string(data["prompt"].get_string().value()));
    const ReferenceCase reference(data, fixture);
    reference.CheckPrompt();
    reference.CheckGreedy();
  }
}

TEST_CASE("Reference models: free-running greedy tokens are the reference's", "[load][shared]") {
  const std::string path = SharedData() + "/models/gguf/stories260K-f32.gguf";
  const std::string golden_path = SharedData() + "/reference/stories260K.reference.json";
  if (IsMissing(path) || IsMissing(golden_path)) return;
  const GoldenFile golden(golden_path);
  ModelFixture fixture(path, {.max_tokens = 256});
  const simdjson::dom::array cases = golden.root()["cases"].get_array().value();
  for (const simdjson::dom::element data : cases) {
    const auto greedy = GoldenFile::ToNumbers<int32_t>(data["greedy_ids"].value());
    const auto prompt = GoldenFile::ToNumbers<int32_t>(data["prompt_ids"].value());
    CHECK(fixture.Greedy(prompt, static_cast<int>(greedy.size())) == greedy);
  }
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
