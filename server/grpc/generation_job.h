// SPDX-License-Identifier: Apache-2.0
#pragma once
// One Generation run for a call: started on a worker thread, its deltas passed on, its end told exactly once, dropped
// when the call ends, in whatever order these happen. Thread-safe; shared between the call and the delta sink. The
// generator must outlive the server: a job holds its generation, not the generator.
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/grpc/grpc_backend.h"
#include "server/pipeline/generation.h"

namespace millrace {

struct GenerationTotals {
  int32_t num_prompt_tokens = 0;
  int32_t num_completion_tokens = 0;
  int32_t num_cached_tokens = 0;
  CacheReport cache;
};

class GenerationJob : public std::enable_shared_from_this<GenerationJob> {
 public:
  using StartFunction =
      std::function<absl::StatusOr<std::unique_ptr<Generation>>(Generator&, const Caller&, DeltaSink)>;
  // Both are called without a lock held. No delta comes after the end.
  struct Listener {
    std::function<bool(TextDelta&&)> on_delta;  // delivery thread; false: no one listens, the job is cancelled
    std::function<void(const absl::Status&, const GenerationTotals&)> on_end;  // once, unless cancelled
  };

  // `num_choices`: how many last deltas to expect. `ticket` is held as long as the job.
  GenerationJob(const GrpcBackend& backend, int32_t num_choices, CallTicket ticket, Listener listener)
      : backend_(backend), ticket_(std::move(ticket)), num_open_(num_choices), listener_(std::move(listener)) {}

  // Posts `start` to a worker. A full queue of workers ends the job with ResourceExhausted. The observer hears of every
  // refusal.
  void Start(const Caller& caller, StartFunction start);
  // Drops the generation; the listener hears nothing more (a call of it may be under way).
  void Cancel();

 private:
  void Run(const Caller& caller, const StartFunction& start);
  void Refuse(const Caller& caller, const absl::Status& status);
  bool OnDelta(TextDelta&& delta);
  void End(const absl::Status& status);

  const GrpcBackend& backend_;
  const CallTicket ticket_;
  absl::Mutex mu_;
  int32_t num_open_ ABSL_GUARDED_BY(mu_);
  bool has_started_ ABSL_GUARDED_BY(mu_) = false;
  bool is_over_ ABSL_GUARDED_BY(mu_) = false;  // ended or cancelled
  absl::Status status_ ABSL_GUARDED_BY(mu_);   // of the first choice that did not end well
  GenerationTotals totals_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mu_);
  Listener listener_ ABSL_GUARDED_BY(mu_);  // emptied at the end: it may hold the call, which holds the job
};

}  // namespace millrace
