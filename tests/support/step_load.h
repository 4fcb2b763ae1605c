// SPDX-License-Identifier: Apache-2.0
#pragma once
// A seeded load of requests of every kind, and a golden model with a vocabulary of characters that runs it.
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/grammar/json_schema.h"
#include "engine/grammar/token_vocabulary.h"
#include "engine/load/model_weights.h"
#include "engine/run/runner.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/template_json.h"
#include "engine/text/tokenizer.h"
#include "scheduler/scheduler.h"

namespace millrace::testing {

struct StepLoad {
  uint32_t seed = 0;
  int num_requests = 24;
  int32_t max_prompt = 40;
  int32_t max_new = 24;
  int32_t num_pages = 24;
  int32_t page_tokens = 16;
  double cancels = 0.1;       // share of requests that go away in the middle
  bool has_host_work = true;  // grammars and penalties, which keep steps from being planned ahead
  bool has_embeddings = true;
  bool has_prefix_caching = true;
};

// A vocabulary of the goldens' models: one printable character each.
inline constexpr int32_t kLoadVocab = 96;

class LoadedModel {
 public:
  LoadedModel(const std::string& model_dir, std::unique_ptr<Device> device, const StepLoad& load)
      : load_(load), device_(std::move(device)) {
    auto info = ReadModelInfo(model_dir, {.dtype = "bfloat16"});
    REQUIRE(info.status().ToString() == "OK");
    REQUIRE(info->vocab_tokens == kLoadVocab);
    auto weights = LoadWeights(*info, {.dtype = "bfloat16"}, *device_);
    REQUIRE(weights.status().ToString() == "OK");
    // Few logits at a time, so that a step takes several calls of Sample.
    auto model = Model::Create(*info, std::move(*weights),
                               {.max_rows = kMaxRows,
                                .max_logit_rows = 5,
                                .max_sequences = kMaxSequences,
                                .max_positions = kMaxTokens,
                                .num_pages = load.num_pages,
                                .page_tokens = load.page_tokens},
                               *device_);
    REQUIRE(model.status().ToString() == "OK");
    VocabSpec spec{.model = "gpt2", .pre = "gpt-2"};
    for (int i = 0; i < kLoadVocab; ++i)
      spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(i + 32))));
    tokenizer_ = Tokenizer::FromVocab(spec).value();
    vocabulary_ = std::make_unique<TokenVocabulary>(*tokenizer_, kLoadVocab);
    runner_ = std::make_unique<Runner>(std::move(*model), *device_, vocabulary_.get());
  }

  static constexpr int32_t kMaxRows = 32, kMaxSequences = 8, kMaxTokens = 100;
  Runner& runner() { return *runner_; }
  Device& device() { return *device_; }
  SchedulerConfig Config() const {
    return {.num_pages = load_.num_pages,
            .page_tokens = load_.page_tokens,
            .max_sequences = kMaxSequences,
            .max_step_tokens = kMaxRows,
            .max_model_tokens = kMaxTokens,
            .enable_prefix_caching = load_.has_prefix_caching,
            .min_turn_tokens = 3};
  }

 private:
  const StepLoad load_;
  const std::unique_ptr<Device> device_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<TokenVocabulary> vocabulary_;
  std::unique_ptr<Runner> runner_;
};

inline std::vector<Request> MakeLoad(const StepLoad& load) {
  std::mt19937 random(load.seed);
  const auto below = [&](int32_t bound) { return static_cast<int32_t>(random() % static_cast<uint32_t>(bound)); };
  const auto grammar = CompileJsonSchema(*ParseJsonValue(R"({"type": "array", "items": {"enum": [1, 25, true]}})"));
  REQUIRE(grammar.status().ToString() == "OK");
  std::vector<Request> requests(static_cast<size_t>(load.num_requests));
  for (Request& request : requests) {
    // Few beginnings, so that prefixes are found.
    const int32_t num_tokens = 1 + below(load.max_prompt), branch = below(load.max_prompt), family = below(2);
    for (int32_t i = 0; i < num_tokens; ++i) {
      request.prompt_tokens.push_back(i < branch ? (i * 7 + family) % kLoadVocab : below(kLoadVocab));
    }
    request.tenant.name = below(2) == 0 ? "a" : "b";
    request.priority = below(6) == 0 ? -1 : 0;
    request.max_new_tokens = 1 + below(load.max_new);
    request.min_new_tokens = below(4);
    for (int i = below(4); i > 0; --i) request.stop_token_ids.push_back(below(kLoadVocab));
    request.sampling.temperature = below(3) == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(below(10));
    request.sampling.seed = random();
    if (below(4) == 0) request.sampling.top_k = 1 + below(20);
    if (below(4) == 0) request.sampling.top_p = 0.8f;
    if (below(3) == 0) request.sampling.num_top_logprobs = below(3);
    if (below(8) == 0) request.sampling.num_prompt_logprobs = below(3);
    if (below(6) == 0) request.sampling.logit_bias = {{below(kLoadVocab), 2.0f}};
    if (load.has_embeddings && below(10) == 0) request.kind = Request::Kind::kEmbed;
    if (!load.has_host_work) continue;
    if (below(8) == 0) request.sampling.repetition_penalty = 1.3f;
    if (below(8) == 0) {
      request.grammar = *grammar;
      request.stop_token_ids = {kLoadVocab - 2};
    }
  }
  return requests;
}

}  // namespace millrace::testing
