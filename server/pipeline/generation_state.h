// SPDX-License-Identifier: Apache-2.0
#pragma once
// The running half of one generation: its choices, their text so far, their handles. Internal to server/pipeline.
// OnEvent, OnCancelled and is_over belong to the delivery thread; the rest is thread-safe.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/text/detokenizer.h"
#include "engine/text/stop_strings.h"
#include "engine/text/tokenizer.h"
#include "server/pipeline/delivery.h"
#include "server/pipeline/generation.h"

namespace millrace {

struct GenerationStateArgs {
  Engine& engine;
  RequestObserver* observer = nullptr;
  Caller caller;
  GenerationParams params;
  std::vector<int32_t> num_prompt_tokens;  // by prompt
  int32_t num_choices_per_prompt = 1;
  int32_t max_new_tokens = 0;
  bool hides_output = false;  // max_tokens 0: only the prompt's log-probabilities were asked for
  StreamStart text_start = StreamStart::kText;
  StopMatcher matcher;  // copied for each choice
  DeltaSink sink;
  Lease lease;  // of the caller's quota; settled with the last choice
};

class GenerationState : public EventReceiver {
 public:
  explicit GenerationState(GenerationStateArgs args);

  // Keeps the handle of a submitted choice; drops it at once if the generation was cancelled meanwhile.
  void AddHandle(RequestHandle handle);
  // Cancels every choice that still runs; no delta follows, except one that may be under way.
  void Cancel();
  // The submission failed half-way: cancels, and nothing is reported.
  void Discard();

  void OnEvent(int32_t choice, TokenEvent&& event, absl::Time when) override;
  void OnCancelled(absl::Time when) override;
  bool is_over() const override { return num_open_ == 0; }

 private:
  struct Choice {
    std::optional<Detokenizer> detokenizer;
    std::optional<StopMatcher> matcher;
    int32_t num_tokens = 0;
    bool is_prefilled = false;
    absl::Time last_token = absl::InfinitePast();
    bool is_over = false;
  };

  // A prompt counts once, with the first of its choices: the others share its pages.
  bool counts_prompt(int32_t choice) const { return choice % num_choices_per_prompt_ == 0; }
  void NoteTimes(int32_t index, const TokenEvent& event, absl::Time when);
  void NoteTokens(int32_t index, const TokenEvent& event, int32_t num_new_tokens);
  void AppendText(Choice& choice, const TokenEvent& event, TextDelta& delta);
  void FinishText(Choice& choice, TextDelta& delta);
  bool PushText(Choice& choice, std::string_view text, TextDelta& delta);
  TokenText Describe(const TokenResult& result) const;
  TokenText DescribeTop(const TopLogprob& top) const;
  void Close(Choice& choice, FinishReason finish, absl::Time when);
  bool has_listener();

  Engine& engine_;
  const Tokenizer& tokenizer_;
  RequestObserver* const observer_;
  const GenerationParams params_;
  const std::vector<int32_t> num_prompt_tokens_;  // by prompt
  const int32_t num_choices_per_prompt_;
  const bool hides_output_;
  const DeltaSink sink_;

  // Delivery thread only.
  std::vector<Choice> choices_;
  int32_t num_open_ = 0;
  int64_t num_prefilled_tokens_ = 0;
  RequestRecord record_;
  Lease lease_;

  absl::Mutex mu_;
  std::vector<RequestHandle> handles_ ABSL_GUARDED_BY(mu_);
  bool is_cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool is_discarded_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace
