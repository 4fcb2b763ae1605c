// SPDX-License-Identifier: Apache-2.0
#pragma once
// An engine without a model: it answers with scripted tokens, one per step and request, on its own thread. Tokens are
// bytes (id = byte value), 256 ends a text, 257 and 258 open the turns of user and assistant.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/load/model_info.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace millrace {

inline constexpr int32_t kFakeEos = 256;

// The token of a request's answer at `position`; by default the bytes of `answer`, then the end. -1: unusable logits.
using TokenScript = std::function<int32_t(const Request& request, int32_t position)>;

class FakeEngine : public Engine {
 public:
  struct Options {
    std::string answer = "Hello, world!";
    TokenScript script;  // replaces `answer`
    int32_t max_model_tokens = 1000;
    int32_t max_running = 1 << 20;  // more: ResourceExhausted
    absl::Duration step_time;       // of every step
    int32_t num_cached_tokens = 0;
    bool has_template = true;
    std::string tokenizer_json;       // empty: ByteTokenizerJson()
    std::function<void()> on_submit;  // may block
    std::function<absl::StatusOr<int32_t>(std::optional<uint64_t> salt)> on_reset;
  };
  explicit FakeEngine(Options options);
  ~FakeEngine() override;

  absl::StatusOr<RequestHandle> Submit(Request request, TokenSink sink) override;
  void Finish(RequestId id) override;
  absl::StatusOr<int32_t> ResetPrefixCache(std::optional<uint64_t> salt, absl::Duration limit) override;
  const ModelInfo& model() const override { return model_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const ChatTemplate* chat_template() const override { return template_.get(); }
  SchedulerStats stats() const override;
  std::vector<std::pair<std::string, int32_t>> waiting_by_tenant() const override { return {{"team", 2}}; }
  const SchedulerConfig& scheduler_config() const override { return config_; }
  const std::string& memory_report() const override { return report_; }
  EngineHealth CheckHealth(absl::Duration) override { return EngineHealth::kReady; }
  absl::Time last_step_end() const override { return absl::Now(); }

  // No step begins while paused.
  void SetPaused(bool is_paused);
  // Ends every request with that reason.
  void FailAll(FinishReason reason);
  int num_running() const;
  int num_cancelled() const;
  int num_finished_early() const;
  // False: not within ten seconds.
  bool WaitRunning(int count) const;
  std::vector<Request> submitted() const;

 private:
  struct Entry {
    Request request;
    std::shared_ptr<TokenSink> sink;
    int32_t position = 0;
  };
  void Run();
  TokenEvent NextEvent(Entry& entry) const;
  TokenResult Describe(int32_t token, int32_t num_top) const;
  void Cancel(RequestId id);

  const Options options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  ModelInfo model_;
  SchedulerConfig config_;
  const std::string report_ = "no memory at all";
  mutable absl::Mutex mu_;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::vector<Request> submitted_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  int num_cancelled_ ABSL_GUARDED_BY(mu_) = 0;
  int num_finished_early_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_paused_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// A tokenizer.json of single bytes and the three tokens named above.
std::string ByteTokenizerJson();

}  // namespace millrace
