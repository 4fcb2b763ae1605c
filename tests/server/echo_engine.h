// SPDX-License-Identifier: Apache-2.0
#pragma once
// An engine without a model: it answers a prompt with the prompt's own tokens, over and over. Tokens are bytes, the
// scheduler and the step loop are the real ones. Thread-safe; a test can hold it still between two steps.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "engine/load/model_info.h"
#include "engine/run/step_loop.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/support/computed_step.h"

namespace millrace {

class EchoEngine final : public Engine {
 public:
  static SchedulerConfig DefaultConfig() {
    SchedulerConfig config;
    config.num_pages = 256;
    config.max_model_tokens = 2048;
    return config;
  }

  explicit EchoEngine(const SchedulerConfig& config = DefaultConfig()) : config_(config) {
    VocabSpec spec{.model = "gpt2", .pre = "gpt-2"};
    for (int byte = 0; byte < 256; ++byte) {
      spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
    }
    tokenizer_ = Tokenizer::FromVocab(spec).value();
    template_ = ChatTemplate::Parse(
                    "{% if tools %}[{{ tools[0].function.name }}]{% endif %}"
                    "{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}",
                    "", "")
                    .value();
    info_.name = "echo";
    info_.architecture_name = "EchoForCausalLM";
    info_.vocab_tokens = 256;
    info_.num_parameters = 1;
    loop_ = std::make_unique<StepLoop>(
        Scheduler::Create(config_).value(), config_,
        testing::ComputedAtLaunch([this](const StepPlan& plan, StepResult* result) { return RunStep(plan, result); }),
        nullptr);
    loop_->Start();
  }
  ~EchoEngine() override { SetPaused(false); }

  // While paused a step does not end. SetFailing: every further step breaks.
  void SetPaused(bool is_paused) {
    absl::MutexLock lock(&mu_);
    is_paused_ = is_paused;
  }
  void SetFailing(bool is_failing) {
    absl::MutexLock lock(&mu_);
    is_failing_ = is_failing;
  }
  // Waits until nothing runs or waits, at most 20 s.
  bool WaitIdle() const {
    const absl::Time limit = absl::Now() + absl::Seconds(20);
    while (absl::Now() < limit) {
      const SchedulerStats stats = loop_->stats();
      if (stats.num_running == 0 && stats.num_waiting == 0 && stats.num_pages_used == 0) return true;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return false;
  }

  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink) override {
    return loop_->Submit(std::move(request), std::move(sink));
  }
  void Finish(RequestId id) override { loop_->Finish(id); }
  const ModelInfo& model() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const ChatTemplate* chat_template() const override { return template_.get(); }
  SchedulerStats stats() const override { return loop_->stats(); }
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const override { return loop_->waiting_by_tenant(); }
  const SchedulerConfig& scheduler_config() const override { return config_; }
  const std::string& memory_report() const override { return memory_report_; }
  EngineHealth CheckHealth(absl::Duration limit) override { return loop_->CheckHealth(limit); }
  absl::Time last_step_end() const override { return loop_->last_step_end(); }

 private:
  absl::Status RunStep(const StepPlan& plan, StepResult* result) {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(+[](bool* is_paused) { return !*is_paused; }, &is_paused_));
      if (is_failing_) return absl::InternalError("told to fail");
    }
    result->step = plan.step;
    result->sequences.clear();
    for (const PlannedSequence& sequence : plan.sequences) result->sequences.push_back(Answer(sequence));
    return absl::OkStatus();
  }

  static SequenceResult Answer(const PlannedSequence& sequence) {
    SequenceResult result;
    const SamplingParams& sampling = sequence.request->sampling;
    const int32_t end = sequence.first_position + sequence.num_tokens;
    if (sampling.num_prompt_logprobs >= 0) {
      for (int32_t p = sequence.first_position; p < std::min(end, sequence.num_prompt_tokens - 1); ++p) {
        result.prompt_logprobs.push_back({.token = sequence.tokens[p + 1], .logprob = -1.0f, .rank = 1});
      }
    }
    if (!sequence.samples) return result;
    if (sequence.request->kind == Request::Kind::kEmbed) {
      result.embedding = {static_cast<float>(sequence.num_prompt_tokens), static_cast<float>(sequence.tokens[end - 1])};
      return result;
    }
    result.sampled.token = sequence.tokens[(end - sequence.num_prompt_tokens) % sequence.num_prompt_tokens];
    if (sampling.num_top_logprobs >= 0) {
      result.sampled.logprob = -0.5f;
      result.sampled.rank = 1;
      for (int32_t i = 0; i < sampling.num_top_logprobs; ++i)
        result.sampled.top.push_back({.token = i, .logprob = -1.0f});
    }
    return result;
  }

  const SchedulerConfig config_;
  const std::string memory_report_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  ModelInfo info_;
  absl::Mutex mu_;
  bool is_paused_ ABSL_GUARDED_BY(mu_) = false;
  bool is_failing_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<StepLoop> loop_;  // last: its thread uses all of the above
};

}  // namespace millrace
