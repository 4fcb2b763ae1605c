// SPDX-License-Identifier: Apache-2.0
#include "server/caching/stored_answer.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>

#include "engine/grammar/json_schema.h"
#include "engine/text/template_json.h"
#include "server/caching/answer_key.h"

namespace millrace {
namespace {

std::vector<TextDelta> Answer() {
  const TokenText token{.token = 5,
                        .bytes = "\xC3",
                        .logprob = -0.25f,
                        .rank = 3,
                        .top = {{.token = 7, .bytes = "x", .logprob = -1e-20f, .rank = 1}}};
  return {{.choice = 1, .text = "ab", .tokens = {5, 300'000}, .logprobs = {token, token}, .prompt_logprobs = {token}},
          {.choice = 0, .text = "", .tokens = {0}, .finish = FinishReason::kStop, .stop_reason = "END"},
          {.choice = 1, .finish = FinishReason::kStop, .stop_reason = 128'009}};
}

TEST_CASE("StoredAnswer: decodes to what was encoded", "[response_cache]") {
  const std::string bytes = EncodeAnswer(Answer());
  const auto decoded = DecodeAnswer(bytes, 2);
  REQUIRE(decoded);
  REQUIRE(decoded->size() == 3);
  CHECK(EncodeAnswer(*decoded) == bytes);
  const TextDelta& first = decoded->front();
  CHECK(first.text == "ab");
  CHECK(first.tokens == std::vector<int32_t>{5, 300'000});
  CHECK(first.logprobs.at(1).logprob == -0.25f);
  CHECK(first.logprobs.at(0).top.at(0).logprob == -1e-20f);
  CHECK(first.prompt_logprobs.at(0).bytes == "\xC3");
  CHECK(std::get<std::string>((*decoded)[1].stop_reason) == "END");
  CHECK(std::get<int32_t>((*decoded)[2].stop_reason) == 128'009);
}

TEST_CASE("StoredAnswer: what is not a whole answer is none", "[response_cache]") {
  const std::string bytes = EncodeAnswer(Answer());
  CHECK_FALSE(DecodeAnswer(bytes, 0));
  CHECK_FALSE(DecodeAnswer(bytes, 1));
  CHECK_FALSE(DecodeAnswer(bytes, 3));
  CHECK_FALSE(DecodeAnswer(bytes + '\0', 2));
  CHECK_FALSE(DecodeAnswer("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 1));
  for (size_t i = 0; i < bytes.size(); ++i) CHECK_FALSE(DecodeAnswer(bytes.substr(0, i), 2));
  std::vector<TextDelta> open = Answer(), late = Answer(), failed = Answer();
  open.pop_back();
  CHECK_FALSE(DecodeAnswer(EncodeAnswer(open), 2));
  late.push_back({.choice = 0, .text = "behind the end"});
  CHECK_FALSE(DecodeAnswer(EncodeAnswer(late), 2));
  failed.back().finish = FinishReason::kError;
  CHECK_FALSE(DecodeAnswer(EncodeAnswer(failed), 2));
}

std::shared_ptr<const Grammar> Schema(const char* text) { return CompileJsonSchema(*ParseJsonValue(text)).value(); }

struct Asked {
  ServedModel model{.name = "m", .identity = Sha256("weights")};
  Tenant tenant{.name = "t", .salt = 1};
  AnswerKind kind = AnswerKind::kCompletion;
  std::vector<std::vector<int32_t>> prompts = {{1, 2}, {3}};
  GenerationParams params;
  std::vector<std::string> tools;
  bool calls_once = false;
  std::string tool_schemas;
};
using Change = std::function<void(Asked&)>;

const Change kChanges[] = {
    [](Asked&) {},
    [](Asked& a) { a.model.name = "n"; },
    [](Asked& a) { a.model.identity = Sha256("other weights"); },
    [](Asked& a) { a.tenant.name = "u"; },
    [](Asked& a) { a.tenant.salt = 2; },
    [](Asked& a) { a.kind = AnswerKind::kChat; },
    [](Asked& a) { a.prompts = {{1}, {2, 3}}; },
    [](Asked& a) { a.prompts = {{1, 2, 3}}; },
    [](Asked& a) { a.prompts[1][0] = 4; },
    [](Asked& a) { a.tools = {"f"}; },
    [](Asked& a) { a.tools = {"f", "g"}; },
    [](Asked& a) { a.calls_once = true; },
    [](Asked& a) { a.tool_schemas = "[1]"; },
    [](Asked& a) { a.params.temperature = 0; },
    [](Asked& a) { a.params.temperature = 0.5; },
    [](Asked& a) { a.params.top_p = 0.5; },
    [](Asked& a) { a.params.min_p = 0.5; },
    [](Asked& a) { a.params.repetition_penalty = 0.5; },
    [](Asked& a) { a.params.top_k = 0; },
    [](Asked& a) { a.params.presence_penalty = 0.5; },
    [](Asked& a) { a.params.frequency_penalty = 0.5; },
    [](Asked& a) { a.params.logit_bias = {{1, 2}}; },
    [](Asked& a) { a.params.logit_bias = {{1, 3}}; },
    [](Asked& a) { a.params.logit_bias = {{2, 2}}; },
    [](Asked& a) { a.params.seed = 0; },
    [](Asked& a) { a.params.seed = 1; },
    [](Asked& a) { a.params.num_choices = 2; },
    [](Asked& a) { a.params.best_of = 2; },
    [](Asked& a) { a.params.max_tokens = 16; },
    [](Asked& a) { a.params.min_tokens = 2; },
    [](Asked& a) { a.params.stop = {"x"}; },
    [](Asked& a) { a.params.stop = {"x", "y"}; },
    [](Asked& a) { a.params.stop = {"xy"}; },
    [](Asked& a) { a.params.stop_token_ids = {2}; },
    [](Asked& a) { a.params.includes_stop_text = true; },
    [](Asked& a) { a.params.ignores_eos = true; },
    [](Asked& a) { a.params.skips_special_tokens = false; },
    [](Asked& a) { a.params.num_logprobs = 0; },
    [](Asked& a) { a.params.num_logprobs = 1; },
    [](Asked& a) { a.params.num_prompt_logprobs = 1; },
    [](Asked& a) { a.params.wants_echo = true; },
    [](Asked& a) { a.params.grammar = AnyJsonObject(); },
    [](Asked& a) { a.params.grammar = Schema(R"({"type":"integer"})"); },
    [](Asked& a) { a.params.grammar = Schema(R"({"enum":["a"]})"); },
    [](Asked& a) { a.params.grammar = Schema(R"({"enum":["b"]})"); },
};

TEST_CASE("AnswerKey: every field that can change an answer changes the key", "[response_cache]") {
  const auto key = [](const Asked& a) {
    return MakeAnswerKey(a.model, a.tenant,
                         {.kind = a.kind,
                          .prompts = a.prompts,
                          .params = a.params,
                          .required_tools = a.tools,
                          .calls_once = a.calls_once,
                          .tools = a.tool_schemas});
  };
  std::set<Digest> digests;
  for (const Change& change : kChanges) {
    Asked asked, again;
    change(asked);
    change(again);
    digests.insert(key(asked).digest);
    CHECK(key(asked) == key(again));
  }
  CHECK(digests.size() == std::size(kChanges));
  // Who is served first is no matter; nor is the name of a field at fault.
  Asked asked, other;
  other.params.priority = 7;
  other.params.logprobs_param = "top_logprobs";
  other.tenant.weight = 3;
  CHECK(key(asked) == key(other));
  // A field that is new must be thought of here: it is either in the key, or named above.
  CHECK(sizeof(GenerationParams) == 208);
}

}  // namespace
}  // namespace millrace
