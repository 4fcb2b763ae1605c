// SPDX-License-Identifier: Apache-2.0
// Constrained decoding through the whole engine, on the bundled model.
#include <atomic>
#include <catch2/catch.hpp>
#include <string>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "engine/grammar/json_schema.h"
#include "engine/load/model_info.h"
#include "engine/text/template_json.h"
#include "engine/text/tokenizer.h"

namespace millrace {
namespace {

struct Ended {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kNone;
};

class GrammarEngine {
 public:
  explicit GrammarEngine(int32_t num_pages = 0) {
    EngineOptions options{.model_dir = std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny", .device = "cpu"};
    options.num_threads = 2;
    options.max_model_tokens = 256;
    options.kv_cache_dtype = "float32";
    options.scheduler.page_tokens = 16;
    // 4 layers of keys and values of 2 heads of 64.
    if (num_pages > 0) options.kv_cache_bytes = int64_t{num_pages} * 16 * 4 * 2 * 2 * 64 * 4;
    auto engine = Engine::Create(options);
    REQUIRE(engine.status().ToString() == "OK");
    engine_ = *std::move(engine);
  }

  Request Make(std::shared_ptr<const Grammar> grammar, uint64_t seed) const {
    Request request{.prompt_tokens =
                        *engine_->tokenizer().Encode("The mill stands by the river. ", SpecialTokens::kParse)};
    request.sampling.seed = seed;
    request.max_new_tokens = 120;
    request.stop_token_ids = engine_->model().eos_token_ids;
    request.grammar = std::move(grammar);
    return request;
  }

  std::vector<Ended> Run(std::vector<Request> requests) {
    std::vector<Ended> ended(requests.size());
    absl::BlockingCounter left(static_cast<int>(requests.size()));
    std::vector<RequestHandle> handles;
    for (size_t i = 0; i < requests.size(); ++i) {
      auto handle = engine_->Submit(std::move(requests[i]), [&, i](TokenEvent&& event) {
        for (const TokenResult& token : event.tokens) ended[i].tokens.push_back(token.token);
        ended[i].finish = event.finish;
        if (event.finish != FinishReason::kNone) left.DecrementCount();
      });
      REQUIRE(handle.status().ToString() == "OK");
      handles.push_back(*std::move(handle));
    }
    left.Wait();
    for (Ended& one : ended) one.text = engine_->tokenizer().Decode(one.tokens, SkipSpecial::kYes);
    return ended;
  }
  Engine& engine() { return *engine_; }

 private:
  std::unique_ptr<Engine> engine_;
};

std::shared_ptr<const Grammar> Compile(const std::string& schema) {
  const auto value = ParseJsonValue(schema);
  REQUIRE(value.ok());
  auto grammar = CompileJsonSchema(*value);
  INFO(grammar.status().message());
  REQUIRE(grammar.ok());
  return *std::move(grammar);
}

const char kPerson[] = R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
    "age": {"type": "integer", "minimum": 0, "maximum": 130}, "likes": {"type": "array", "maxItems": 3,
    "items": {"enum": ["tea", "rye", "rain"]}}}, "required": ["name", "age", "likes"], "additionalProperties": false})";

void CheckPerson(const Ended& ended) {
  INFO(ended.text);
  CHECK(ended.finish == FinishReason::kStop);
  const auto value = ParseJsonValue(ended.text);
  REQUIRE(value.ok());
  REQUIRE(value->is_dict());
  CHECK(value->as_dict().size() == 3);
  REQUIRE(value->as_dict().Find("age") != nullptr);
  CHECK(value->as_dict().Find("age")->as_int() <= 130);
}

TEST_CASE("Grammar: what a model says at random satisfies the schema, and free requests beside it stay as they are",
          "[engine_grammar]") {
  GrammarEngine fixture;
  const auto grammar = Compile(kPerson);
  std::vector<Request> alone = {fixture.Make(nullptr, 5)};
  const std::vector<int32_t> expected = fixture.Run(std::move(alone))[0].tokens;
  std::vector<Request> requests = {fixture.Make(nullptr, 5)};
  for (uint64_t seed = 0; seed < 24; ++seed) requests.push_back(fixture.Make(grammar, seed));
  const std::vector<Ended> ended = fixture.Run(std::move(requests));
  CHECK(ended[0].tokens == expected);
  for (size_t i = 1; i < ended.size(); ++i) CheckPerson(ended[i]);
}

TEST_CASE("Grammar: a preempted sequence goes on where it was", "[engine_grammar]") {
  const auto grammar = Compile(kPerson);
  const auto requests = [&](GrammarEngine& fixture) {
    std::vector<Request> all;
    for (uint64_t seed = 0; seed < 8; ++seed) all.push_back(fixture.Make(grammar, seed));
    return all;
  };
  GrammarEngine roomy, tight(18);  // 16 pages hold one long sequence, or a few that must make way for each other
  const std::vector<Ended> expected = roomy.Run(requests(roomy));
  const std::vector<Ended> actual = tight.Run(requests(tight));
  CHECK(tight.engine().stats().num_preemptions > 0);
  for (size_t i = 0; i < expected.size(); ++i) {
    CheckPerson(actual[i]);
    CHECK(actual[i].tokens == expected[i].tokens);
  }
}

TEST_CASE("Grammar: a request that may say nothing ends with an error, and nothing else does", "[engine_grammar]") {
  GrammarEngine fixture;
  // It waits for a marker that no token is.
  GrammarBuilder builder(10);
  const int32_t rule = builder.NewRule();
  builder.Symbols(builder.start(rule), {kFirstMarker, kFirstMarker}, builder.end(rule));
  Request hopeless = fixture.Make(*builder.Build(rule), 1);
  std::vector<Request> requests;
  requests.push_back(fixture.Make(Compile(R"({"const": true})"), 1));
  requests.push_back(std::move(hopeless));
  const std::vector<Ended> ended = fixture.Run(std::move(requests));
  CHECK(ended[0].text == "true");
  CHECK(ended[0].finish == FinishReason::kStop);
  CHECK(ended[1].finish == FinishReason::kError);
  std::vector<Request> after = {fixture.Make(nullptr, 2)};
  CHECK(fixture.Run(std::move(after))[0].finish != FinishReason::kError);
}

}  // namespace
}  // namespace millrace
