// SPDX-License-Identifier: Apache-2.0
#pragma once
// One generation with any number of readers: each gets every delta from the first on, whenever it came; the generation
// lives while any reader does. Its failure is every reader's failure. Thread-safe.
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/pipeline/generation.h"

namespace millrace {

// What a reader's Generation says of itself.
struct PromptTokens {
  std::vector<std::vector<int32_t>> prompts;
  int32_t num_choices_per_prompt = 1;
};

// A generation that nobody computes for this reader. `on_drop` (may be null) is called when the reader drops it.
std::unique_ptr<Generation> MakeDetachedGeneration(PromptTokens prompt, std::function<void()> on_drop);

class SharedGeneration : public std::enable_shared_from_this<SharedGeneration> {
 public:
  // Called without a lock held, each at most once.
  struct Hooks {
    // Every choice has ended well, and no reader has seen the end: the whole answer. Not if it is too long to keep.
    std::function<void(const std::vector<TextDelta>&)> on_whole;
    // Nobody can join any more.
    std::function<void()> on_closed;
  };
  using StartFunction = std::function<absl::StatusOr<std::unique_ptr<Generation>>(DeltaSink)>;

  SharedGeneration(int32_t num_choices, Hooks hooks) : hooks_(std::move(hooks)), num_open_(num_choices) {}

  // Begins it: once, by whoever made it and has joined.
  absl::Status Start(const StartFunction& start);
  // Blocks until Start has returned: as long as submitting takes. Its status.
  absl::Status AwaitStart() const;
  // What came so far is given to `sink` before this returns, and later deltas as they come. Null: it is closed, and the
  // sink was not touched.
  std::unique_ptr<Generation> Join(PromptTokens prompt, const DeltaSink& sink);

 private:
  struct Reader {
    DeltaSink sink;
    std::deque<TextDelta> pending;
    bool is_busy = false;  // a thread gives it deltas
    bool is_gone = false;
  };

  bool OnDelta(TextDelta&& delta);
  // Keeps the delta for those who join later. True: that has become impossible.
  bool Keep(const TextDelta& delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Distribute(TextDelta&& delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Pump(const std::shared_ptr<Reader>& reader);
  void Leave(const std::shared_ptr<Reader>& reader);

  const Hooks hooks_;
  mutable absl::Mutex mu_;
  std::optional<absl::Status> start_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Reader>> readers_ ABSL_GUARDED_BY(mu_);
  std::vector<TextDelta> kept_ ABSL_GUARDED_BY(mu_);
  size_t num_kept_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int32_t num_open_ ABSL_GUARDED_BY(mu_);
  bool is_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool is_abandoned_ ABSL_GUARDED_BY(mu_) = false;  // every reader has left
};

}  // namespace millrace
