// SPDX-License-Identifier: Apache-2.0
#pragma once
// The pipeline every front (HTTP, gRPC) uses: typed request -> prompt tokens -> Engine::Submit -> text deltas.
// Generator is thread-safe. Text work happens on the caller's thread before submission and on delivery threads after;
// the engine's thread only enqueues.
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/pipeline/requests.h"

namespace millrace {

// One token with its log-probability as a client sees it. `bytes` may be part of a UTF-8 character.
struct TokenText {
  int32_t token = -1;
  std::string bytes;
  float logprob = 0;
  int32_t rank = 0;
  std::vector<TokenText> top;  // best first; their own `top` is empty
};

// Why a choice ended, beyond FinishReason: the stop string or the stop token that matched.
using StopReason = std::variant<std::monostate, std::string, int32_t>;

// A piece of one choice's answer, in order. The last of a choice has a finish reason.
struct TextDelta {
  int32_t choice = 0;                      // prompt index * choices per prompt + i
  std::string text;                        // valid UTF-8; held back while it might become a stop string
  std::vector<int32_t> tokens;             // new output tokens
  std::vector<TokenText> logprobs;         // one per token, when asked for
  std::vector<TokenText> prompt_logprobs;  // from the prompt's second token on, when asked for
  std::vector<float> embedding;            // kEmbed, with the finish
  int32_t num_cached_tokens = 0;           // of the prompt, from the first delta on; 0 but for its first choice
  FinishReason finish = FinishReason::kNone;
  StopReason stop_reason;
};

// On a delivery thread, never two at once for one Generation. Must not block; false: the reader is gone, cancel.
using DeltaSink = std::function<bool(TextDelta&&)>;

// What the response cache had to do with a request.
enum class CacheOutcome : uint8_t {
  kNone,       // there is no cache
  kHit,        // replayed
  kMiss,       // computed, and kept if it ends well
  kCoalesced,  // shares the computation of the same request, begun by another
  kBypass,     // not repeatable, or the client does not want it
};
struct CacheReport {
  CacheOutcome outcome = CacheOutcome::kNone;
  absl::Duration age;  // of a hit
};

// What became of a whole request, for logs and metrics.
struct RequestRecord {
  Caller caller;
  int32_t num_choices = 0;
  int32_t num_prompt_tokens = 0;  // each prompt once, however many choices share it; so the next
  int32_t num_cached_tokens = 0;
  int32_t num_generated_tokens = 0;  // of all choices
  int32_t max_generated_tokens = 0;  // of the longest choice
  int32_t max_new_tokens = 0;
  bool is_corrupted = false;                  // its own results were unusable (not-a-number), while the engine went on
  FinishReason finish = FinishReason::kNone;  // of the choice that ended last; kCancelled when the client left
  CacheOutcome cache = CacheOutcome::kNone;   // kHit, kCoalesced: nothing was computed for it
  absl::Time submitted, scheduled, first_token, last_token, finished;  // InfinitePast when it never happened
};

// Learns what happens to requests; called on delivery threads, must not block.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  // A prompt's tokens are all computed or found, once for all its choices.
  virtual void OnPrefilled(const Caller& caller, int32_t num_prompt_tokens, int32_t num_cached_tokens) = 0;
  virtual void OnGenerated(const Caller& caller, int32_t num_tokens) = 0;
  virtual void OnFirstToken(const Caller& caller, absl::Duration since_received) = 0;
  virtual void OnInterTokenLatency(absl::Duration latency) = 0;
  virtual void OnFinished(const RequestRecord& record) = 0;
  // It will not run: a gRPC call, or a turn of an agent run; on the thread that refused it. HTTP tells of its own.
  virtual void OnRejected(const Caller& caller, const absl::Status& status) = 0;
};

// A running request: dropping it cancels what has not finished.
class Generation {
 public:
  virtual ~Generation() = default;
  virtual const std::vector<std::vector<int32_t>>& prompts() const = 0;
  virtual int32_t num_choices_per_prompt() const = 0;
  virtual int32_t num_prompt_tokens() const = 0;  // of all prompts together

  const CacheReport& cache() const { return cache_; }
  void set_cache(const CacheReport& report) { cache_ = report; }  // before others see it

 private:
  CacheReport cache_;
};

class Generator {
 public:
  struct Options {
    int num_delivery_threads = 1;
    int32_t max_logprobs = 20;
    int32_t max_choices = 128;  // prompts * best_of of one request
  };
  // `engine` and `observer` (may be null) outlive the generator; every Generation is dropped before it.
  static std::unique_ptr<Generator> Create(Engine& engine, RequestObserver* observer, const Options& options);
  virtual ~Generator() = default;

  // Text work without running anything. InvalidArgument names the field (see ErrorParam).
  virtual absl::StatusOr<std::vector<int32_t>> Encode(const Prompt& prompt, bool adds_special_tokens) const = 0;
  virtual absl::StatusOr<std::vector<int32_t>> RenderChat(const ChatRequest& request) const = 0;

  // Checks, tokenises, submits. InvalidArgument: the client's fault; ResourceExhausted: the queue is full, or the
  // caller's quota used up;
  // Unavailable: the engine is stopping or stuck. On success `sink` gets the deltas of every choice; it may be called
  // before this returns.
  virtual absl::StatusOr<std::unique_ptr<Generation>> Complete(const Caller& caller, const CompletionRequest& request,
                                                               DeltaSink sink) = 0;
  virtual absl::StatusOr<std::unique_ptr<Generation>> Chat(const Caller& caller, const ChatRequest& request,
                                                           DeltaSink sink) = 0;
  // One delta per input, with its embedding (last hidden state of the last token, of unit length).
  virtual absl::StatusOr<std::unique_ptr<Generation>> Embed(const Caller& caller, const EmbeddingRequest& request,
                                                            DeltaSink sink) = 0;

  virtual Engine& engine() const = 0;
};

// "stop", "length", "abort", "error": OpenAI's names (null for kNone is the writer's business).
std::string_view FinishReasonName(FinishReason reason);
// "hit", "miss", "coalesced", "bypass"; empty for kNone.
std::string_view CacheOutcomeName(CacheOutcome outcome);

}  // namespace millrace
