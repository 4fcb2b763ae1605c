// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/server/fake_engine.h"

namespace millrace {
namespace {

RequestRecord Record(const std::string& tenant) {
  const absl::Time now = absl::Now();
  RequestRecord record{.num_choices = 1, .num_prompt_tokens = 100, .num_cached_tokens = 40, .num_generated_tokens = 11};
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
  metrics->OnFinished(Record("acme"));
  metrics->OnRejected("queue_full");
  metrics->OnStep({.num_prefill_rows = 60, .num_decode_rows = 4, .disconnects_freed = 2, .disconnect_steps = 2});
  const std::string page = metrics->Scrape(&engine, {.num_connections = 3});
  CHECK(HasLine(page, "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"}", " 100"));
  CHECK(HasLine(page, "vllm:prompt_tokens_cached_total{", " 40"));
  CHECK(HasLine(page, "vllm:generation_tokens_total{", " 11"));
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
  CHECK(HasLine(page, "millrace_disconnect_to_free_steps_bucket{engine=\"0\",model_name=\"m\",le=\"1\"}", " 2"));
  CHECK(HasLine(page, "millrace_tenant_requests_waiting{", " 2"));
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

// Two of promtool's rules cannot hold for names that vLLM chose: no colon, and no _total on a histogram.
TEST_CASE("Metrics: promtool finds nothing wrong but vLLM's own names", "[metrics]") {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) {
    WARN("[SKIPPED] promtool is not installed");
    return;
  }
  auto metrics = Metrics::Create({.model_name = "m\"\\\n", .version = "1"});
  FakeEngine engine({});
  metrics->SetEngine(EngineOptions{}, SchedulerConfig{});
  metrics->OnFinished(Record("acme"));
  metrics->OnRejected("queue_full");
  metrics->OnStep({.num_prefill_rows = 60});
  char name[] = "/tmp/millrace-metrics-XXXXXX";
  const int descriptor = mkstemp(name);
  REQUIRE(descriptor >= 0);
  close(descriptor);
  std::ofstream(name) << metrics->Scrape(&engine, {});
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
  pclose(pipe);
  std::remove(name);
  CHECK(complaints.empty());
  INFO(complaints);
}

}  // namespace
}  // namespace millrace
