// SPDX-License-Identifier: Apache-2.0
#pragma once
// One answer on its way out: collects or streams the deltas of a generation into a ResponseWriter, and cancels the
// generation when the client leaves. Thread-safe; shared by the writer's callback and the generation's sink.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/api/answer_format.h"
#include "server/http/http_server.h"
#include "server/pipeline/generation.h"
#include "server/pipeline/requests.h"

namespace millrace {

struct AnswerArgs {
  std::shared_ptr<ResponseWriter> writer;
  StreamChoices stream;
  absl::Duration keep_alive_interval = absl::Seconds(15);
  int32_t num_choices_to_return = 0;  // per prompt; fewer than generated for best_of. 0: all
};

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  explicit Answer(AnswerArgs args);

  // The generation's sink. Deltas before Begin are kept.
  bool OnDelta(TextDelta&& delta);
  // The generation runs: takes it over, and starts the stream. `format` knows the prompts by now.
  void Begin(std::unique_ptr<Generation> generation, std::unique_ptr<AnswerFormat> format);
  // It could not be started.
  void Refuse(const absl::Status& status);

 private:
  // Of a stream, what is to be written comes behind `out`.
  void Process(TextDelta&& delta, std::string& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Stream(const TextDelta& delta, bool is_first, std::string& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteStream(const std::string& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendWhole() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void KeepBest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Usage CountUsage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool is_stream() const { return args_.stream.mode == AnswerMode::kStream; }
  void OnClientGone();

  const AnswerArgs args_;
  mutable absl::Mutex mu_;
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<AnswerFormat> format_ ABSL_GUARDED_BY(mu_);
  std::vector<TextDelta> early_ ABSL_GUARDED_BY(mu_);
  std::vector<CollectedChoice> choices_ ABSL_GUARDED_BY(mu_);
  std::vector<int32_t> cached_tokens_ ABSL_GUARDED_BY(mu_);  // by choice
  std::vector<bool> has_begun_ ABSL_GUARDED_BY(mu_);         // by choice
  CacheReport cache_ ABSL_GUARDED_BY(mu_);
  int64_t num_prompt_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  int32_t num_choices_per_prompt_ ABSL_GUARDED_BY(mu_) = 1;
  size_t num_open_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_gone_ ABSL_GUARDED_BY(mu_) = false;
};

// Why a choice failed, as a status for the client; OK if it did not.
absl::Status FinishStatus(FinishReason finish);

}  // namespace millrace
