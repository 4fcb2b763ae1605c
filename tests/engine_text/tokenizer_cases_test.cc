// SPDX-License-Identifier: Apache-2.0
// Every component and six tiny trained tokenizers against what the Hugging Face library makes of the same input
// (tests/data/tokenizer_cases.json, written by tests/python/make_tokenizer_cases.py).
#include <simdjson.h>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer_json_steps.h"
#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

using testing::MakeTokenizer;
using testing::ReadFileOrDie;

struct Cases {
  simdjson::dom::parser parser;
  simdjson::dom::element root;

  Cases() {
    const std::string json = ReadFileOrDie(std::string(MILLRACE_SOURCE_DIR) + "/tests/data/tokenizer_cases.json");
    REQUIRE(parser.parse(json).get(root) == simdjson::SUCCESS);
  }
};

std::vector<std::string> Strings(simdjson::dom::element list) {
  std::vector<std::string> strings;
  for (const auto element : list.get_array()) strings.emplace_back(element.get_string().value());
  return strings;
}

std::vector<int32_t> Ids(simdjson::dom::element list) {
  std::vector<int32_t> ids;
  for (const auto element : list.get_array()) ids.push_back(static_cast<int32_t>(element.get_int64().value()));
  return ids;
}

TEST_CASE("normalizers: each gives the reference's text, with and without tracking", "[tokenizer]") {
  Cases cases;
  for (const auto group : cases.root["normalizers"].get_array()) {
    std::vector<NormalizerStep> steps;
    INFO(simdjson::minify(group["config"]));
    REQUIRE(ReadNormalizer(group["config"], steps).ok());
    for (const auto item : group["cases"].get_array()) {
      const std::string text(item.at(0).get_string().value());
      INFO(text);
      TrackedText plain{text, {}};
      REQUIRE(Normalize(steps, plain).ok());
      CHECK(plain.bytes == std::string(item.at(1).get_string().value()));
      TrackedText tracked{text, std::vector<uint8_t>(text.size(), 1)};
      REQUIRE(Normalize(steps, tracked).ok());
      CHECK(tracked.bytes == plain.bytes);
      CHECK(tracked.from_user.size() == tracked.bytes.size());
    }
  }
}

TEST_CASE("pre-tokenizers: each gives the reference's pieces", "[tokenizer]") {
  Cases cases;
  for (const auto group : cases.root["pre_tokenizers"].get_array()) {
    std::vector<PreTokenizerStep> steps;
    INFO(simdjson::minify(group["config"]));
    REQUIRE(ReadPreTokenizer(group["config"], steps).ok());
    for (const auto item : group["cases"].get_array()) {
      const std::string_view text = item.at(0).get_string().value();
      PieceList list;
      list.pieces.push_back({text, true});
      REQUIRE(PreTokenize(steps, list).ok());
      std::vector<std::string> pieces;
      for (const Piece& piece : list.pieces) pieces.emplace_back(piece.text);
      INFO(text);
      CHECK(pieces == Strings(item.at(1)));
    }
  }
}

TEST_CASE("decoders: each gives the reference's text", "[tokenizer]") {
  Cases cases;
  for (const auto group : cases.root["decoders"].get_array()) {
    std::vector<DecoderStep> steps;
    INFO(simdjson::minify(group["config"]));
    REQUIRE(ReadDecoder(group["config"], steps).ok());
    const auto chain = DecoderChain::Create(std::move(steps));
    REQUIRE(chain.ok());
    for (const auto item : group["cases"].get_array()) {
      DecodeStream stream(*chain, StreamStart::kText);
      std::string text;
      for (const std::string& token : Strings(item.at(0))) stream.Push(token, text);
      stream.Finish(text);
      INFO(simdjson::minify(item));
      CHECK(text == std::string(item.at(1).get_string().value()));
    }
  }
}

TEST_CASE("tokenizers: trained ones encode and decode as the reference", "[tokenizer]") {
  Cases cases;
  for (const auto group : cases.root["tokenizers"].get_array()) {
    INFO(group["name"].get_string().value());
    const auto tokenizer = MakeTokenizer(simdjson::minify(group["tokenizer"]));
    for (const auto item : group["encode"].get_array()) {
      const std::string_view text = item.at(0).get_string().value();
      INFO(text);
      CHECK(testing::EncodeOrDie(*tokenizer, text) == Ids(item.at(1)));
      CHECK(testing::EncodeOrDie(*tokenizer, text, SpecialTokens::kParse, Framing::kTemplate) == Ids(item.at(2)));
    }
    for (const auto item : group["decode"].get_array()) {
      const std::vector<int32_t> ids = Ids(item.at(0));
      INFO(simdjson::minify(item));
      CHECK(tokenizer->Decode(ids, SkipSpecial::kNo) == std::string(item.at(1).get_string().value()));
      CHECK(tokenizer->Decode(ids, SkipSpecial::kYes) == std::string(item.at(2).get_string().value()));
    }
  }
}

}  // namespace
}  // namespace millrace
