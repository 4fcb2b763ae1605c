// SPDX-License-Identifier: Apache-2.0
// Hostile and broken tokenizer.json files get an error that names the fault.
#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

void CheckRefused(const std::string& json, const std::string& named) {
  const auto tokenizer = Tokenizer::FromJson(json);
  INFO(json.substr(0, 300));
  REQUIRE(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(tokenizer.status().message()), Catch::Contains(named));
}

std::string WithField(const std::string& field) {
  return R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)" + field + "}";
}

std::string WithModel(const std::string& model) { return "{\"model\":" + model + "}"; }

TEST_CASE("Tokenizer: broken JSON is refused", "[tokenizer]") {
  CheckRefused("", "tokenizer.json");
  CheckRefused("{", "tokenizer.json");
  CheckRefused("[]", "must be an object");
  CheckRefused("{}", "no model");
  CheckRefused(std::string(100000, '['), "tokenizer.json");
  CheckRefused(std::string("{\"model\":\"\xFF\"}"), "UTF-8");
}

TEST_CASE("Tokenizer: an unknown component is named", "[tokenizer]") {
  CheckRefused(WithModel(R"({"type":"Quux"})"), "Quux");
  CheckRefused(WithField(R"("normalizer":{"type":"Quux"})"), "normalizer Quux");
  CheckRefused(WithField(R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Quux"}]})"),
               "pre_tokenizer Quux");
  CheckRefused(WithField(R"("decoder":{"type":"CTC"})"), "decoder CTC");
  CheckRefused(WithField(R"("post_processor":{"type":"Quux"})"), "post_processor Quux");
  CheckRefused(WithField(R"("normalizer":{"kind":"NFC"})"), "'type'");
}

TEST_CASE("Tokenizer: wrong fields are named", "[tokenizer]") {
  CheckRefused(WithField(R"("normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"})"), "pattern");
  CheckRefused(WithField(R"("normalizer":{"type":"Replace","pattern":{"Regex":"("},"content":"x"})"),
               "regular expression");
  CheckRefused(WithField(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"!"})"), "base64");
  CheckRefused(WithField(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"////fw=="})"), "size");
  CheckRefused(WithField(R"("pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Sideways"})"),
               "behavior");
  CheckRefused(WithField(R"("pre_tokenizer":{"type":"Metaspace","prepend_scheme":"often"})"), "prepend_scheme");
  CheckRefused(WithField(R"("pre_tokenizer":{"type":"Digits","individual_digits":"yes"})"), "individual_digits");
  CheckRefused(WithField(R"("decoder":{"type":"Strip","content":" ","start":-1})"), "start");
  CheckRefused(WithField(R"("decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteLevel"}]})"),
               "after Fuse");
  CheckRefused(WithField(R"("added_tokens":[{"id":-4,"content":"<x>"}])"), "id");
  CheckRefused(WithField(R"("added_tokens":[{"id":1,"content":"<x>"}])"), "belongs to");
  CheckRefused(WithField(R"("added_tokens":[{"id":99999999,"content":"<x>"}])"), "99999999");
  CheckRefused(WithField(R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]})"),
               "<s>");
  CheckRefused(WithField(R"("post_processor":{"type":"TemplateProcessing","single":[]})"), "single");
  CheckRefused(WithField(R"("post_processor":{"type":"BertProcessing","sep":["x",77],"cls":["y",0]})"), "77");
}

TEST_CASE("Tokenizer: a vocabulary that contradicts itself is refused", "[tokenizer]") {
  CheckRefused(WithModel(R"({"type":"BPE","vocab":[],"merges":[]})"), "vocab");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0,"b":0},"merges":[]})"), "belongs to");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0,"a":1},"merges":[]})"), "twice");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":-1},"merges":[]})"), "-1");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":1e9},"merges":[]})"), "integer");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":2000000000},"merges":[]})"), "2000000000");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]})"), "'ab'");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a c"]})"), "'c'");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0},"merges":["a"]})"), "merge 0");
  CheckRefused(WithModel(R"({"type":"BPE","vocab":{"a":0},"merges":[["a"]]})"), "merge 0");
  CheckRefused(WithModel(R"({"type":"Unigram","vocab":[["a","b"]]})"), "[token, score]");
  CheckRefused(WithModel(R"({"type":"Unigram","unk_id":7,"vocab":[["a",0]]})"), "unk_id");
  CheckRefused(WithModel("{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"" + std::string(9000, 'a') + "\":0}}"),
               "9000 bytes");
}

TEST_CASE("Tokenizer: a Unigram model without unknown token says so on unknown text", "[tokenizer]") {
  const auto tokenizer = testing::MakeTokenizer(R"({"model":{"type":"Unigram","vocab":[["a",0]]}})");
  CHECK(tokenizer->Encode("ab", SpecialTokens::kParse).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(testing::EncodeOrDie(*tokenizer, "aa") == std::vector<int32_t>{0, 0});
}

TEST_CASE("Tokenizer: an explosive pattern or normalizer is an error for that text only", "[tokenizer]") {
  const auto explosive = testing::MakeTokenizer(
      WithField(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Isolated"})"));
  CHECK(explosive->Encode(std::string(50, 'a') + "b", SpecialTokens::kParse).status().code() ==
        absl::StatusCode::kResourceExhausted);
  CHECK(explosive->Encode("ab", SpecialTokens::kParse).ok());
  const std::string grow = R"({"type":"Replace","pattern":{"String":"a"},"content":")" + std::string(1000, 'a') + "\"}";
  const auto growing = testing::MakeTokenizer(
      WithField("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" + grow + "," + grow + "," + grow + "]}"));
  CHECK(growing->Encode("aaaa", SpecialTokens::kParse).status().code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace millrace
