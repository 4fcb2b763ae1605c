// SPDX-License-Identifier: Apache-2.0
#include "server/pipeline/generation.h"

#include <openssl/rand.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/model_info.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/pipeline/delivery.h"
#include "server/pipeline/generation_state.h"
#include "server/pipeline/tool_calling.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

uint64_t RandomSeed() {
  uint64_t seed = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof(seed));
  return seed;
}

// A text has at least its bytes divided by this many tokens, unless a normaliser takes most of it away.
size_t LongestTokenBytes(const Tokenizer& tokenizer) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) longest = std::max(longest, tokenizer.TokenBytes(id).size());
  return longest;
}

// A text on which the tokenizer gives up stays at fault: unlike a full queue, it should not be tried again.
absl::Status TextFault(const char* param, const absl::Status& status) {
  return ParamError(param, std::string(status.message()));
}

class GenerationImpl : public Generation {
 public:
  GenerationImpl(std::shared_ptr<GenerationState> state, std::shared_ptr<DeliveryThread> thread, uint64_t key,
                 std::vector<std::vector<int32_t>> prompts, int32_t num_choices_per_prompt)
      : state_(std::move(state)),
        thread_(std::move(thread)),
        key_(key),
        prompts_(std::move(prompts)),
        num_choices_per_prompt_(num_choices_per_prompt) {}
  ~GenerationImpl() override {
    state_->Cancel();
    thread_->PostCancelled(key_);
  }
  const std::vector<std::vector<int32_t>>& prompts() const override { return prompts_; }
  int32_t num_choices_per_prompt() const override { return num_choices_per_prompt_; }
  int32_t num_prompt_tokens() const override {
    size_t num_tokens = 0;
    for (const auto& prompt : prompts_) num_tokens += prompt.size();
    return static_cast<int32_t>(num_tokens);
  }

 private:
  const std::shared_ptr<GenerationState> state_;
  const std::shared_ptr<DeliveryThread> thread_;
  const uint64_t key_;
  const std::vector<std::vector<int32_t>> prompts_;
  const int32_t num_choices_per_prompt_;
};

class GeneratorImpl : public Generator {
 public:
  GeneratorImpl(Engine& engine, RequestObserver* observer, const Options& options)
      : engine_(engine),
        observer_(observer),
        options_(options),
        max_text_bytes_(static_cast<size_t>(engine.scheduler_config().max_model_tokens) *
                        LongestTokenBytes(engine.tokenizer())) {
    for (int i = 0; i < std::max(1, options.num_delivery_threads); ++i) {
      threads_.push_back(std::make_shared<DeliveryThread>());
    }
  }

  ~GeneratorImpl() override {
    for (const auto& thread : threads_) thread->Stop();
  }

  Engine& engine() const override { return engine_; }

  absl::StatusOr<std::vector<int32_t>> Encode(const Prompt& prompt, bool adds_special_tokens) const override {
    if (const auto* tokens = std::get_if<std::vector<int32_t>>(&prompt)) {
      for (const int32_t token : *tokens) {
        if (!engine_.tokenizer().HasId(token) && token >= engine_.model().vocab_tokens) {
          return ParamError("prompt", absl::StrCat("token id ", token, " is not in the vocabulary"));
        }
        if (token < 0) return ParamError("prompt", absl::StrCat("token id ", token, " is negative"));
      }
      return *tokens;
    }
    const auto& text = std::get<std::string>(prompt);
    if (absl::Status status = CheckText("prompt", text.size()); !status.ok()) return status;
    auto tokens = engine_.tokenizer().Encode(text, SpecialTokens::kPlainText,
                                             adds_special_tokens ? Framing::kTemplate : Framing::kNone);
    if (!tokens.ok()) return TextFault("prompt", tokens.status());
    return tokens;
  }

  absl::StatusOr<std::vector<int32_t>> RenderChat(const ChatRequest& request) const override;

  absl::StatusOr<std::unique_ptr<Generation>> Complete(const Caller& caller, const CompletionRequest& request,
                                                       DeltaSink sink) override {
    GenerationParams params = request.params;
    if (params.wants_echo && params.num_logprobs >= 0) params.num_prompt_logprobs = params.num_logprobs;
    if (!params.max_tokens) params.max_tokens = 16;
    // Choosing the best of several needs their log-probabilities even if the client does not see them.
    if (params.best_of > params.num_choices) params.num_logprobs = std::max(0, params.num_logprobs);
    Job job{caller,   std::move(params),         {}, std::move(sink), Request::Kind::kGenerate,
            "prompt", StreamStart::kContinuation};
    return EncodeAndStart(std::move(job), request.prompts, request.adds_special_tokens);
  }

  absl::StatusOr<std::unique_ptr<Generation>> Chat(const Caller& caller, const ChatRequest& request,
                                                   DeltaSink sink) override {
    Job job{caller, request.params, {}, std::move(sink), Request::Kind::kGenerate, "messages"};
    if (absl::Status status = Check(job, 1); !status.ok()) return status;
    if (absl::Status status = CheckQuota(job); !status.ok()) return status;
    job.session = request.session;
    auto tokens = request.prompt.empty() ? RenderChat(request) : Encode(request.prompt, /*adds_special_tokens=*/false);
    if (!tokens.ok()) return tokens.status();
    if (auto status = call_grammars_.Constrain(engine_, *tokens, request, job.params); !status.ok()) return status;
    job.prompts.push_back(*std::move(tokens));
    return Start(std::move(job));
  }

  absl::StatusOr<std::unique_ptr<Generation>> Embed(const Caller& caller, const EmbeddingRequest& request,
                                                    DeltaSink sink) override {
    GenerationParams params;
    params.priority = request.priority;
    params.max_tokens = 1;
    Job job{caller, std::move(params), {}, std::move(sink), Request::Kind::kEmbed, "input"};
    return EncodeAndStart(std::move(job), request.inputs, request.adds_special_tokens);
  }

 private:
  struct Job {
    Caller caller;
    GenerationParams params;
    std::vector<std::vector<int32_t>> prompts;
    DeltaSink sink;
    Request::Kind kind;
    const char* prompt_param;  // the field to name when a prompt is at fault
    StreamStart text_start = StreamStart::kText;
    uint64_t session = 0;
  };

  // What can be refused without knowing the tokens.
  absl::Status Check(const Job& job, size_t num_prompts) const;
  absl::Status CheckText(const char* param, size_t num_bytes) const;
  // Saves tokenising a prompt that would be refused; Start asks again, for all it needs.
  static absl::Status CheckQuota(const Job& job) {
    return job.caller.quota == nullptr ? absl::OkStatus() : job.caller.quota->Check();
  }
  static absl::StatusOr<Lease> Reserve(const Job& job, const std::vector<Request>& requests);
  absl::StatusOr<std::unique_ptr<Generation>> EncodeAndStart(Job job, const std::vector<Prompt>& prompts,
                                                             bool adds_special_tokens);
  absl::StatusOr<std::unique_ptr<Generation>> Start(Job job);
  absl::StatusOr<int32_t> MaxNewTokens(const Job& job, const std::vector<int32_t>& prompt) const;
  absl::StatusOr<Request> MakeRequest(const Job& job, const std::vector<int32_t>& prompt) const;
  SamplingParams MakeSampling(const GenerationParams& params) const;

  Engine& engine_;
  RequestObserver* const observer_;
  const Options options_;
  const size_t max_text_bytes_;  // of a prompt; longer ones are refused before they are tokenised
  CallGrammars call_grammars_;
  std::vector<std::shared_ptr<DeliveryThread>> threads_;
  std::atomic<uint64_t> next_key_{1};
};

absl::StatusOr<std::vector<int32_t>> GeneratorImpl::RenderChat(const ChatRequest& request) const {
  const ChatTemplate* chat_template = engine_.chat_template();
  if (chat_template == nullptr) {
    return ParamError("messages", "the model has no chat template; give one with --chat-template, or use completions",
                      kUnsupportedParameter);
  }
  const auto prompt = chat_template->Render(request.conversation);
  if (!prompt.ok()) return WithErrorParam(prompt.status(), "messages");
  if (absl::Status status = CheckText("messages", prompt->text.size_bytes()); !status.ok()) return status;
  auto tokens = engine_.tokenizer().EncodeSegments(prompt->segments());
  if (!tokens.ok()) return TextFault("messages", tokens.status());
  return tokens;
}

absl::Status GeneratorImpl::CheckText(const char* param, size_t num_bytes) const {
  if (num_bytes <= max_text_bytes_) return absl::OkStatus();
  return ParamError(param,
                    absl::StrCat("This model's maximum context length is ", engine_.scheduler_config().max_model_tokens,
                                 " tokens. However, the ", param, " came to ", num_bytes, " bytes, and at most ",
                                 max_text_bytes_, " can fit. Please reduce it."),
                    "context_length_exceeded");
}

absl::Status GeneratorImpl::Check(const Job& job, size_t num_prompts) const {
  const GenerationParams& params = job.params;
  const int32_t vocab = engine_.model().vocab_tokens;
  const int64_t num_each = std::max(params.num_choices, params.best_of);
  if (params.best_of != 0 && params.best_of < params.num_choices) {
    return ParamError("best_of",
                      absl::StrCat("best_of (", params.best_of, ") is less than n (", params.num_choices, ")"));
  }
  if (num_each * static_cast<int64_t>(num_prompts) > options_.max_choices) {
    return ParamError(num_each <= 1        ? job.prompt_param
                      : params.best_of > 0 ? "best_of"
                                           : "n",
                      absl::StrCat("at most ", options_.max_choices, " choices in one request"));
  }
  if (params.num_logprobs > options_.max_logprobs) {
    return ParamError(params.logprobs_param,
                      absl::StrCat("at most ", options_.max_logprobs, " log-probabilities per token"));
  }
  if (params.num_prompt_logprobs > options_.max_logprobs) {
    return ParamError("prompt_logprobs",
                      absl::StrCat("at most ", options_.max_logprobs, " log-probabilities per token"));
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab) {
      return ParamError("logit_bias", absl::StrCat("token id ", token, " is not in the vocabulary of ", vocab));
    }
  }
  for (const int32_t token : params.stop_token_ids) {
    if (token < 0 || token >= vocab) {
      return ParamError("stop_token_ids", absl::StrCat("token id ", token, " is not in the vocabulary of ", vocab));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> GeneratorImpl::MaxNewTokens(const Job& job, const std::vector<int32_t>& prompt) const {
  const int64_t limit = engine_.scheduler_config().max_model_tokens;
  const int64_t num_prompt = static_cast<int64_t>(prompt.size());
  const int64_t wanted = job.kind == Request::Kind::kEmbed ? 0 : job.params.max_tokens.value_or(0);
  if (num_prompt + wanted > limit || (job.kind != Request::Kind::kEmbed && num_prompt >= limit)) {
    std::string message = absl::StrCat("This model's maximum context length is ", limit, " tokens. However, ");
    if (job.params.max_tokens && job.kind != Request::Kind::kEmbed) {
      absl::StrAppend(&message, "you requested ", num_prompt + wanted, " tokens (", num_prompt, " in the ",
                      job.prompt_param, ", ", wanted, " in the completion). Please reduce one of them.");
    } else {
      absl::StrAppend(&message, "the ", job.prompt_param, " came to ", num_prompt, " tokens. Please reduce it.");
    }
    return ParamError(job.prompt_param, message, "context_length_exceeded");
  }
  if (job.kind == Request::Kind::kEmbed) return 1;
  if (job.params.max_tokens) return std::max(1, *job.params.max_tokens);
  if (job.caller.quota == nullptr) return static_cast<int32_t>(limit - num_prompt);
  // What a minute allows bounds an answer of open length, or it could never be reserved.
  const int64_t num_each = std::max({1, job.params.num_choices, job.params.best_of});
  const int64_t allowed = (job.caller.quota->max_tokens() - num_prompt) / num_each;
  return static_cast<int32_t>(std::clamp(allowed, int64_t{1}, limit - num_prompt));
}

SamplingParams GeneratorImpl::MakeSampling(const GenerationParams& params) const {
  const ModelInfo& model = engine_.model();
  SamplingParams sampling;
  sampling.temperature = params.temperature.value_or(model.default_temperature.value_or(1.0f));
  sampling.top_k = std::max(0, params.top_k.value_or(model.default_top_k.value_or(0)));
  sampling.top_p = params.top_p.value_or(model.default_top_p.value_or(1.0f));
  sampling.min_p = params.min_p.value_or(model.default_min_p.value_or(0.0f));
  sampling.repetition_penalty = params.repetition_penalty.value_or(model.default_repetition_penalty.value_or(1.0f));
  sampling.presence_penalty = params.presence_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  sampling.seed = params.seed ? *params.seed : RandomSeed();
  sampling.logit_bias = params.logit_bias;
  sampling.num_top_logprobs = params.num_logprobs;
  sampling.num_prompt_logprobs = params.num_prompt_logprobs;
  return sampling;
}

absl::StatusOr<Request> GeneratorImpl::MakeRequest(const Job& job, const std::vector<int32_t>& prompt) const {
  if (prompt.empty()) return ParamError(job.prompt_param, "the prompt has no tokens");
  auto max_new_tokens = MaxNewTokens(job, prompt);
  if (!max_new_tokens.ok()) return max_new_tokens.status();
  const GenerationParams& params = job.params;
  if (params.min_tokens > *max_new_tokens) {
    return ParamError("min_tokens", absl::StrCat("min_tokens (", params.min_tokens, ") is more than max_tokens (",
                                                 *max_new_tokens, ")"));
  }
  Request request;
  request.tenant = job.caller.tenant;
  request.priority = params.priority;
  request.deadline = job.caller.deadline;
  request.prompt_tokens = prompt;
  request.sampling = MakeSampling(params);
  request.max_new_tokens = *max_new_tokens;
  // A grammar says where the answer is over; going on behind it is impossible.
  request.min_new_tokens = params.grammar == nullptr ? params.min_tokens : 0;
  request.stop_token_ids = params.stop_token_ids;
  request.kind = job.kind;
  request.session = job.session;
  request.grammar = params.grammar;
  const bool ignores_eos = params.ignores_eos && params.grammar == nullptr;
  if (!ignores_eos) {
    const std::vector<int32_t>& eos = engine_.model().eos_token_ids;
    request.stop_token_ids.insert(request.stop_token_ids.end(), eos.begin(), eos.end());
  }
  // The scheduler ignores every stop token of such a request; the client's own still count, so they alone are given.
  request.ignore_eos = ignores_eos && request.stop_token_ids.empty();
  return request;
}

// A prompt that is too long ends it there: those after it are not tokenised.
absl::StatusOr<std::unique_ptr<Generation>> GeneratorImpl::EncodeAndStart(Job job, const std::vector<Prompt>& prompts,
                                                                          bool adds_special_tokens) {
  if (absl::Status status = Check(job, prompts.size()); !status.ok()) return status;
  if (absl::Status status = CheckQuota(job); !status.ok()) return status;
  for (const Prompt& prompt : prompts) {
    auto tokens = Encode(prompt, adds_special_tokens);
    if (!tokens.ok()) return WithErrorParam(tokens.status(), job.prompt_param);
    if (auto limit = MaxNewTokens(job, *tokens); !limit.ok()) return limit.status();
    job.prompts.push_back(*std::move(tokens));
  }
  return Start(std::move(job));
}

// Each prompt once, and the longest answer of each choice.
absl::StatusOr<Lease> GeneratorImpl::Reserve(const Job& job, const std::vector<Request>& requests) {
  if (job.caller.quota == nullptr) return Lease();
  int64_t num_tokens = 0;
  for (const std::vector<int32_t>& prompt : job.prompts) num_tokens += static_cast<int64_t>(prompt.size());
  for (const Request& request : requests) {
    if (request.kind == Request::Kind::kGenerate) num_tokens += request.max_new_tokens;
  }
  return job.caller.quota->Reserve(num_tokens);
}

// REQUIRES: Check has passed.
absl::StatusOr<std::unique_ptr<Generation>> GeneratorImpl::Start(Job job) {
  auto matcher =
      StopMatcher::Create(job.params.stop, job.params.includes_stop_text ? IncludeStop::kYes : IncludeStop::kNo);
  if (!matcher.ok()) return WithErrorParam(matcher.status(), "stop");
  std::vector<Request> requests;
  const int32_t num_each = std::max({1, job.params.num_choices, job.params.best_of});
  std::vector<int32_t> num_prompt_tokens;
  int32_t max_new_tokens = 0;
  for (const std::vector<int32_t>& prompt : job.prompts) {
    auto request = MakeRequest(job, prompt);
    if (!request.ok()) return request.status();
    num_prompt_tokens.push_back(static_cast<int32_t>(prompt.size()));
    max_new_tokens = std::max(max_new_tokens, request->max_new_tokens);
    const uint64_t seed = request->sampling.seed;
    for (int32_t i = 0; i < num_each; ++i) {
      requests.push_back(*request);
      requests.back().sampling.seed = seed + static_cast<uint64_t>(i);
    }
  }
  auto lease = Reserve(job, requests);
  if (!lease.ok()) return lease.status();
  const uint64_t key = next_key_++;
  const std::shared_ptr<DeliveryThread>& thread = threads_[key % threads_.size()];
  auto state = std::make_shared<GenerationState>(GenerationStateArgs{.engine = engine_,
                                                                     .observer = observer_,
                                                                     .caller = job.caller,
                                                                     .params = job.params,
                                                                     .num_prompt_tokens = std::move(num_prompt_tokens),
                                                                     .num_choices_per_prompt = num_each,
                                                                     .max_new_tokens = max_new_tokens,
                                                                     .hides_output = job.params.max_tokens == 0,
                                                                     .text_start = job.text_start,
                                                                     .matcher = *std::move(matcher),
                                                                     .sink = std::move(job.sink),
                                                                     .lease = *std::move(lease)});
  thread->Register(key, state);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto choice = static_cast<int32_t>(i);
    auto handle = engine_.Submit(std::move(requests[i]), [thread, key, choice](TokenEvent&& event) {
      thread->Post(key, choice, std::move(event));
    });
    if (!handle.ok()) {
      state->Discard();
      thread->Unregister(key);
      return handle.status();
    }
    state->AddHandle(*std::move(handle));
  }
  return std::make_unique<GenerationImpl>(std::move(state), thread, key, std::move(job.prompts), num_each);
}

}  // namespace

std::unique_ptr<Generator> Generator::Create(Engine& engine, RequestObserver* observer, const Options& options) {
  return std::make_unique<GeneratorImpl>(engine, observer, options);
}

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "abort";
    case FinishReason::kDeadline:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

std::string_view CacheOutcomeName(CacheOutcome outcome) {
  switch (outcome) {
    case CacheOutcome::kNone:
      return "";
    case CacheOutcome::kHit:
      return "hit";
    case CacheOutcome::kMiss:
      return "miss";
    case CacheOutcome::kCoalesced:
      return "coalesced";
    case CacheOutcome::kBypass:
      return "bypass";
  }
  return "";
}

}  // namespace millrace
