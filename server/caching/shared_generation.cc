// SPDX-License-Identifier: Apache-2.0
#include "server/caching/shared_generation.h"

#include <algorithm>
#include <utility>

#include "server/caching/stored_answer.h"

namespace millrace {
namespace {

class DetachedGeneration : public Generation {
 public:
  DetachedGeneration(PromptTokens prompt, std::function<void()> on_drop)
      : prompt_(std::move(prompt)), on_drop_(std::move(on_drop)) {}
  ~DetachedGeneration() override {
    if (on_drop_) on_drop_();
  }
  const std::vector<std::vector<int32_t>>& prompts() const override { return prompt_.prompts; }
  int32_t num_choices_per_prompt() const override { return prompt_.num_choices_per_prompt; }
  int32_t num_prompt_tokens() const override {
    size_t num_tokens = 0;
    for (const auto& prompt : prompt_.prompts) num_tokens += prompt.size();
    return static_cast<int32_t>(num_tokens);
  }

 private:
  const PromptTokens prompt_;
  const std::function<void()> on_drop_;
};

bool EndedWell(FinishReason finish) {
  return finish == FinishReason::kNone || finish == FinishReason::kStop || finish == FinishReason::kLength;
}

}  // namespace

std::unique_ptr<Generation> MakeDetachedGeneration(PromptTokens prompt, std::function<void()> on_drop) {
  return std::make_unique<DetachedGeneration>(std::move(prompt), std::move(on_drop));
}

absl::Status SharedGeneration::Start(const StartFunction& start) {
  auto generation = start([self = shared_from_this()](TextDelta&& delta) { return self->OnDelta(std::move(delta)); });
  bool closes = false;
  if (!generation.ok()) {
    absl::MutexLock lock(&mu_);
    closes = !std::exchange(is_closed_, true);
  }
  if (closes) hooks_.on_closed();      // before those who wait learn of it: they try for themselves
  std::unique_ptr<Generation> unused;  // dropped after the lock is gone
  absl::MutexLock lock(&mu_);
  start_ = generation.status();
  if (!generation.ok()) return generation.status();
  (num_open_ == 0 || is_abandoned_ ? unused : generation_) = *std::move(generation);
  return absl::OkStatus();
}

absl::Status SharedGeneration::AwaitStart() const {
  const auto has_started = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return start_.has_value(); };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&has_started));
  return *start_;
}

std::unique_ptr<Generation> SharedGeneration::Join(PromptTokens prompt, const DeltaSink& sink) {
  auto reader = std::make_shared<Reader>();
  {
    absl::MutexLock lock(&mu_);
    if (is_closed_) return nullptr;
    reader->sink = sink;
    reader->pending.assign(kept_.begin(), kept_.end());
    readers_.push_back(reader);
  }
  Pump(reader);
  return MakeDetachedGeneration(std::move(prompt), [self = shared_from_this(), reader] { self->Leave(reader); });
}

bool SharedGeneration::OnDelta(TextDelta&& delta) {
  bool closes = false, is_last = false;
  std::vector<TextDelta> whole;
  std::vector<std::shared_ptr<Reader>> readers;
  std::unique_ptr<Generation> finished;  // dropped at the end, without the lock
  {
    absl::MutexLock lock(&mu_);
    if (is_abandoned_) return false;
    if (delta.finish != FinishReason::kNone) --num_open_;
    is_last = num_open_ == 0;
    closes = Keep(delta);
    if (is_last && !is_closed_) {
      closes = true;
      whole.swap(kept_);
    }
    if (closes) is_closed_ = true;
    if (!is_last) Distribute(std::move(delta));
    readers = readers_;
  }
  if (!whole.empty()) hooks_.on_whole(whole);
  if (closes) hooks_.on_closed();
  if (is_last) {
    // Whoever asks again after the end finds the answer kept.
    absl::MutexLock lock(&mu_);
    Distribute(std::move(delta));
    readers = readers_;
    finished = std::move(generation_);
  }
  for (const std::shared_ptr<Reader>& reader : readers) Pump(reader);
  absl::MutexLock lock(&mu_);
  return !is_abandoned_;
}

bool SharedGeneration::Keep(const TextDelta& delta) {
  if (is_closed_) return false;
  num_kept_bytes_ += StoredBytes(delta);
  if (!EndedWell(delta.finish) || num_kept_bytes_ > kMaxStoredBytes || kept_.size() == kMaxStoredDeltas) {
    is_closed_ = true;
    kept_ = {};
    return true;
  }
  kept_.push_back(delta);
  return false;
}

void SharedGeneration::Distribute(TextDelta&& delta) {
  for (size_t i = 1; i < readers_.size(); ++i) readers_[i]->pending.push_back(delta);
  if (!readers_.empty()) readers_.front()->pending.push_back(std::move(delta));
}

void SharedGeneration::Pump(const std::shared_ptr<Reader>& reader) {
  DeltaSink dropped;  // dies without the lock
  while (true) {
    TextDelta delta;
    {
      absl::MutexLock lock(&mu_);
      if (reader->is_busy) return;  // that thread takes what we brought, too
      reader->is_busy = !reader->is_gone && !reader->pending.empty();
      if (!reader->is_busy) {
        if (reader->is_gone) dropped = std::exchange(reader->sink, nullptr);
        return;
      }
      delta = std::move(reader->pending.front());
      reader->pending.pop_front();
    }
    const bool wants_more = reader->sink(std::move(delta));
    if (!wants_more) Leave(reader);
    absl::MutexLock lock(&mu_);
    reader->is_busy = false;
  }
}

void SharedGeneration::Leave(const std::shared_ptr<Reader>& reader) {
  DeltaSink dropped;
  std::unique_ptr<Generation> generation;
  bool closes = false;
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(reader->is_gone, true)) return;
    readers_.erase(std::remove(readers_.begin(), readers_.end(), reader), readers_.end());
    if (!reader->is_busy) dropped = std::exchange(reader->sink, nullptr);
    if (readers_.empty() && num_open_ > 0) {
      is_abandoned_ = true;
      closes = !std::exchange(is_closed_, true);
      generation = std::move(generation_);
    }
  }
  if (closes) hooks_.on_closed();
}

}  // namespace millrace
