// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/caching/response_cache.h"
#include "tests/server/fake_engine.h"

namespace millrace {
namespace {

RequestRecord Record(const std::string& tenant) {
  const absl::Time now = absl::Now();
  RequestRecord record{.num_choices = 1,
                       .num_prompt_tokens = 100,
                       .num_cached_tokens = 40,
                       .num_generated_tokens = 11,
                       .max_generated_tokens = 7};
  record.caller.tenant.name = tenant;
  record.caller.received = record.submitted = now - absl::Seconds(4);
  record.scheduled = now - absl::Seconds(3);
  record.first_token = now - absl::Seconds(2);
  record.last_token = record.finished = now;
  record.finish = FinishReason::kStop;
  return record;
}

bool HasLine(const std::string& page, const std::string& begin, const std::string& end) {
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    if (absl::StartsWith(line, begin) && absl::EndsWith(line, end)) return true;
  }
  return false;
}

TEST_CASE("Metrics: what happens is counted under vLLM's names", "[metrics]") {
  auto metrics = Metrics::Create({.model_name = "m", .version = "1"});
  FakeEngine engine({});
  metrics->SetEngine(EngineOptions{}, SchedulerConfig{.num_pages = 100, .page_tokens = 16});
  metrics->OnFirstToken(absl::Milliseconds(30));
  metrics->OnInterTokenLatency(absl::Milliseconds(20));
  metrics->OnPrefilled("acme", 100, 40);
  metrics->OnGenerated("acme", 11);
  metrics->OnFinished(Record("acme"));
  metrics->OnRejected("acme", "queue_full");
  metrics->OnStep({.num_prefill_rows = 60, .num_decode_rows = 4, .disconnect_steps = {0, 2}});
  const std::string page = metrics->Scrape(&engine, {.num_connections = 3});
  CHECK(HasLine(page, "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"}", " 100"));
  CHECK(HasLine(page, "vllm:prompt_tokens_cached_total{", " 40"));
  CHECK(HasLine(page, "vllm:generation_tokens_total{", " 11"));
  CHECK(HasLine(page, "vllm:request_generation_tokens_sum{", " 11"));
  CHECK(HasLine(page, "vllm:request_max_num_generation_tokens_sum{", " 7"));
  CHECK(HasLine(page, "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\"", " 1"));
  CHECK(HasLine(page, "vllm:request_success_total{engine=\"0\",finished_reason=\"length\"", " 0"));
  CHECK(HasLine(page, "vllm:kv_cache_usage_perc{", " 0.25"));
  CHECK(HasLine(page, "vllm:num_requests_waiting{", " 3"));
  CHECK(HasLine(page, "vllm:prefix_cache_hits_total{", " 5"));
  CHECK(HasLine(page, "vllm:cache_config_info{block_size=\"16\"", " 1"));
  CHECK(HasLine(page, "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.04\"}", " 1"));
  CHECK(HasLine(page, "vllm:request_queue_time_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"1\"}", " 1"));
  CHECK(HasLine(page, "vllm:request_decode_time_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"1.5\"}", " 0"));
  CHECK(HasLine(page, "vllm:admission_rejections_total{engine=\"0\",model_name=\"m\",reason=\"queue_full\"}", " 1"));
  CHECK(HasLine(page, "vllm:iteration_tokens_total_count{", " 1"));
  CHECK(HasLine(page, "millrace_disconnect_to_free_steps_bucket{engine=\"0\",model_name=\"m\",le=\"1\"}", " 1"));
  CHECK(HasLine(page, "millrace_tenant_requests_waiting{", " 2"));
  for (const auto& [kind, count] : {std::pair{"prompt", " 100"}, {"cached", " 40"}, {"generated", " 11"}}) {
    const std::string labels = absl::StrCat("kind=\"", kind, "\",model_name=\"m\",tenant=\"acme\"}");
    CHECK(HasLine(page, "millrace_tenant_tokens_total{engine=\"0\"," + labels, count));
  }
  CHECK(HasLine(page, "millrace_tenant_requests_total{", "tenant=\"acme\"} 1"));
  CHECK(HasLine(page, "millrace_tenant_rejections_total{", "reason=\"queue_full\",tenant=\"acme\"} 1"));
  CHECK(HasLine(page, "millrace_http_connections{", " 3"));
  // Counters that follow the engine's totals do not grow by being looked at.
  CHECK(HasLine(metrics->Scrape(&engine, {}), "vllm:prefix_cache_hits_total{", " 5"));
}

TEST_CASE("Metrics: tenants beyond the limit are counted together", "[metrics]") {
  auto metrics = Metrics::Create({.model_name = "m", .version = "1", .max_tenants = 3});
  for (int i = 0; i < 50; ++i) metrics->OnFinished(Record(absl::StrCat("t", i)));
  const std::string page = metrics->Scrape(nullptr, {});
  std::set<std::string> tenants;
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    if (!absl::StartsWith(line, "millrace_tenant_tokens_total{")) continue;
    const size_t at = line.find("tenant=\"") + 8;
    tenants.insert(std::string(line.substr(at, line.find('"', at) - at)));
  }
  CHECK(tenants == std::set<std::string>{"t0", "t1", "t2", "other"});
}

// Everything that can be on it has happened.
std::string FullPage(const std::string& model_name) {
  auto metrics = Metrics::Create({.model_name = model_name, .version = "1"});
  FakeEngine engine({});
  metrics->SetEngine(EngineOptions{}, SchedulerConfig{});
  metrics->OnFinished(Record("acme"));
  metrics->OnRejected("acme", "queue_full");
  metrics->OnStep({.num_prefill_rows = 60});
  metrics->OnRunBegan();
  metrics->OnToolCalled("clock", {.text = "now"}, absl::Milliseconds(3));
  metrics->OnRunEnded({.usage = {.num_prompt_tokens = 90, .num_cached_tokens = 64}, .num_turns = 2}, absl::Seconds(1));
  metrics->SetSandbox("none");
  metrics->FollowCache({});
  return metrics->Scrape(&engine, {});
}

using Bounds = std::vector<double>;

struct Promise {
  std::string type;
  std::string labels;  // beyond `engine` and `model_name`, in the order of the alphabet
  Bounds bounds;
};

std::map<std::string, Promise> PromisedOfTenants() {
  return {
      {"millrace_tenant_rejections_total", {"counter", "reason,tenant", {}}},
      {"millrace_tenant_requests_total", {"counter", "tenant", {}}},
  };
}

std::map<std::string, Promise> PromisedOfCache() {
  return {
      {"millrace_response_cache_requests_total", {"counter", "outcome", {}}},
      {"millrace_response_cache_evictions_total", {"counter", "", {}}},
      {"millrace_response_cache_store_errors_total", {"counter", "", {}}},
      {"millrace_response_cache_bytes", {"gauge", "", {}}},
      {"millrace_response_cache_entries", {"gauge", "", {}}},
  };
}

// Of agent runs and their tools.
std::map<std::string, Promise> PromisedOfRuns() {
  const Bounds request_time = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                               30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
  return {
      {"millrace_agent_runs", {"gauge", "", {}}},
      {"millrace_agent_runs_total", {"counter", "end", {}}},
      {"millrace_agent_run_seconds", {"histogram", "", request_time}},
      {"millrace_agent_run_turns", {"histogram", "", {1, 2, 3, 4, 6, 8, 12, 16, 32}}},
      {"millrace_agent_prompt_tokens_total", {"counter", "source", {}}},
      {"millrace_tool_calls_total", {"counter", "outcome,tool", {}}},
      {"millrace_tool_call_seconds",
       {"histogram", "tool", {0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}}},
      {"millrace_sandbox_info", {"gauge", "tier", {}}},
  };
}

// Dashboards, routers and scalers read these by name: a change here breaks them.
std::map<std::string, Promise> Promised() {
  const Bounds first_token = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                              1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
  const Bounds token_time = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                             0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
  const Bounds request_time = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                               30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
  const Bounds iteration = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  const Bounds tokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
  const Bounds steps = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10};
  return {
      {"vllm:num_requests_running", {"gauge", "", {}}},
      {"vllm:num_requests_waiting", {"gauge", "", {}}},
      {"vllm:num_requests_waiting_by_reason", {"gauge", "reason", {}}},
      {"vllm:kv_cache_usage_perc", {"gauge", "", {}}},
      {"vllm:cache_config_info",
       {"gauge", "block_size,cache_dtype,enable_prefix_caching,gpu_memory_utilization,num_gpu_blocks", {}}},
      {"vllm:prompt_tokens_total", {"counter", "", {}}},
      {"vllm:prompt_tokens_by_source_total", {"counter", "source", {}}},
      {"vllm:prompt_tokens_cached_total", {"counter", "", {}}},
      {"vllm:generation_tokens_total", {"counter", "", {}}},
      {"vllm:request_success_total", {"counter", "finished_reason", {}}},
      {"vllm:num_preemptions_total", {"counter", "", {}}},
      {"vllm:corrupted_requests_total", {"counter", "", {}}},
      {"vllm:admission_rejections_total", {"counter", "reason", {}}},
      {"vllm:prefix_cache_queries_total", {"counter", "", {}}},
      {"vllm:prefix_cache_hits_total", {"counter", "", {}}},
      {"vllm:time_to_first_token_seconds", {"histogram", "", first_token}},
      {"vllm:inter_token_latency_seconds", {"histogram", "", token_time}},
      {"vllm:request_time_per_output_token_seconds", {"histogram", "", token_time}},
      {"vllm:e2e_request_latency_seconds", {"histogram", "", request_time}},
      {"vllm:request_queue_time_seconds", {"histogram", "", request_time}},
      {"vllm:request_prefill_time_seconds", {"histogram", "", request_time}},
      {"vllm:request_decode_time_seconds", {"histogram", "", request_time}},
      {"vllm:request_inference_time_seconds", {"histogram", "", request_time}},
      {"vllm:iteration_tokens_total", {"histogram", "", iteration}},
      {"vllm:request_prompt_tokens", {"histogram", "", tokens}},
      {"vllm:request_generation_tokens", {"histogram", "", tokens}},
      {"vllm:request_max_num_generation_tokens", {"histogram", "", tokens}},
      {"vllm:request_params_n", {"histogram", "", {1, 2, 5, 10, 20}}},
      {"vllm:request_params_max_tokens", {"histogram", "", tokens}},
      {"vllm:request_prefill_kv_computed_tokens", {"histogram", "", tokens}},
      {"millrace_build_info", {"gauge", "version", {}}},
      {"millrace_step_seconds", {"histogram", "stage", steps}},
      {"millrace_step_rows_total", {"counter", "kind", {}}},
      {"millrace_disconnect_to_free_steps", {"histogram", "", {0, 1, 2, 4, 8, 16}}},
      {"millrace_queue_tokens", {"gauge", "", {}}},
      {"millrace_kv_pages", {"gauge", "state", {}}},
      {"millrace_engine_ready", {"gauge", "", {}}},
      {"millrace_last_step_timestamp_seconds", {"gauge", "", {}}},
      {"millrace_http_connections", {"gauge", "", {}}},
      {"millrace_http_active_requests", {"gauge", "", {}}},
      {"millrace_http_slow_readers_total", {"counter", "", {}}},
      {"millrace_tenant_requests_waiting", {"gauge", "tenant", {}}},
      {"millrace_tenant_tokens_total", {"counter", "kind,tenant", {}}},
      {"process_cpu_seconds_total", {"counter", "-", {}}},  // the process's own: without engine and model
      {"process_resident_memory_bytes", {"gauge", "-", {}}},
  };
}

// The label names of a sample's line; the value of `le` apart.
std::string LabelNames(absl::string_view line, std::string* bound) {
  const size_t open = line.find('{');
  if (open == absl::string_view::npos) return "-";
  std::set<std::string> names;
  for (const absl::string_view label : absl::StrSplit(line.substr(open + 1, line.rfind('}') - open - 1), ',')) {
    const std::vector<std::string> parts = absl::StrSplit(label, '=');
    if (parts[0] == "le") {
      *bound = parts[1].substr(1, parts[1].size() - 2);
    } else {
      names.insert(parts[0]);
    }
  }
  CHECK(names.erase("engine") == 1);
  CHECK(names.erase("model_name") == 1);
  return absl::StrJoin(names, ",");
}

TEST_CASE("Metrics: runs and calls of tools are counted by what became of them", "[metrics]") {
  const std::string page = FullPage("m");
  CHECK(HasLine(page, "millrace_agent_runs{", " 0"));
  CHECK(HasLine(page, "millrace_agent_runs_total{end=\"answered\"", " 1"));
  CHECK(HasLine(page, "millrace_agent_prompt_tokens_total{engine=\"0\",model_name=\"m\",source=\"cached\"}", " 64"));
  CHECK(HasLine(page, "millrace_agent_prompt_tokens_total{engine=\"0\",model_name=\"m\",source=\"computed\"}", " 26"));
  CHECK(HasLine(page, "millrace_tool_calls_total{engine=\"0\",model_name=\"m\",outcome=\"ok\",tool=\"clock\"}", " 1"));
}

TEST_CASE("Metrics: the page holds what is promised, by name, type, labels and bounds, and nothing else", "[metrics]") {
  std::map<std::string, Promise> found;
  std::string name;
  for (const absl::string_view line : absl::StrSplit(FullPage("m"), '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[1] == "TYPE") {
      name = words[2];
      CHECK(found.emplace(name, Promise{.type = words[3]}).second);
    }
    if (line.empty() || line[0] == '#') continue;
    INFO(line);
    REQUIRE(absl::StartsWith(line, name));
    std::string bound;
    Promise& metric = found[name];
    metric.labels = LabelNames(line, &bound);
    if (bound.empty() || bound == "+Inf") continue;
    const double value = std::stod(bound);
    const Bounds& seen = metric.bounds;
    if (std::find(seen.begin(), seen.end(), value) == seen.end()) metric.bounds.push_back(value);
  }
  auto promised = Promised();
  promised.merge(PromisedOfTenants());
  promised.merge(PromisedOfRuns());
  promised.merge(PromisedOfCache());
  for (const auto& [promise, expected] : promised) {
    INFO(promise);
    REQUIRE(found.contains(promise));
    CHECK(found[promise].type == expected.type);
    CHECK(found[promise].labels == expected.labels);
    CHECK(found[promise].bounds == expected.bounds);
  }
  for (const auto& [extra, metric] : found) {
    INFO(extra);
    CHECK(promised.contains(extra));
  }
}

// What promtool says of a page, but for two of its rules that cannot hold for names that vLLM chose: no colon, and no
// _total on a histogram.
std::string Complaints(const std::string& page) {
  char name[] = "/tmp/millrace-metrics-XXXXXX";
  const int descriptor = mkstemp(name);
  REQUIRE(descriptor >= 0);
  close(descriptor);
  std::ofstream(name) << page;
  FILE* pipe = popen(absl::StrCat("promtool check metrics < ", name, " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string complaints;
  char line[1024];
  while (std::fgets(line, sizeof(line), pipe) != nullptr) {
    const std::string text = line;
    const bool is_colon = absl::StartsWith(text, "vllm:") && absl::StrContains(text, "should not contain ':'");
    const bool is_suffix = absl::StartsWith(text, "vllm:iteration_tokens_total ") && absl::StrContains(text, "_total");
    if (!is_colon && !is_suffix) complaints += text;
  }
  const int status = pclose(pipe);
  std::remove(name);
  // 0: nothing to say, 3: it has complaints; all else means that it did not read the page.
  CHECK(WIFEXITED(status));
  CHECK((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3));
  return complaints;
}

TEST_CASE("Metrics: promtool finds nothing wrong but vLLM's own names", "[metrics]") {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) {
    WARN("[SKIPPED] promtool is not installed");
    return;
  }
  const std::string page = FullPage("m\"\\\n");
  CHECK(Complaints(page) == "");
  for (const char* fault : {"# TYPE millrace_requests counter\nmillrace_requests 1\n",
                            "# HELP vllm:x_total x\n# TYPE vllm:x_total gauge\nvllm:x_total 1\n",
                            "# HELP millrace:x x\n# TYPE millrace:x gauge\nmillrace:x 1\n"}) {
    INFO(fault);
    CHECK(Complaints(page + fault) != "");
  }
}

}  // namespace
}  // namespace millrace
