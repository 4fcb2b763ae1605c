// SPDX-License-Identifier: Apache-2.0
#include "server/caching/caching_generator.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "engine/load/model_info.h"
#include "engine/text/template_json.h"
#include "server/caching/replayed_request.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

constexpr size_t kMaxPrompts = 128;  // of a request; those with more are refused anyway

using Started = absl::StatusOr<std::unique_ptr<Generation>>;

class CachingGenerator : public Generator {
 public:
  explicit CachingGenerator(CachingArgs args) : args_(std::move(args)) {}

  absl::StatusOr<std::vector<int32_t>> Encode(const Prompt& prompt, bool adds_special_tokens) const override {
    return args_.inner->Encode(prompt, adds_special_tokens);
  }
  absl::StatusOr<std::vector<int32_t>> RenderChat(const ChatRequest& request) const override {
    return args_.inner->RenderChat(request);
  }
  Engine& engine() const override { return args_.inner->engine(); }

  Started Complete(const Caller& caller, const CompletionRequest& request, DeltaSink sink) override;
  Started Chat(const Caller& caller, const ChatRequest& request, DeltaSink sink) override;
  Started Embed(const Caller& caller, const EmbeddingRequest& request, DeltaSink sink) override {
    return Bypass(caller, [&] { return args_.inner->Embed(caller, request, std::move(sink)); });
  }

 private:
  // One request on its way through the cache.
  struct Job {
    const Caller& caller;
    const GenerationParams& params;
    PromptTokens prompt;
    CacheKey key;
    DeltaSink sink;
    std::function<Started(const Caller&, DeltaSink)> start;  // by the inner generator
    int32_t num_choices() const { return static_cast<int32_t>(prompt.prompts.size()) * prompt.num_choices_per_prompt; }
  };

  bool IsCacheable(const Caller& caller, const GenerationParams& params) const {
    const CacheControl& control = caller.cache;
    if (!control.may_read && !control.may_store) return false;
    return params.seed || params.temperature.value_or(engine().model().default_temperature.value_or(1)) == 0;
  }
  // Saves reading a prompt that would be refused.
  static absl::Status CheckQuota(const Caller& caller) {
    return caller.quota == nullptr ? absl::OkStatus() : caller.quota->Check();
  }
  static absl::Status NotCached() {
    return WithErrorCode(absl::DeadlineExceededError("only-if-cached: the answer is not in the cache"), "not_cached");
  }
  Started Bypass(const Caller& caller, const std::function<Started()>& start);
  Started Serve(Job job);
  Started Lead(const Job& job, const Caller& caller, SharedGeneration& generation);
  Started Follow(const Job& job, SharedGeneration& generation);
  Started Replay(const Job& job, ResponseCache::Found found);
  // ResourceExhausted: the caller's quota has no request left.
  absl::StatusOr<std::shared_ptr<ReplayedRequest>> MakeReplayed(const Job& job, CacheOutcome outcome) const;
  Started Report(std::unique_ptr<Generation> generation, CacheReport report) {
    args_.cache.Count(report.outcome);
    generation->set_cache(report);
    return generation;
  }

  const CachingArgs args_;
};

// A prompt at fault is left to the inner generator, which says what is wrong in its own words.
Started CachingGenerator::Complete(const Caller& caller, const CompletionRequest& request, DeltaSink sink) {
  const auto pass = [&] { return args_.inner->Complete(caller, request, std::move(sink)); };
  if (!IsCacheable(caller, request.params) || request.prompts.size() > kMaxPrompts) return Bypass(caller, pass);
  if (absl::Status status = CheckQuota(caller); !status.ok()) return status;
  const auto limit = static_cast<size_t>(engine().scheduler_config().max_model_tokens);
  CompletionRequest encoded{.model = request.model, .params = request.params};
  PromptTokens prompt{.num_choices_per_prompt = std::max({1, request.params.num_choices, request.params.best_of})};
  for (const Prompt& text : request.prompts) {
    auto tokens = Encode(text, request.adds_special_tokens);
    if (!tokens.ok() || tokens->size() > limit) return Bypass(caller, pass);
    encoded.prompts.emplace_back(*tokens);
    prompt.prompts.push_back(*std::move(tokens));
  }
  const CacheKey key =
      MakeAnswerKey(args_.model, caller.tenant,
                    {.kind = AnswerKind::kCompletion, .prompts = prompt.prompts, .params = request.params});
  return Serve(
      {.caller = caller,
       .params = request.params,
       .prompt = std::move(prompt),
       .key = key,
       .sink = std::move(sink),
       .start = [&](const Caller& by, DeltaSink to) { return args_.inner->Complete(by, encoded, std::move(to)); }});
}

Started CachingGenerator::Chat(const Caller& caller, const ChatRequest& request, DeltaSink sink) {
  if (!IsCacheable(caller, request.params) || request.session != 0) {
    return Bypass(caller, [&] { return args_.inner->Chat(caller, request, std::move(sink)); });
  }
  if (absl::Status status = CheckQuota(caller); !status.ok()) return status;
  TemplateStringBuilder tools;
  if (request.conversation.tools.is_list()) {
    absl::Status status = AppendJson(request.conversation.tools, {}, tools);
    if (!status.ok()) return WithErrorParam(status, "tools");
  }
  const TemplateString tools_json = tools.Build();
  auto tokens = request.prompt.empty() ? RenderChat(request) : request.prompt;
  if (!tokens.ok()) return tokens.status();
  ChatRequest rendered = request;
  rendered.prompt = *tokens;
  PromptTokens prompt{.prompts = {*std::move(tokens)},
                      .num_choices_per_prompt = std::max({1, request.params.num_choices, request.params.best_of})};
  const CacheKey key = MakeAnswerKey(args_.model, caller.tenant,
                                     {.kind = AnswerKind::kChat,
                                      .prompts = prompt.prompts,
                                      .params = request.params,
                                      .required_tools = request.required_tools,
                                      .calls_once = request.calls_once,
                                      .tools = tools_json.view()});
  return Serve(
      {.caller = caller,
       .params = request.params,
       .prompt = std::move(prompt),
       .key = key,
       .sink = std::move(sink),
       .start = [&](const Caller& by, DeltaSink to) { return args_.inner->Chat(by, rendered, std::move(to)); }});
}

Started CachingGenerator::Bypass(const Caller& caller, const std::function<Started()>& start) {
  if (caller.cache.needs_hit) return NotCached();
  Started generation = start();
  if (!generation.ok()) return generation;
  return Report(*std::move(generation), {.outcome = CacheOutcome::kBypass});
}

Started CachingGenerator::Serve(Job job) {
  const CacheControl& control = job.caller.cache;
  while (control.may_read) {
    if (auto found = args_.cache.Find(job.key, job.num_choices(), control.max_age)) {
      return Replay(job, *std::move(found));
    }
    if (control.needs_hit) return NotCached();
    const ResponseCache::Place place = args_.cache.JoinOrLead(job.key, job.params.priority, job.num_choices());
    if (place.is_new) {
      // Others may have more time than who came first: a call that is out of time drops its own reader.
      Caller caller = job.caller;
      caller.deadline = absl::InfiniteFuture();
      return Lead(job, caller, *place.generation);
    }
    Started followed = Follow(job, *place.generation);
    // It failed to start, or has ended meanwhile: once more, for the answer or to lead.
    if (!followed.ok() || *followed != nullptr) return followed;
  }
  if (control.needs_hit) return NotCached();
  return Lead(job, job.caller, *args_.cache.LeadAlone(job.key, job.num_choices()));
}

Started CachingGenerator::Lead(const Job& job, const Caller& caller, SharedGeneration& generation) {
  std::unique_ptr<Generation> own = generation.Join(job.prompt, job.sink);
  const absl::Status status = generation.Start([&](DeltaSink sink) { return job.start(caller, std::move(sink)); });
  if (!status.ok()) return status;
  return Report(std::move(own), {.outcome = CacheOutcome::kMiss});
}

Started CachingGenerator::Follow(const Job& job, SharedGeneration& generation) {
  if (!generation.AwaitStart().ok()) return nullptr;
  auto replayed = MakeReplayed(job, CacheOutcome::kCoalesced);
  if (!replayed.ok()) return replayed.status();
  const std::shared_ptr<ReplayedRequest> request = *std::move(replayed);
  auto own = generation.Join(job.prompt, [request](TextDelta&& delta) { return request->OnDelta(std::move(delta)); });
  if (own != nullptr) return Report(std::move(own), {.outcome = CacheOutcome::kCoalesced});
  request->Discard();
  return nullptr;
}

Started CachingGenerator::Replay(const Job& job, ResponseCache::Found found) {
  const auto request = MakeReplayed(job, CacheOutcome::kHit);
  if (!request.ok()) return request.status();
  for (TextDelta& delta : found.deltas) {
    if (!(*request)->OnDelta(std::move(delta))) break;
  }
  return Report(MakeDetachedGeneration(job.prompt, nullptr), {.outcome = CacheOutcome::kHit, .age = found.age});
}

absl::StatusOr<std::shared_ptr<ReplayedRequest>> CachingGenerator::MakeReplayed(const Job& job,
                                                                                CacheOutcome outcome) const {
  ReplayedRequest::Args args{
      .num_choices_per_prompt = job.prompt.num_choices_per_prompt, .observer = args_.observer, .sink = job.sink};
  if (job.caller.quota != nullptr) {
    auto lease = job.caller.quota->Reserve(0);
    if (!lease.ok()) return lease.status();
    args.lease = *std::move(lease);
  }
  args.record.caller = job.caller;
  args.record.cache = outcome;
  args.record.max_new_tokens = job.params.max_tokens.value_or(0);
  for (const auto& prompt : job.prompt.prompts) args.num_prompt_tokens.push_back(static_cast<int32_t>(prompt.size()));
  return std::make_shared<ReplayedRequest>(std::move(args));
}

}  // namespace

std::shared_ptr<Generator> MakeCachingGenerator(CachingArgs args) {
  return std::make_shared<CachingGenerator>(std::move(args));
}

}  // namespace millrace
