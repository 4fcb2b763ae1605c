// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/caching/response_cache.h"

namespace millrace {
namespace {

using Labels = std::map<std::string, std::string>;
using Buckets = std::vector<double>;

// vLLM's bounds, so that its dashboards' quantiles mean the same here.
const Buckets kFirstTokenBuckets = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                    1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Buckets kTokenTimeBuckets = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                   0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
const Buckets kRequestTimeBuckets = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                     30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
const Buckets kIterationBuckets = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kTokenCountBuckets = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const Buckets kChoicesBuckets = {1, 2, 5, 10, 20};
const Buckets kStepBuckets = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
                              0.05,   0.1,    0.2,    0.5,   1,     2,     5,    10};
const Buckets kToolTimeBuckets = {0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
const Buckets kTurnsBuckets = {1, 2, 3, 4, 6, 8, 12, 16, 32};
const Buckets kFreeStepBuckets = {0, 1, 2, 4, 8, 16};

// prometheus-cpp's counters only grow; this follows a total kept elsewhere.
class FollowingCounter {
 public:
  explicit FollowingCounter(prometheus::Counter& counter) : counter_(counter) {}
  void Follow(uint64_t total) {
    if (total > last_) counter_.Increment(static_cast<double>(total - last_));
    last_ = std::max(last_, total);
  }

 private:
  prometheus::Counter& counter_;
  uint64_t last_ = 0;
};

constexpr char kWaitingHelp[] = "Requests waiting to be scheduled, by reason.";

double Seconds(absl::Duration duration) { return std::max(0.0, absl::ToDoubleSeconds(duration)); }

class MetricsImpl : public Metrics {
 public:
  explicit MetricsImpl(const Options& options)
      : options_(options), base_{{"model_name", options.model_name}, {"engine", "0"}} {
    Gauge("millrace_build_info", "The build that serves; the value is always 1.", {{"version", options.version}})
        .Set(1);
    // No request waits for anything but room yet: no remote pages, no adapters, no grammars.
    Gauge("vllm:num_requests_waiting_by_reason", kWaitingHelp, {{"reason", "deferred"}}).Set(0);
  }

  void OnStep(const StepStats& stats) override {
    const double num_rows = stats.num_prefill_rows + stats.num_decode_rows;
    if (num_rows > 0) iteration_tokens_.Observe(num_rows);
    prefill_rows_.Increment(stats.num_prefill_rows);
    decode_rows_.Increment(stats.num_decode_rows);
    step_plan_.Observe(Seconds(stats.plan_time));
    step_run_.Observe(Seconds(stats.run_time));
    step_commit_.Observe(Seconds(stats.commit_time));
    for (const uint64_t steps : stats.disconnect_steps) disconnect_steps_.Observe(static_cast<double>(steps));
  }

  void OnPrefilled(const std::string& tenant, int32_t num_prompt_tokens, int32_t num_cached_tokens) override {
    prompt_tokens_.Increment(num_prompt_tokens);
    prompt_tokens_cached_.Increment(num_cached_tokens);
    source_compute_.Increment(std::max(0, num_prompt_tokens - num_cached_tokens));
    source_cache_.Increment(num_cached_tokens);
    const TenantCounters counters = CountersOf(tenant);
    counters.prompt->Increment(num_prompt_tokens);
    counters.cached->Increment(num_cached_tokens);
  }
  void OnGenerated(const std::string& tenant, int32_t num_tokens) override {
    generation_tokens_.Increment(num_tokens);
    CountersOf(tenant).generated->Increment(num_tokens);
  }
  void OnFirstToken(absl::Duration since_received) override { first_token_.Observe(Seconds(since_received)); }
  void OnInterTokenLatency(absl::Duration latency) override { inter_token_.Observe(Seconds(latency)); }

  void OnFinished(const RequestRecord& record) override {
    FinishedCounter(record.finish).Increment();
    if (record.is_corrupted) corrupted_.Increment();
    const int32_t num_computed = std::max(0, record.num_prompt_tokens - record.num_cached_tokens);
    request_prompt_tokens_.Observe(record.num_prompt_tokens);
    request_generation_tokens_.Observe(record.num_generated_tokens);
    request_max_generation_tokens_.Observe(record.max_generated_tokens);
    request_params_n_.Observe(record.num_choices);
    request_params_max_tokens_.Observe(record.max_new_tokens);
    prefill_computed_tokens_.Observe(num_computed);
    ObserveTimes(record);
    CountersOf(record.caller.tenant.name).requests->Increment();
  }

  void OnRejected(const std::string& tenant, std::string_view reason) override {
    CounterOf("vllm:admission_rejections_total", "Requests refused before they were queued.",
              {{"reason", std::string(reason)}})
        .Increment();
    std::string label;
    {
      absl::MutexLock lock(&mu_);
      label = TenantLabel(tenant);
    }
    CounterOf("millrace_tenant_rejections_total", "Requests refused, by tenant and reason.",
              {{"tenant", label}, {"reason", std::string(reason)}})
        .Increment();
  }

  void OnRunBegan() override { runs_.Increment(); }
  void OnRunEnded(const RunResult& result, absl::Duration duration) override {
    runs_.Decrement();
    CounterOf("millrace_agent_runs_total", "Agent runs that ended, by reason.",
              {{"end", std::string(RunEndName(result.end))}})
        .Increment();
    run_time_.Observe(Seconds(duration));
    run_turns_.Observe(result.num_turns);
    run_tokens_computed_.Increment(
        static_cast<double>(result.usage.num_prompt_tokens - result.usage.num_cached_tokens));
    run_tokens_cached_.Increment(static_cast<double>(result.usage.num_cached_tokens));
  }
  void OnToolCalled(std::string_view tool, const ToolResult& result, absl::Duration duration) override {
    const std::string name(tool);
    CounterOf("millrace_tool_calls_total", "Calls of the server's own tools, by tool and outcome.",
              {{"tool", name}, {"outcome", result.is_error ? "error" : "ok"}})
        .Increment();
    Histogram("millrace_tool_call_seconds", "Time of a call, by tool.", kToolTimeBuckets, {{"tool", name}})
        .Observe(Seconds(duration));
  }
  void SetSandbox(std::string_view tier) override {
    Gauge("millrace_sandbox_info", "What holds programs of tools; the value is always 1.",
          {{"tier", std::string(tier)}})
        .Set(1);
  }

  void SetEngine(const EngineOptions& options, const SchedulerConfig& config) override {
    Gauge("vllm:cache_config_info", "The shape of the KV cache; the value is always 1.",
          {{"block_size", absl::StrCat(config.page_tokens)},
           {"cache_dtype", options.kv_cache_dtype},
           {"enable_prefix_caching", config.enable_prefix_caching ? "True" : "False"},
           {"gpu_memory_utilization", absl::StrCat(options.memory_utilization)},
           {"num_gpu_blocks", absl::StrCat(config.num_pages)}})
        .Set(1);
  }

  void FollowCache(const ResponseCacheStats& stats) override {
    absl::MutexLock lock(&scrape_mu_);
    if (cache_ == nullptr) cache_ = std::make_unique<CacheCounters>(*this);
    cache_->hits.Follow(stats.num_hits);
    cache_->misses.Follow(stats.num_misses);
    cache_->coalesced.Follow(stats.num_coalesced);
    cache_->bypassed.Follow(stats.num_bypassed);
    cache_->evictions.Follow(stats.store.num_evictions);
    cache_->errors.Follow(stats.store.num_errors);
    cache_->bytes.Set(static_cast<double>(stats.store.num_bytes));
    cache_->entries.Set(static_cast<double>(stats.store.num_entries));
  }

  std::string Scrape(const Engine* engine, const TransportStats& transport) override {
    absl::MutexLock lock(&scrape_mu_);
    connections_.Set(transport.num_connections);
    active_requests_.Set(transport.num_active_requests);
    slow_readers_.Follow(transport.num_slow_readers);
    engine_ready_.Set(engine != nullptr ? 1 : 0);
    if (engine != nullptr) FollowEngine(*engine);
    FollowProcess();
    return prometheus::TextSerializer().Serialize(registry_.Collect());
  }

 private:
  // On the page of a server that has a response cache.
  struct CacheCounters {
    explicit CacheCounters(MetricsImpl& metrics)
        : hits(Requests(metrics, CacheOutcome::kHit)),
          misses(Requests(metrics, CacheOutcome::kMiss)),
          coalesced(Requests(metrics, CacheOutcome::kCoalesced)),
          bypassed(Requests(metrics, CacheOutcome::kBypass)),
          evictions(metrics.CounterOf("millrace_response_cache_evictions_total", "Answers dropped for want of room.")),
          errors(metrics.CounterOf("millrace_response_cache_store_errors_total",
                                   "Calls of the store that failed, and answers it could not take.")),
          bytes(metrics.Gauge("millrace_response_cache_bytes", "Answers kept in this process.")),
          entries(metrics.Gauge("millrace_response_cache_entries", "Answers kept in this process.")) {}
    static prometheus::Counter& Requests(MetricsImpl& metrics, CacheOutcome outcome) {
      return metrics.CounterOf("millrace_response_cache_requests_total", "Requests, by what the response cache did.",
                               {{"outcome", std::string(CacheOutcomeName(outcome))}});
    }
    FollowingCounter hits, misses, coalesced, bypassed, evictions, errors;
    prometheus::Gauge& bytes;
    prometheus::Gauge& entries;
  };

  void ObserveTimes(const RequestRecord& record) {
    e2e_.Observe(Seconds(record.finished - record.caller.received));
    if (record.scheduled == absl::InfinitePast()) return;
    queue_time_.Observe(Seconds(record.scheduled - record.caller.received));
    inference_time_.Observe(Seconds(record.finished - record.scheduled));
    if (record.first_token == absl::InfinitePast()) return;
    prefill_time_.Observe(Seconds(record.first_token - record.scheduled));
    const absl::Duration decode = record.last_token - record.first_token;
    decode_time_.Observe(Seconds(decode));
    const int32_t num_later = record.num_generated_tokens - std::max(1, record.num_choices);
    if (num_later > 0) time_per_token_.Observe(Seconds(decode) * std::max(1, record.num_choices) / num_later);
  }

  void FollowEngine(const Engine& engine) {
    const SchedulerStats stats = engine.stats();
    running_.Set(stats.num_running);
    waiting_.Set(stats.num_waiting);
    waiting_capacity_.Set(stats.num_waiting);
    waiting_tokens_.Set(static_cast<double>(stats.num_waiting_tokens));
    kv_usage_.Set(stats.num_pages_total > 0 ? static_cast<double>(stats.num_pages_used) / stats.num_pages_total : 0);
    pages_total_.Set(stats.num_pages_total);
    pages_used_.Set(stats.num_pages_used);
    pages_cached_.Set(stats.num_pages_cached);
    pages_pinned_.Set(stats.num_pages_pinned);
    preemptions_.Follow(stats.num_preemptions);
    prefix_queries_.Follow(stats.prefix_query_tokens);
    prefix_hits_.Follow(stats.prefix_hit_tokens);
    if (engine.last_step_end() > absl::UnixEpoch()) {
      last_step_.Set(absl::ToDoubleSeconds(engine.last_step_end() - absl::UnixEpoch()));
    }
    const auto waiting = engine.waiting_by_tenant();
    std::map<std::string, int32_t> by_tenant;
    absl::MutexLock lock(&mu_);
    for (const auto& [tenant, num_waiting] : waiting) by_tenant[TenantLabel(tenant)] += num_waiting;
    for (const auto& [tenant, gauge] : tenant_queues_) {
      if (!by_tenant.contains(tenant)) gauge->Set(0);
    }
    for (const auto& [tenant, num_waiting] : by_tenant) {
      prometheus::Gauge*& gauge = tenant_queues_[tenant];
      if (gauge == nullptr) {
        gauge = &Gauge("millrace_tenant_requests_waiting", "Requests in the queue, by tenant.", {{"tenant", tenant}});
      }
      gauge->Set(num_waiting);
    }
  }

  void FollowProcess() ABSL_EXCLUSIVE_LOCKS_REQUIRED(scrape_mu_) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) { return t.tv_sec + t.tv_usec * 1e-6; };
    const double cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    if (cpu > last_cpu_) cpu_seconds_.Increment(cpu - last_cpu_);
    last_cpu_ = std::max(last_cpu_, cpu);
    std::ifstream statm("/proc/self/statm");
    int64_t total_pages = 0, resident_pages = 0;
    if (statm >> total_pages >> resident_pages) {
      resident_bytes_.Set(static_cast<double>(resident_pages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
    }
  }

  Labels WithBase(Labels labels) const {
    labels.insert(base_.begin(), base_.end());
    return labels;
  }
  prometheus::Counter& CounterOf(const char* name, const char* help, const Labels& labels = {}) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(WithBase(labels));
  }
  prometheus::Gauge& Gauge(const char* name, const char* help, const Labels& labels = {}) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(WithBase(labels));
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Buckets& buckets,
                                   const Labels& labels = {}) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(WithBase(labels), buckets);
  }

  // Every finish reason exists from the start, so that rates begin at zero.
  prometheus::Counter& Success(const char* reason) {
    return CounterOf("vllm:request_success_total", "Requests that ended, by reason.", {{"finished_reason", reason}});
  }
  prometheus::Counter& FinishedCounter(FinishReason reason) {
    switch (reason) {
      case FinishReason::kStop:
        return finished_stop_;
      case FinishReason::kLength:
        return finished_length_;
      case FinishReason::kError:
        return finished_error_;
      default:
        return finished_abort_;
    }
  }

  std::string TenantLabel(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const std::string label = name.empty() ? "anonymous" : name;
    if (tenants_.contains(label)) return label;
    if (tenants_.size() >= static_cast<size_t>(options_.max_tenants)) return "other";
    tenants_.insert(label);
    return label;
  }
  struct TenantCounters {
    prometheus::Counter *prompt = nullptr, *cached = nullptr, *generated = nullptr, *requests = nullptr;
  };
  TenantCounters CountersOf(const std::string& name) {
    absl::MutexLock lock(&mu_);
    const auto found = tenant_counters_.find(name);
    if (found != tenant_counters_.end()) return found->second;
    const std::string label = TenantLabel(name);
    const auto tokens = [&](const char* kind) {
      return &CounterOf("millrace_tenant_tokens_total", "Tokens, by tenant and kind.",
                        {{"tenant", label}, {"kind", kind}});
    };
    TenantCounters counters{.prompt = tokens("prompt"), .cached = tokens("cached"), .generated = tokens("generated")};
    counters.requests =
        &CounterOf("millrace_tenant_requests_total", "Requests that ended, by tenant.", {{"tenant", label}});
    // Those beyond the bound share a label, and are looked up anew each time: the map stays as small as the page.
    if (label != "other") tenant_counters_[name] = counters;
    return counters;
  }

  const Options options_;
  const Labels base_;
  absl::Mutex scrape_mu_;  // one scrape at a time: FollowingCounter
  prometheus::Registry registry_{prometheus::Registry::InsertBehavior::Merge};

  // vLLM's names.
  prometheus::Gauge& running_ = Gauge("vllm:num_requests_running", "Requests in the running batch.");
  prometheus::Gauge& waiting_ = Gauge("vllm:num_requests_waiting", "Requests waiting to be scheduled.");
  prometheus::Gauge& waiting_capacity_ =
      Gauge("vllm:num_requests_waiting_by_reason", kWaitingHelp, {{"reason", "capacity"}});
  prometheus::Gauge& kv_usage_ = Gauge("vllm:kv_cache_usage_perc", "Share of KV pages in use, 0 to 1.");
  prometheus::Counter& prompt_tokens_ = CounterOf("vllm:prompt_tokens_total", "Prompt tokens, once computed or found.");
  prometheus::Counter& prompt_tokens_cached_ =
      CounterOf("vllm:prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.");
  prometheus::Counter& source_compute_ =
      CounterOf("vllm:prompt_tokens_by_source_total", "Prompt tokens, by where their KV came from.",
                {{"source", "local_compute"}});
  prometheus::Counter& source_cache_ =
      CounterOf("vllm:prompt_tokens_by_source_total", "Prompt tokens, by where their KV came from.",
                {{"source", "local_cache_hit"}});
  prometheus::Counter& generation_tokens_ = CounterOf("vllm:generation_tokens_total", "Generated tokens.");
  prometheus::Counter& corrupted_ =
      CounterOf("vllm:corrupted_requests_total", "Requests that ended because their results were unusable.");
  prometheus::Counter& finished_stop_ = Success("stop");
  prometheus::Counter& finished_length_ = Success("length");
  prometheus::Counter& finished_abort_ = Success("abort");
  prometheus::Counter& finished_error_ = Success("error");
  FollowingCounter preemptions_{CounterOf("vllm:num_preemptions_total", "Preemptions of running requests.")};
  FollowingCounter prefix_queries_{
      CounterOf("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.")};
  FollowingCounter prefix_hits_{CounterOf("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.")};
  prometheus::Histogram& first_token_ =
      Histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", kFirstTokenBuckets);
  prometheus::Histogram& inter_token_ =
      Histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.", kTokenTimeBuckets);
  prometheus::Histogram& time_per_token_ =
      Histogram("vllm:request_time_per_output_token_seconds", "Mean time per token after the first, by request.",
                kTokenTimeBuckets);
  prometheus::Histogram& e2e_ =
      Histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", kRequestTimeBuckets);
  prometheus::Histogram& queue_time_ =
      Histogram("vllm:request_queue_time_seconds", "From arrival to the first step.", kRequestTimeBuckets);
  prometheus::Histogram& prefill_time_ =
      Histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.", kRequestTimeBuckets);
  prometheus::Histogram& decode_time_ =
      Histogram("vllm:request_decode_time_seconds", "From the first token to the last.", kRequestTimeBuckets);
  prometheus::Histogram& inference_time_ =
      Histogram("vllm:request_inference_time_seconds", "From the first step to the end.", kRequestTimeBuckets);
  prometheus::Histogram& iteration_tokens_ =
      Histogram("vllm:iteration_tokens_total", "Tokens computed in one step.", kIterationBuckets);
  prometheus::Histogram& request_prompt_tokens_ =
      Histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", kTokenCountBuckets);
  prometheus::Histogram& request_generation_tokens_ =
      Histogram("vllm:request_generation_tokens", "Generated tokens of a request.", kTokenCountBuckets);
  prometheus::Histogram& request_max_generation_tokens_ =
      Histogram("vllm:request_max_num_generation_tokens", "Tokens of a request's longest choice.", kTokenCountBuckets);
  prometheus::Histogram& request_params_n_ =
      Histogram("vllm:request_params_n", "Answers asked for in a request.", kChoicesBuckets);
  prometheus::Histogram& request_params_max_tokens_ =
      Histogram("vllm:request_params_max_tokens", "Token limit of a request.", kTokenCountBuckets);
  prometheus::Histogram& prefill_computed_tokens_ =
      Histogram("vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed, not cached.", kTokenCountBuckets);

  // What vLLM's lack.
  prometheus::Histogram& step_plan_ =
      Histogram("millrace_step_seconds", "Time of a step, by stage.", kStepBuckets, {{"stage", "plan"}});
  prometheus::Histogram& step_run_ =
      Histogram("millrace_step_seconds", "Time of a step, by stage.", kStepBuckets, {{"stage", "run"}});
  prometheus::Histogram& step_commit_ =
      Histogram("millrace_step_seconds", "Time of a step, by stage.", kStepBuckets, {{"stage", "commit"}});
  prometheus::Histogram& disconnect_steps_ =
      Histogram("millrace_disconnect_to_free_steps", "Steps begun between a client's leaving and its pages being free.",
                kFreeStepBuckets);
  prometheus::Counter& prefill_rows_ =
      CounterOf("millrace_step_rows_total", "Rows computed, by kind.", {{"kind", "prefill"}});
  prometheus::Counter& decode_rows_ =
      CounterOf("millrace_step_rows_total", "Rows computed, by kind.", {{"kind", "decode"}});
  prometheus::Gauge& waiting_tokens_ = Gauge("millrace_queue_tokens", "Prompt tokens waiting in the queue.");
  prometheus::Gauge& pages_total_ = Gauge("millrace_kv_pages", "KV pages, by state.", {{"state", "total"}});
  prometheus::Gauge& pages_used_ = Gauge("millrace_kv_pages", "KV pages, by state.", {{"state", "used"}});
  prometheus::Gauge& pages_cached_ = Gauge("millrace_kv_pages", "KV pages, by state.", {{"state", "cached"}});
  prometheus::Gauge& pages_pinned_ = Gauge("millrace_kv_pages", "KV pages, by state.", {{"state", "pinned"}});
  prometheus::Gauge& runs_ = Gauge("millrace_agent_runs", "Agent runs under way.");
  prometheus::Histogram& run_time_ =
      Histogram("millrace_agent_run_seconds", "From the beginning of an agent run to its end.", kRequestTimeBuckets);
  prometheus::Histogram& run_turns_ = Histogram("millrace_agent_run_turns", "Turns of an agent run.", kTurnsBuckets);
  prometheus::Counter& run_tokens_computed_ =
      CounterOf("millrace_agent_prompt_tokens_total",
                "Prompt tokens of agent runs' turns, by where their KV came from.", {{"source", "computed"}});
  prometheus::Counter& run_tokens_cached_ =
      CounterOf("millrace_agent_prompt_tokens_total",
                "Prompt tokens of agent runs' turns, by where their KV came from.", {{"source", "cached"}});
  prometheus::Gauge& engine_ready_ = Gauge("millrace_engine_ready", "1 when the model is loaded.");
  prometheus::Gauge& last_step_ = Gauge("millrace_last_step_timestamp_seconds", "When the last step ended.");
  prometheus::Gauge& connections_ = Gauge("millrace_http_connections", "Open HTTP connections.");
  prometheus::Gauge& active_requests_ = Gauge("millrace_http_active_requests", "HTTP requests being answered.");
  FollowingCounter slow_readers_{
      CounterOf("millrace_http_slow_readers_total", "Streams cut because the client read too slowly.")};
  prometheus::Counter& cpu_seconds_ =
      prometheus::BuildCounter().Name("process_cpu_seconds_total").Help("CPU time used.").Register(registry_).Add({});
  prometheus::Gauge& resident_bytes_ = prometheus::BuildGauge()
                                           .Name("process_resident_memory_bytes")
                                           .Help("Resident memory.")
                                           .Register(registry_)
                                           .Add({});

  double last_cpu_ ABSL_GUARDED_BY(scrape_mu_) = 0;
  std::unique_ptr<CacheCounters> cache_ ABSL_GUARDED_BY(scrape_mu_);
  absl::Mutex mu_;
  absl::flat_hash_set<std::string> tenants_ ABSL_GUARDED_BY(mu_);                          // labels
  absl::flat_hash_map<std::string, TenantCounters> tenant_counters_ ABSL_GUARDED_BY(mu_);  // by name
  std::map<std::string, prometheus::Gauge*> tenant_queues_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create(const Options& options) { return std::make_unique<MetricsImpl>(options); }

}  // namespace millrace
