// SPDX-License-Identifier: Apache-2.0
#pragma once
// The engine's front: loads a model, takes requests, streams their tokens. The one header (with engine/text/ and
// engine/load/model_info.h) that other rooms need. Engine is thread-safe; a TokenStream belongs to one thread.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/plan.h"       // IWYU pragma: export
#include "scheduler/request.h"    // IWYU pragma: export
#include "scheduler/scheduler.h"  // IWYU pragma: export

namespace millrace {

class Tokenizer;
class ChatTemplate;
struct ModelInfo;

// Called on the engine thread for every event of one request, the last with a finish reason. Must not block and must
// not call the engine; hand the event to your own thread.
using TokenSink = std::function<void(TokenEvent&&)>;

// Keeps a request alive: dropping it cancels the request (a no-op once it finished). Movable.
// REQUIRES: dropped or disarmed before the engine is.
class RequestHandle {
 public:
  RequestHandle() = default;
  RequestHandle(RequestId id, std::function<void(RequestId)> cancel) : id_(id), cancel_(std::move(cancel)) {}
  RequestHandle(RequestHandle&& other) noexcept { *this = std::move(other); }
  RequestHandle& operator=(RequestHandle&& other) noexcept {
    Reset();
    id_ = other.id_;
    cancel_ = std::exchange(other.cancel_, nullptr);
    return *this;
  }
  ~RequestHandle() { Reset(); }
  RequestId id() const { return id_; }
  void Disarm() { cancel_ = nullptr; }  // the request lives on without it
  void Reset() {
    if (auto cancel = std::exchange(cancel_, nullptr)) cancel(id_);
  }

 private:
  RequestId id_;
  std::function<void(RequestId)> cancel_;
};

// Where a step's time went; one record per step, given to EngineOptions::on_step on the engine thread.
struct StepStats {
  uint64_t step = 0;
  int32_t num_prefill_rows = 0;
  int32_t num_decode_rows = 0;
  int32_t num_sequences = 0;
  absl::Duration plan_time, run_time, commit_time;  // run: launching it and waiting for it
  SchedulerStats scheduler;
  // Of each cancelled request whose pages were freed before this step: steps begun between Cancel() and the freeing.
  std::vector<uint64_t> disconnect_steps;
};

// In which order a step is planned, launched, waited for and learnt from. Ahead: the next one is planned and launched
// before the one that is being computed is waited for. Tokens are the same.
enum class StepOrder { kAuto, kPlain, kAhead };  // kAuto: ahead on devices that compute beside the host

struct EngineOptions {
  std::string model_dir;                // Hugging Face directory or .gguf file
  std::string device = "auto";          // auto (CUDA where there is one), cpu, cuda, cuda:N
  std::string dtype = "auto";           // auto, bfloat16, float16, float32: of dense weights
  std::string load_format = "auto";     // auto, safetensors, gguf, dummy
  std::string quantization;             // "", int8, int4 (group 128 or 32 as fits), int4-g32
  std::string kv_cache_dtype = "auto";  // auto (= bfloat16), float32 (CPU), float16, bfloat16, int8, fp8 (CUDA)
  std::string chat_template;            // path or text; empty: the model's own
  int32_t num_threads = 0;              // CPU threads, 0: the available cores
  int32_t tensor_parallel_size = 1;     // ranks that divide the model among them, 1..64 (docs/parallel.md)
  int32_t max_model_tokens = 0;         // 0: the model's, shrunk to what the KV memory holds
  double memory_utilization = 0.9;      // share of available memory the plan may use
  int64_t kv_cache_bytes = 0;           // 0: what the utilisation leaves (bounded by max_sequences * max_model_tokens)
  uint64_t dummy_seed = 0;
  StepOrder step_order = StepOrder::kAuto;
  SchedulerConfig scheduler;  // num_pages and max_model_tokens are filled in by the memory plan
  std::function<void(std::string_view stage, double fraction)> on_progress;  // loading; may be null
  std::function<void(std::string_view table)> on_memory_plan;                // before loading; may be null
  std::function<void(const StepStats&)> on_step;                             // may be null
};

enum class EngineHealth { kStarting, kReady, kStuck, kFailed, kStopped };

class Engine {
 public:
  // Loads, plans memory, warms up (really produces a token) and starts the engine thread.
  // FailedPrecondition/ResourceExhausted with the numbers when memory is too small; InvalidArgument for a bad model.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  virtual ~Engine() = default;  // stops: running requests finish with kError

  // Never blocks. The request's id is set here. ResourceExhausted: the queue is full. InvalidArgument: it cannot run.
  // Unavailable: stopping or stuck.
  virtual absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink) = 0;
  // Ends the request early but successfully (stop string found); later events are dropped.
  virtual void Finish(RequestId id) = 0;

  // A number for Request::session. Until ReleaseSession the pages of the session's last request are kept for its next,
  // as far as SchedulerConfig allows. 0: the engine keeps none.
  virtual uint64_t OpenSession() { return 0; }
  virtual void ReleaseSession(uint64_t) {}
  // Forgets the KV pages that are kept for later prompts of the tenant with this salt, or of everybody, and no page in
  // use. How many that were. Waits for the step under way; DeadlineExceeded: it takes longer than `limit`, and the
  // reset comes after it. Unavailable: stopping or stuck.
  virtual absl::StatusOr<int32_t> ResetPrefixCache(std::optional<uint64_t> /*salt*/, absl::Duration /*limit*/) {
    return 0;
  }

  virtual const ModelInfo& model() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual const ChatTemplate* chat_template() const = 0;  // null: the model has none
  virtual SchedulerStats stats() const = 0;
  virtual std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const = 0;
  virtual const SchedulerConfig& scheduler_config() const = 0;  // as planned
  virtual const std::string& memory_report() const = 0;         // the memory plan as a table
  // kStuck when the engine thread has not got on for longer than `limit`: nothing new is taken until it does, and if it
  // is a step that does not end, the requests are failed.
  virtual EngineHealth CheckHealth(absl::Duration limit) = 0;
  virtual absl::Time last_step_end() const = 0;
};

}  // namespace millrace
