// SPDX-License-Identifier: Apache-2.0
#include "server/cli/bench_offline.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>

#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "engine/load/model_info.h"
#include "server/cli/percentiles.h"
#include "server/cli/progress.h"
#include "server/load_model.h"

namespace millrace {
namespace {

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
  return 1;
}

struct BatchResult {
  double seconds = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  std::vector<double> first_token_seconds;  // per request
};

constexpr absl::Duration kShowInterval = absl::Milliseconds(200);

// Per request: when its first token came, and how many there were. Written by the engine's thread.
struct Progress {
  absl::Time first_token = absl::InfinitePast();
  int32_t num_tokens = 0;
  absl::Notification is_over;
};

struct Batch {
  explicit Batch(size_t num_requests) : requests(num_requests) {}
  std::vector<Progress> requests;
  std::atomic<int64_t> num_generated{0};
};

std::vector<int32_t> RandomPrompt(const ModelInfo& model, int32_t num_tokens, std::mt19937_64& random) {
  std::uniform_int_distribution<int32_t> token(0, model.vocab_tokens - 1);
  std::vector<int32_t> tokens(static_cast<size_t>(num_tokens));
  for (int32_t& id : tokens) id = token(random);
  return tokens;
}

// All requests at once, each to its full length; returns when the last one has ended. A terminal sees how far it is.
absl::StatusOr<BatchResult> RunBatch(Engine& engine, const BenchOfflineOptions& options, std::mt19937_64& random,
                                     const std::string& stage) {
  const auto num_requests = static_cast<size_t>(options.num_prompts);
  // The sinks own it as well: after a refused Submit those before it are still called until they are cancelled.
  const auto batch = std::make_shared<Batch>(num_requests);
  std::vector<RequestHandle> handles;
  const absl::Time begin = absl::Now();
  for (size_t i = 0; i < num_requests; ++i) {
    Request request;
    request.prompt_tokens = RandomPrompt(engine.model(), options.input_tokens, random);
    request.sampling.temperature = 0;
    request.max_new_tokens = options.output_tokens;
    request.ignore_eos = true;
    auto handle = engine.Submit(std::move(request), [batch, i](TokenEvent&& event) {
      Progress& mine = batch->requests[i];
      if (mine.num_tokens == 0 && !event.tokens.empty()) mine.first_token = absl::Now();
      mine.num_tokens += static_cast<int32_t>(event.tokens.size());
      batch->num_generated += static_cast<int64_t>(event.tokens.size());
      if (event.finish != FinishReason::kNone) mine.is_over.Notify();
    });
    if (!handle.ok()) return handle.status();
    handles.push_back(*std::move(handle));
  }
  ProgressBar bar(nullptr);
  bar.Show(stage, 0);
  const double num_expected = static_cast<double>(options.num_prompts) * options.output_tokens;
  for (const Progress& request : batch->requests) {
    while (!request.is_over.WaitForNotificationWithTimeout(kShowInterval)) {
      bar.Show(stage, static_cast<double>(batch->num_generated) / num_expected);
    }
  }
  bar.Clear();
  BatchResult result{.seconds = absl::ToDoubleSeconds(absl::Now() - begin)};
  for (const Progress& request : batch->requests) {
    result.num_prompt_tokens += options.input_tokens;
    result.num_output_tokens += request.num_tokens;
    result.first_token_seconds.push_back(absl::ToDoubleSeconds(request.first_token - begin));
  }
  return result;
}

absl::StatusOr<std::unique_ptr<Engine>> Load(const ServeOptions& serve, const BenchOfflineOptions& options) {
  EngineOptions engine = serve.engine;
  // The bench asks for everything at once; its own queue must not refuse it.
  engine.scheduler.max_queued_requests = std::max(engine.scheduler.max_queued_requests, options.num_prompts);
  engine.scheduler.max_queued_tokens =
      std::max<int64_t>(engine.scheduler.max_queued_tokens, int64_t{options.num_prompts} * options.input_tokens);
  return LoadModel(serve.model, serve.hub, std::move(engine), nullptr);
}

int WriteFile(const std::string& path, const std::string& text) {
  if (path.empty()) return 0;
  std::ofstream file(path);
  file << text << "\n";
  return file ? 0 : Complain(absl::UnavailableError("cannot write " + path));
}

}  // namespace

int RunBenchThroughput(const ServeOptions& serve, const BenchOfflineOptions& options) {
  auto engine = Load(serve, options);
  if (!engine.ok()) return Complain(engine.status());
  std::mt19937_64 random(options.seed);
  BenchOfflineOptions warm_up = options;
  warm_up.num_prompts = 1;
  warm_up.output_tokens = std::min(4, options.output_tokens);
  if (auto warmed = RunBatch(**engine, warm_up, random, "warming up"); !warmed.ok()) return Complain(warmed.status());
  const auto result = RunBatch(**engine, options, random, "generating");
  if (!result.ok()) return Complain(result.status());
  const double requests = options.num_prompts / result->seconds;
  const double output = static_cast<double>(result->num_output_tokens) / result->seconds;
  const double total = static_cast<double>(result->num_output_tokens + result->num_prompt_tokens) / result->seconds;
  absl::PrintF("%d requests of %d + %d tokens in %.2f s\n", options.num_prompts, options.input_tokens,
               options.output_tokens, result->seconds);
  absl::PrintF("throughput  %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n", requests, output, total);
  absl::PrintF("first token %s\n", FormatPercentiles(result->first_token_seconds, "s"));
  return WriteFile(options.output_json,
                   absl::StrFormat(R"({"requests":%d,"input_tokens":%d,"output_tokens":%d,"seconds":%.6f,)"
                                   R"("requests_per_second":%.4f,"output_tokens_per_second":%.3f,)"
                                   R"("tokens_per_second":%.3f})",
                                   options.num_prompts, options.input_tokens, options.output_tokens, result->seconds,
                                   requests, output, total));
}

int RunBenchLatency(const ServeOptions& serve, const BenchOfflineOptions& options) {
  auto engine = Load(serve, options);
  if (!engine.ok()) return Complain(engine.status());
  std::mt19937_64 random(options.seed);
  std::vector<double> totals, firsts, per_token;
  for (int run = -1; run < options.num_runs; ++run) {
    const std::string stage = run < 0 ? "warming up" : absl::StrFormat("run %d of %d", run + 1, options.num_runs);
    const auto result = RunBatch(**engine, options, random, stage);
    if (!result.ok()) return Complain(result.status());
    if (run < 0) continue;  // the first warms caches up
    const double first = *std::max_element(result->first_token_seconds.begin(), result->first_token_seconds.end());
    totals.push_back(result->seconds);
    firsts.push_back(first);
    if (options.output_tokens > 1) per_token.push_back((result->seconds - first) / (options.output_tokens - 1) * 1000);
  }
  absl::PrintF("batch of %d, %d + %d tokens, %d runs\n", options.num_prompts, options.input_tokens,
               options.output_tokens, options.num_runs);
  absl::PrintF("whole batch %s\n", FormatPercentiles(totals, "s"));
  absl::PrintF("first token %s\n", FormatPercentiles(firsts, "s"));
  absl::PrintF("per token   %s\n", FormatPercentiles(per_token, "ms"));
  return WriteFile(options.output_json,
                   absl::StrFormat(R"({"batch_size":%d,"input_tokens":%d,"output_tokens":%d,"median_seconds":%.6f,)"
                                   R"("median_first_token_seconds":%.6f,"median_token_milliseconds":%.4f})",
                                   options.num_prompts, options.input_tokens, options.output_tokens,
                                   Percentile(totals, 0.5), Percentile(firsts, 0.5), Percentile(per_token, 0.5)));
}

}  // namespace millrace
