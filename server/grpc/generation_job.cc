// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/generation_job.h"

#include <utility>

#include "server/api/answer.h"

namespace millrace {

void GenerationJob::Start(const Caller& caller, StartFunction start) {
  auto self = shared_from_this();
  const bool is_posted = backend_.workers.Post([self, caller, start = std::move(start)] { self->Run(caller, start); });
  if (!is_posted) Refuse(caller, absl::ResourceExhaustedError("too many requests wait to be read"));
}

void GenerationJob::Refuse(const Caller& caller, const absl::Status& status) {
  NoteRefusal(backend_, caller, status);
  End(status);
}

void GenerationJob::Run(const Caller& caller, const StartFunction& start) {
  {
    absl::MutexLock lock(&mu_);
    if (is_over_) return;  // cancelled before it began
  }
  auto generator = backend_.state.Admit();
  if (!generator.ok()) return Refuse(caller, generator.status());
  auto self = shared_from_this();
  auto generation = start(**generator, caller, [self](TextDelta&& delta) { return self->OnDelta(std::move(delta)); });
  if (!generation.ok()) return Refuse(caller, generation.status());
  bool was_last = false;
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    if (is_over_) return;  // cancelled meanwhile: the generation is dropped here, after the lock
    totals_.num_prompt_tokens = (*generation)->num_prompt_tokens();
    totals_.cache = (*generation)->cache();
    generation_ = *std::move(generation);
    has_started_ = true;
    was_last = num_open_ == 0;
    status = status_;
  }
  if (was_last) End(status);
}

bool GenerationJob::OnDelta(TextDelta&& delta) {
  const FinishReason finish = delta.finish;
  std::function<bool(TextDelta&&)> on_delta;
  {
    absl::MutexLock lock(&mu_);
    if (is_over_) return false;
    totals_.num_completion_tokens += static_cast<int32_t>(delta.tokens.size());
    if (finish != FinishReason::kNone) totals_.num_cached_tokens += delta.num_cached_tokens;
    on_delta = listener_.on_delta;
  }
  if (!on_delta(std::move(delta))) {
    Cancel();
    return false;
  }
  if (finish == FinishReason::kNone) return true;
  bool is_last = false;
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    if (status_.ok()) status_ = FinishStatus(finish);
    // The prompt's length is not known before the start has returned: then it tells the end.
    is_last = --num_open_ == 0 && has_started_;
    status = status_;
  }
  if (is_last) End(status);
  return true;
}

void GenerationJob::End(const absl::Status& status) {
  std::unique_ptr<Generation> generation;
  Listener listener;
  GenerationTotals totals;
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(is_over_, true)) return;
    generation = std::move(generation_);
    listener = std::exchange(listener_, {});
    totals = totals_;
  }
  generation.reset();  // before the client hears of the end: then the server may go, and the generator with it
  listener.on_end(status, totals);
}

void GenerationJob::Cancel() {
  std::unique_ptr<Generation> generation;
  Listener listener;
  absl::MutexLock lock(&mu_);
  if (std::exchange(is_over_, true)) return;
  generation = std::move(generation_);
  listener = std::exchange(listener_, {});
}

}  // namespace millrace
