// SPDX-License-Identifier: Apache-2.0
#pragma once
// Every number the server exports: vLLM's names, types, labels and buckets where they have a meaning here, and
// millrace_* for what they lack. Thread-safe; observing costs tens of nanoseconds. Prometheus stays behind it.
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "agent/run.h"
#include "engine/engine.h"
#include "server/pipeline/generation.h"

namespace millrace {

struct ResponseCacheStats;

// The transport's part of a scrape.
struct TransportStats {
  int num_connections = 0;
  int num_active_requests = 0;
  uint64_t num_slow_readers = 0;
};

class Metrics {
 public:
  struct Options {
    std::string model_name;
    std::string version;
    int max_tenants = 100;  // label values; tenants beyond are counted as "other"
  };
  static std::unique_ptr<Metrics> Create(const Options& options);
  virtual ~Metrics() = default;

  // Engine thread, once per step.
  virtual void OnStep(const StepStats& stats) = 0;
  // Delivery and worker threads.
  virtual void OnPrefilled(const std::string& tenant, int32_t num_prompt_tokens, int32_t num_cached_tokens) = 0;
  virtual void OnGenerated(const std::string& tenant, int32_t num_tokens) = 0;
  virtual void OnFirstToken(absl::Duration since_received) = 0;
  virtual void OnInterTokenLatency(absl::Duration latency) = 0;
  virtual void OnFinished(const RequestRecord& record) = 0;
  virtual void OnRejected(const std::string& tenant, std::string_view reason) = 0;  // "queue_full", "unavailable", ...
  // Agent runs, on their threads.
  virtual void OnRunBegan() = 0;
  virtual void OnRunEnded(const RunResult& result, absl::Duration duration) = 0;
  virtual void OnToolCalled(std::string_view tool, const ToolResult& result, absl::Duration duration) = 0;
  virtual void SetSandbox(std::string_view tier) = 0;
  // Names the cache's shape once it is known.
  virtual void SetEngine(const EngineOptions& options, const SchedulerConfig& config) = 0;
  // The response cache's counts, before a page.
  virtual void FollowCache(const ResponseCacheStats& stats) = 0;
  // The text page. `engine` null: still loading.
  virtual std::string Scrape(const Engine* engine, const TransportStats& transport) = 0;
};

}  // namespace millrace
