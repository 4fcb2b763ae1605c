// SPDX-License-Identifier: Apache-2.0
// The whole engine on the bundled model.
#include "engine/engine.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/load/model_info.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(120);

EngineOptions BundledModel() {
  EngineOptions options;
  options.model_dir = std::string(MILLRACE_SOURCE_DIR) + "/models/millrace-tiny";
  options.max_model_tokens = 1024;
  options.kv_cache_bytes = 64 << 20;
  options.scheduler.max_sequences = 16;
  options.scheduler.max_step_tokens = 256;
  return options;
}

std::unique_ptr<Engine> MakeEngine(const EngineOptions& options) {
  auto engine = Engine::Create(options);
  REQUIRE(engine.status().ToString() == "OK");
  return std::move(*engine);
}

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<TokenResult> results;
  std::vector<TokenResult> prompt_logprobs;
  std::vector<float> embedding;
  FinishReason finish = FinishReason::kNone;
  int32_t num_cached_tokens = 0;
};

// Submits requests together and waits for all.
class Batch {
 public:
  explicit Batch(Engine& engine) : engine_(engine) {}
  void Add(Request request) {
    const size_t index = handles_.size();
    {
      absl::MutexLock lock(&mu_);
      outcomes_.emplace_back();
    }
    auto handle = engine_.Submit(std::move(request), [this, index](TokenEvent&& event) {
      absl::MutexLock lock(&mu_);
      Outcome& outcome = outcomes_[index];
      for (TokenResult& token : event.tokens) {
        outcome.tokens.push_back(token.token);
        outcome.results.push_back(std::move(token));
      }
      for (TokenResult& token : event.prompt_logprobs) outcome.prompt_logprobs.push_back(std::move(token));
      if (!event.embedding.empty()) outcome.embedding = std::move(event.embedding);
      outcome.num_cached_tokens = std::max(outcome.num_cached_tokens, event.num_cached_tokens);
      if (event.finish != FinishReason::kNone) outcome.finish = event.finish;
    });
    REQUIRE(handle.status().ToString() == "OK");
    handles_.push_back(std::move(*handle));
  }
  std::vector<Outcome> Wait() {
    absl::MutexLock lock(&mu_);
    const auto all_finished = [this] {
      return std::all_of(outcomes_.begin(), outcomes_.end(), [](auto& o) { return o.finish != FinishReason::kNone; });
    };
    CHECK(mu_.AwaitWithTimeout(absl::Condition(&all_finished), kPatience));
    return outcomes_;
  }

 private:
  Engine& engine_;
  absl::Mutex mu_;
  std::vector<Outcome> outcomes_;
  std::vector<RequestHandle> handles_;
};

Outcome RunAlone(Engine& engine, Request request) {
  Batch batch(engine);
  batch.Add(std::move(request));
  return batch.Wait()[0];
}

Request ChatRequestFor(const Engine& engine, const std::string& question) {
  Conversation conversation;
  conversation.messages.push_back({.role = "user", .content = question});
  auto tokens = engine.chat_template()->Encode(conversation, engine.tokenizer());
  REQUIRE(tokens.status().ToString() == "OK");
  return {.prompt_tokens = *tokens, .max_new_tokens = 24, .stop_token_ids = engine.model().eos_token_ids};
}

const char* const kQuestions[] = {
    "What is Millrace?",          "hello",        "What is 12 + 30?",  "Tell me about metrics.",
    "How do I start the server?", "Who are you?", "Convert 3 km to m."};

TEST_CASE("Engine: two ranks draw one rank's tokens, in a batch and run after run", "[engine][ranks]") {
  EngineOptions options = BundledModel();
  options.device = "cpu";
  options.num_threads = 2;
  const auto run = [&options](int num_ranks) {
    options.tensor_parallel_size = num_ranks;
    const auto engine = MakeEngine(options);
    CHECK(engine->model().vocab_tokens == 2048);  // of the whole model
    CHECK_THAT(engine->memory_report(),
               Catch::StartsWith(num_ranks == 1 ? "memory plan\n" : "memory plan of each of 2 ranks\n"));
    Batch batch(*engine);
    for (const char* question : kQuestions) batch.Add(ChatRequestFor(*engine, question));
    Request sampled = ChatRequestFor(*engine, kQuestions[0]);
    sampled.sampling.temperature = 0.8f;
    sampled.sampling.seed = 7;
    batch.Add(sampled);
    std::vector<std::vector<int32_t>> tokens;
    for (const Outcome& outcome : batch.Wait()) tokens.push_back(outcome.tokens);
    return tokens;
  };
  const auto one = run(1), two = run(2);
  CHECK(two == one);
  CHECK(run(2) == two);
}

TEST_CASE("Engine: a number of ranks that does not divide the model is refused with both numbers", "[engine][ranks]") {
  EngineOptions options = BundledModel();
  options.device = "cpu";
  options.tensor_parallel_size = 3;
  const absl::Status status = Engine::Create(options).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains("--tensor-parallel-size 3") && Catch::Contains("4 attention heads"));
}

TEST_CASE("Engine: tokens are the same alone, in a batch and after prefix reuse", "[engine]") {
  const std::string quantization = GENERATE(std::string(), std::string("int8"), std::string("int4"));
  CAPTURE(quantization);
  EngineOptions options = BundledModel();
  options.quantization = quantization;
  const auto engine = MakeEngine(options);
  std::vector<Request> requests;
  for (const char* question : kQuestions) {
    for (const float temperature : {0.0f, 0.8f}) {
      requests.push_back(ChatRequestFor(*engine, question));
      requests.back().sampling.temperature = temperature;
      requests.back().sampling.seed = 40 + requests.size();
    }
  }
  std::vector<std::vector<int32_t>> solo;
  for (const Request& request : requests) {
    const Outcome first = RunAlone(*engine, request);
    CHECK((first.finish == FinishReason::kStop || first.finish == FinishReason::kLength));
    CHECK(!first.tokens.empty());
    solo.push_back(first.tokens);
    CHECK(RunAlone(*engine, request).tokens == first.tokens);  // its prompt is now cached
  }
  Batch batch(*engine);
  for (const Request& request : requests) batch.Add(request);
  const std::vector<Outcome> together = batch.Wait();
  for (size_t i = 0; i < requests.size(); ++i) CHECK(together[i].tokens == solo[i]);
}

TEST_CASE("Engine: prefix reuse finds a repeated prompt, and another tenant's never", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  Request request{.prompt_tokens = std::vector<int32_t>(100, 65), .max_new_tokens = 2, .ignore_eos = true};
  request.tenant.salt = 1;
  CHECK(RunAlone(*engine, request).num_cached_tokens == 0);
  CHECK(RunAlone(*engine, request).num_cached_tokens > 0);
  request.tenant.salt = 2;
  CHECK(RunAlone(*engine, request).num_cached_tokens == 0);
}

TEST_CASE("Engine: a reset of the prefix cache frees the pages of one tenant, or of all", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  Request request{.prompt_tokens = std::vector<int32_t>(100, 65), .max_new_tokens = 2, .ignore_eos = true};
  for (const uint64_t salt : {1, 2}) {
    request.tenant.salt = salt;
    RunAlone(*engine, request);
  }
  const int32_t num_each = 101 / engine->scheduler_config().page_tokens;
  const auto reset = [&](std::optional<uint64_t> salt) { return engine->ResetPrefixCache(salt, kPatience); };
  CHECK(*reset(1) == num_each);
  CHECK(*reset(1) == 0);
  CHECK(RunAlone(*engine, request).num_cached_tokens > 0);
  CHECK(*reset(std::nullopt) == num_each);
  CHECK(RunAlone(*engine, request).num_cached_tokens == 0);
}

TEST_CASE("Engine: log-probabilities are those of a distribution and agree with the drawn tokens", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  Request request = ChatRequestFor(*engine, "hello");
  request.sampling.temperature = 0;
  request.sampling.num_top_logprobs = 5;
  request.sampling.num_prompt_logprobs = 1;
  const Outcome outcome = RunAlone(*engine, request);
  REQUIRE(!outcome.results.empty());
  for (const TokenResult& result : outcome.results) {
    REQUIRE(result.top.size() == 5);
    CHECK(result.rank == 1);
    CHECK(result.top[0].token == result.token);
    CHECK(result.top[0].logprob == result.logprob);
    CHECK(result.logprob <= 0);
    CHECK(result.top[1].logprob <= result.top[0].logprob);
  }
  CHECK(outcome.prompt_logprobs.size() == request.prompt_tokens.size() - 1);
  for (size_t i = 0; i < outcome.prompt_logprobs.size(); ++i) {
    CHECK(outcome.prompt_logprobs[i].token == request.prompt_tokens[i + 1]);
  }
}

TEST_CASE("Engine: prompt log-probabilities are the same in chunks of any size", "[engine]") {
  std::vector<float> expected;
  for (const int32_t max_step_tokens : {256, 17}) {
    EngineOptions options = BundledModel();
    options.scheduler.max_step_tokens = max_step_tokens;
    const auto engine = MakeEngine(options);
    Request request = ChatRequestFor(*engine, "Tell me about metrics and about how to start the server, please.");
    request.sampling.num_prompt_logprobs = 0;
    std::vector<float> logprobs;
    for (const TokenResult& result : RunAlone(*engine, request).prompt_logprobs) logprobs.push_back(result.logprob);
    if (expected.empty()) expected = logprobs;
    CHECK(logprobs == expected);
  }
}

TEST_CASE("Engine: an embedding has unit length and depends on the text", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  std::vector<std::vector<float>> embeddings;
  for (const char* text : {"hello", "hello", "metrics"}) {
    auto tokens = engine->tokenizer().Encode(text, SpecialTokens::kPlainText);
    REQUIRE(tokens.ok());
    const Outcome outcome = RunAlone(*engine, {.prompt_tokens = *tokens, .kind = Request::Kind::kEmbed});
    REQUIRE(static_cast<int32_t>(outcome.embedding.size()) == engine->model().hidden_dim);
    double norm = 0;
    for (const float value : outcome.embedding) norm += static_cast<double>(value) * value;
    CHECK(norm == Approx(1.0).epsilon(1e-5));
    embeddings.push_back(outcome.embedding);
  }
  CHECK(embeddings[0] == embeddings[1]);
  CHECK(embeddings[0] != embeddings[2]);
}

TEST_CASE("Engine: min_new_tokens holds stop tokens back, logit_bias forces a token", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  Request request = ChatRequestFor(*engine, "hello");
  request.sampling.temperature = 0;
  const size_t usual = RunAlone(*engine, request).tokens.size();
  request.min_new_tokens = static_cast<int32_t>(usual) + 3;
  request.max_new_tokens = request.min_new_tokens + 4;
  CHECK(RunAlone(*engine, request).tokens.size() >= usual + 3);
  request = ChatRequestFor(*engine, "hello");
  request.sampling.logit_bias = {{77, 1000.0f}};
  request.max_new_tokens = 3;
  CHECK(RunAlone(*engine, request).tokens == std::vector<int32_t>{77, 77, 77});
}

TEST_CASE("Engine: what cannot be is refused with the value", "[engine]") {
  const auto engine = MakeEngine(BundledModel());
  const auto submit = [&](Request request) { return engine->Submit(std::move(request), [](TokenEvent&&) {}).status(); };
  CHECK(absl::IsInvalidArgument(submit({.prompt_tokens = {1 << 20}})));
  CHECK(absl::IsInvalidArgument(submit({.prompt_tokens = {-1}})));
  CHECK(absl::IsInvalidArgument(submit({.prompt_tokens = {5}, .max_new_tokens = 4000})));
  EngineOptions missing = BundledModel();
  missing.model_dir = "/nonexistent/model";
  CHECK(absl::IsNotFound(Engine::Create(missing).status()));
  EngineOptions crowded = BundledModel();
  crowded.kv_cache_bytes = int64_t{1} << 50;
  const absl::Status refused = Engine::Create(crowded).status();
  CHECK(absl::IsResourceExhausted(refused));
  CHECK(std::string(refused.message()).find("GiB") != std::string::npos);
}

// A model of random weights whose config.json has these further fields; without a tokenizer it takes 256 bytes.
EngineOptions RandomModel(const testing::TemporaryDir& dir, const std::string& fields = "") {
  testing::WriteFile(dir.path() / "config.json", testing::TinyCheckpoint::Config(fields));
  EngineOptions options = BundledModel();
  options.model_dir = dir.string();
  options.load_format = "dummy";
  options.max_model_tokens = 0;
  return options;
}

TEST_CASE("Engine: a model whose first token is outside its vocabulary is refused by name", "[engine]") {
  const testing::TemporaryDir dir;
  const absl::Status status = Engine::Create(RandomModel(dir, R"("bos_token_id": 4000)")).status();
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()).find("bos_token_id: 4000") != std::string::npos);
}

TEST_CASE("Engine: a token that the tokenizer has and the embedding lacks is refused with its id", "[engine]") {
  const testing::TemporaryDir dir;
  const bool has_tokenizer = GENERATE(false, true);
  if (has_tokenizer) {
    testing::WriteFile(dir.path() / "tokenizer.json",
                       R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens":
                       [{"id": 97, "content": "<x>", "special": true, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false}]})");
  }
  const auto engine = MakeEngine(RandomModel(dir, R"("bos_token_id": 0)"));
  const auto tokens = engine->tokenizer().Encode(has_tokenizer ? "<x>" : "a", SpecialTokens::kParse);
  REQUIRE(tokens.status().ToString() == "OK");
  REQUIRE(*tokens == std::vector<int32_t>{97});
  const absl::Status status = engine->Submit({.prompt_tokens = *tokens}, [](TokenEvent&&) {}).status();
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()).find("token id 97 is outside the vocabulary of 96") != std::string::npos);
}

}  // namespace
}  // namespace millrace
