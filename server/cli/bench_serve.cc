// SPDX-License-Identifier: Apache-2.0
#include "server/cli/bench_serve.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/cli/http_client.h"
#include "server/cli/load_svg.h"
#include "server/cli/load_trace.h"
#include "server/cli/percentiles.h"
#include "server/cli/prompt_pool.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
  return 1;
}

// One request from its scheduled time to its end. Times in seconds after the start.
struct LoadRequest {
  Arrival arrival;
  std::string body;
  std::unique_ptr<SseReader> reader;
  curl_slist* headers = nullptr;
  CURL* handle = nullptr;
  double first_token = -1, last_token = -1, end = -1;
  std::vector<double> gaps;
  std::vector<double> token_times;
  int64_t num_chunks = 0, num_output_tokens = -1, num_prompt_tokens = -1;
  long status = 0;
  std::string error;
  bool is_done = false;
};

class LoadGenerator {
 public:
  LoadGenerator(const BenchServeOptions& options, std::vector<Arrival> arrivals, PromptPool pool)
      : options_(options), pool_(std::move(pool)), multi_(curl_multi_init()) {
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(options.max_concurrency));
    for (const Arrival& arrival : arrivals) {
      requests_.push_back(std::make_unique<LoadRequest>());
      requests_.back()->arrival = arrival;
    }
  }
  ~LoadGenerator() {
    for (auto& request : requests_) Release(*request);
    curl_multi_cleanup(multi_);
  }

  void Run() {
    begin_ = absl::Now();
    size_t next = 0, num_done = 0;
    int num_open = 0;
    while (num_done < requests_.size()) {
      while (next < requests_.size() && requests_[next]->arrival.seconds <= Elapsed() &&
             num_open < options_.max_concurrency) {
        StartRequest(*requests_[next++]);
        ++num_open;
      }
      int running = 0;
      curl_multi_perform(multi_, &running);
      const int num_ended = Collect();
      num_open -= num_ended;
      num_done += static_cast<size_t>(num_ended);
      ShowProgress(num_done, num_open);
      curl_multi_poll(multi_, nullptr, 0, PollMilliseconds(next, num_open), nullptr);
    }
    if (isatty(STDERR_FILENO)) std::fputs("\r\033[K", stderr);
    seconds_ = Elapsed();
  }

  double seconds() const { return seconds_; }
  const std::vector<std::unique_ptr<LoadRequest>>& requests() const { return requests_; }

 private:
  double Elapsed() const { return absl::ToDoubleSeconds(absl::Now() - begin_); }

  int PollMilliseconds(size_t next, int num_open) const {
    if (next >= requests_.size() || num_open >= options_.max_concurrency) return 100;
    const double wait = (requests_[next]->arrival.seconds - Elapsed()) * 1000;
    return static_cast<int>(std::clamp(std::ceil(wait), 0.0, 100.0));
  }

  void StartRequest(LoadRequest& request) {
    const bool is_chat = options_.endpoint == "chat";
    request.body = pool_.Body(is_chat, options_.model, request.arrival.input_tokens, request.arrival.output_tokens);
    request.reader = std::make_unique<SseReader>([this, &request](std::string_view data) { OnData(request, data); });
    request.headers = curl_slist_append(nullptr, "Content-Type: application/json");
    request.headers = curl_slist_append(request.headers, "Expect:");
    request.headers = curl_slist_append(request.headers, "Cache-Control: no-store");
    if (!options_.api_key.empty()) {
      request.headers = curl_slist_append(request.headers, ("Authorization: Bearer " + options_.api_key).c_str());
    }
    const std::string url = options_.url + (is_chat ? "/v1/chat/completions" : "/v1/completions");
    CURL* handle = request.handle = curl_easy_init();
    curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, request.headers);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.c_str());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &LoadGenerator::TakeBytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &request);
    curl_easy_setopt(handle, CURLOPT_PRIVATE, &request);
    curl_multi_add_handle(multi_, handle);
  }

  static size_t TakeBytes(char* data, size_t, size_t num_bytes, void* user) {
    auto& request = *static_cast<LoadRequest*>(user);
    curl_easy_getinfo(request.handle, CURLINFO_RESPONSE_CODE, &request.status);
    if (request.status == 200) {
      request.reader->Push({data, num_bytes});
    } else if (request.error.size() < 4096) {
      request.error.append(data, num_bytes);
    }
    return num_bytes;
  }

  void OnData(LoadRequest& request, std::string_view data) {
    const double now = Elapsed();
    if (data == "[DONE]") {
      request.is_done = true;
      return;
    }
    const StreamChunk chunk = ParseStreamChunk(data);
    if (!chunk.error.empty()) request.error = chunk.error;
    if (chunk.num_completion_tokens >= 0) request.num_output_tokens = chunk.num_completion_tokens;
    if (chunk.num_prompt_tokens >= 0) request.num_prompt_tokens = chunk.num_prompt_tokens;
    if (chunk.text.empty()) return;
    ++request.num_chunks;
    if (request.first_token < 0) {
      request.first_token = now;
    } else {
      request.gaps.push_back(now - request.last_token);
    }
    request.last_token = now;
    request.token_times.push_back(now);
  }

  int Collect() {
    int num_ended = 0, num_left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &num_left)) {
      if (message->msg != CURLMSG_DONE) continue;
      LoadRequest* request = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request);
      curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &request->status);
      request->end = Elapsed();
      if (message->data.result != CURLE_OK) request->error = curl_easy_strerror(message->data.result);
      Release(*request);
      ++num_ended;
    }
    return num_ended;
  }

  void Release(LoadRequest& request) {
    if (request.handle == nullptr) return;
    curl_multi_remove_handle(multi_, request.handle);
    curl_easy_cleanup(request.handle);
    curl_slist_free_all(request.headers);
    request.handle = nullptr;
    request.body.clear();
    request.body.shrink_to_fit();
  }

  void ShowProgress(size_t num_done, int num_open) {
    if (!isatty(STDERR_FILENO) || absl::Now() - shown_ < absl::Milliseconds(200)) return;
    shown_ = absl::Now();
    absl::FPrintF(stderr, "\r\033[K%d of %d answered, %d open, %.1f s", num_done, requests_.size(), num_open,
                  Elapsed());
    std::fflush(stderr);
  }

  const BenchServeOptions options_;
  PromptPool pool_;
  CURLM* const multi_;
  std::vector<std::unique_ptr<LoadRequest>> requests_;
  absl::Time begin_;
  absl::Time shown_ = absl::InfinitePast();
  double seconds_ = 0;
};

struct Summary {
  LoadPlot plot;
  int64_t num_good = 0, num_input_tokens = 0, num_output_tokens = 0;
  absl::flat_hash_map<std::string, int> errors;
};

// Latencies count from the time at which a request should have started: waiting for a free connection is waiting.
Summary Summarise(const LoadGenerator& load) {
  Summary summary;
  for (const auto& request : load.requests()) {
    if (request->status != 200 || !request->is_done || request->first_token < 0) {
      const std::string why = !request->error.empty() ? ErrorMessage(request->error) : "the answer was not complete";
      ++summary.errors[absl::StrCat(request->status, " ", why)];
      continue;
    }
    ++summary.num_good;
    summary.num_output_tokens += request->num_output_tokens >= 0 ? request->num_output_tokens : request->num_chunks;
    summary.num_input_tokens +=
        request->num_prompt_tokens >= 0 ? request->num_prompt_tokens : request->arrival.input_tokens;
    LoadPlot& plot = summary.plot;
    plot.first_token_seconds.push_back(request->first_token - request->arrival.seconds);
    plot.total_seconds.push_back(request->end - request->arrival.seconds);
    plot.inter_token_seconds.insert(plot.inter_token_seconds.end(), request->gaps.begin(), request->gaps.end());
    plot.token_times.insert(plot.token_times.end(), request->token_times.begin(), request->token_times.end());
  }
  return summary;
}

std::string PercentilesJson(const std::vector<double>& values) {
  return absl::StrFormat(R"({"mean":%.6f,"p50":%.6f,"p90":%.6f,"p95":%.6f,"p99":%.6f,"max":%.6f})", Mean(values),
                         Percentile(values, 0.5), Percentile(values, 0.9), Percentile(values, 0.95),
                         Percentile(values, 0.99), Percentile(values, 1));
}

void Print(const Summary& summary, const LoadGenerator& load) {
  const double seconds = load.seconds();
  std::vector<double> gaps_ms;
  for (const double gap : summary.plot.inter_token_seconds) gaps_ms.push_back(gap * 1000);
  absl::PrintF("%d of %d requests answered in %.2f s\n", summary.num_good, load.requests().size(), seconds);
  for (const auto& [error, count] : summary.errors) absl::PrintF("  %d x %s\n", count, error);
  absl::PrintF("throughput     %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n",
               static_cast<double>(summary.num_good) / seconds,
               static_cast<double>(summary.num_output_tokens) / seconds,
               static_cast<double>(summary.num_output_tokens + summary.num_input_tokens) / seconds);
  absl::PrintF("first token    %s\n", FormatPercentiles(summary.plot.first_token_seconds, "s"));
  absl::PrintF("between tokens %s\n", FormatPercentiles(gaps_ms, "ms"));
  absl::PrintF("whole request  %s\n", FormatPercentiles(summary.plot.total_seconds, "s"));
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path, std::ios::binary);
  file << text;
  return file ? absl::OkStatus() : absl::UnavailableError("cannot write " + path);
}

std::string Json(const Summary& summary, const LoadGenerator& load) {
  const double seconds = load.seconds();
  return absl::StrFormat(
      R"({"requests":%d,"answered":%d,"seconds":%.4f,"requests_per_second":%.4f,"output_tokens_per_second":%.3f,)"
      R"("input_tokens":%d,"output_tokens":%d,"ttft_seconds":%s,"inter_token_seconds":%s,"e2e_seconds":%s})"
      "\n",
      load.requests().size(), summary.num_good, seconds, static_cast<double>(summary.num_good) / seconds,
      static_cast<double>(summary.num_output_tokens) / seconds, summary.num_input_tokens, summary.num_output_tokens,
      PercentilesJson(summary.plot.first_token_seconds), PercentilesJson(summary.plot.inter_token_seconds),
      PercentilesJson(summary.plot.total_seconds));
}

}  // namespace

absl::StatusOr<std::vector<Arrival>> MakeArrivals(const BenchServeOptions& options) {
  if (options.trace.empty()) {
    return PoissonArrivals(options.num_prompts > 0 ? options.num_prompts : kDefaultLoadRequests, options.request_rate,
                           options.input_tokens, options.output_tokens, options.seed);
  }
  std::ifstream file(options.trace, std::ios::binary);
  if (!file) return absl::NotFoundError("cannot read the trace " + options.trace);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return ParseTrace(text, options.num_prompts, options.trace_speed);
}

int RunBenchServe(const BenchServeOptions& given) {
  BenchServeOptions options = given;
  while (absl::EndsWith(options.url, "/")) options.url.pop_back();
  auto arrivals = MakeArrivals(options);
  if (!arrivals.ok()) return Complain(arrivals.status());
  if (options.model.empty()) {
    auto model = FirstModel(options.url, options.api_key);
    if (!model.ok()) return Complain(model.status());
    options.model = *std::move(model);
  }
  LoadGenerator load(options, *std::move(arrivals), PromptPool(options.url, options.api_key, options.seed));
  load.Run();
  Summary summary = Summarise(load);
  summary.plot.title =
      absl::StrFormat("%s: %d requests, %s", options.model, load.requests().size(),
                      options.trace.empty() ? absl::StrFormat("%g per second", options.request_rate) : options.trace);
  Print(summary, load);
  for (const absl::Status& status :
       {WriteFile(options.output_json, Json(summary, load)), WriteFile(options.output_svg, LoadSvg(summary.plot))}) {
    if (!status.ok()) return Complain(status);
  }
  return summary.errors.empty() ? 0 : 1;
}

}  // namespace millrace
