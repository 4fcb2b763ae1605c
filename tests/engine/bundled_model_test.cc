// SPDX-License-Identifier: Apache-2.0
// The bundled model against its own training code: token ids, rendered chats, greedy answers
// (tests/data/millrace-tiny/greedy.json, checked against transformers when it was made).
#include <catch2/catch.hpp>
#include <string>

#include "engine/text/text_loader.h"
#include "tests/engine/model_fixture.h"
#include "tests/support/json_numbers.h"

namespace millrace {
namespace {

std::string ModelDir() { return std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny"; }
GoldenFile Golden() { return GoldenFile(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/millrace-tiny/greedy.json"); }
std::string Text(simdjson::dom::element element) { return std::string(element.get_string().value()); }

TEST_CASE("Bundled model: its tokenizer gives the ids of Hugging Face's tokenizers, and the text back", "[bundled]") {
  auto text = LoadModelText(ModelDir(), "");
  REQUIRE(text.status().ToString() == "OK");
  const GoldenFile golden = Golden();
  int num_cases = 0;
  const simdjson::dom::array entries = golden.root()["tokenizer"].get_array().value();
  for (const simdjson::dom::element entry : entries) {
    const std::string input = Text(entry["text"].value());
    CAPTURE(input);
    const auto ids = GoldenFile::ToNumbers<int32_t>(entry["ids"].value());
    const auto encoded = text->tokenizer->Encode(input, SpecialTokens::kParse);
    REQUIRE(encoded.ok());
    CHECK(*encoded == ids);
    CHECK(text->tokenizer->Decode(ids, SkipSpecial::kNo) == Text(entry["decoded"].value()));
    ++num_cases;
  }
  CHECK(num_cases >= 50);
}

TEST_CASE("Bundled model: greedy answers equal those of its training code", "[bundled]") {
  const GoldenFile golden = Golden();
  ModelFixture fixture(ModelDir(), {.page_tokens = 16, .max_tokens = 1024});
  int num_prompts = 0;
  const simdjson::dom::array entries = golden.root()["greedy"].get_array().value();
  for (const simdjson::dom::element entry : entries) {
    const auto prompt = GoldenFile::ToNumbers<int32_t>(entry["prompt_ids"].value());
    const auto expected = GoldenFile::ToNumbers<int32_t>(entry["greedy_ids"].value());
    const auto margins = GoldenFile::ToNumbers<float>(entry["margins"].value());
    // Beyond a near tie two correct runs may part; up to it they may not.
    size_t num_certain = 0;
    while (num_certain < margins.size() && margins[num_certain] > 0.01f) ++num_certain;
    const auto actual = fixture.Greedy(prompt, static_cast<int>(num_certain));
    CHECK(actual ==
          std::vector<int32_t>(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(num_certain)));
    ++num_prompts;
  }
  CHECK(num_prompts >= 10);
}

}  // namespace
}  // namespace millrace
