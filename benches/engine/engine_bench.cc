// SPDX-License-Identifier: Apache-2.0
// The CPU engine on models of random weights: prefill, decode and parallel sequences through the real scheduler and
// runner, as tokens/s and as the share of what this machine can do, measured in the same run.
// Usage: engine_bench [--model DIR] [--quantization none|int8|int4|int4-g32] [--json FILE] [--short]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "benches/kernels/roofline.h"
#include "engine/load/memory_plan.h"
#include "engine/load/model_weights.h"
#include "engine/run/model.h"
#include "engine/run/runner.h"
#include "kernels/device.h"
#include "scheduler/scheduler.h"

namespace millrace {
namespace {

constexpr int32_t kPageTokens = 16;

struct Options {
  std::string model = std::string(MILLRACE_SOURCE_DIR) + "/benches/engine/configs/llama-3.2-1b";
  std::string quantization;
  std::string json_path;
  bool is_short = false;
};

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

struct Loaded {
  std::unique_ptr<Device> device;
  ModelInfo info;
  std::unique_ptr<Runner> runner;
  size_t shared_bytes = 0;    // weights streamed by every decode step
  size_t expert_bytes = 0;    // of all experts
  double flops_a_token = 0;   // of linear layers, the head excluded
  double head_flops = 0;      // of the head, for each token drawn
  bool is_head_int8 = false;  // quantised models keep their head in int8

  // What a decode step of so many sequences reads: of the experts those that some row is expected to choose, were the
  // choices even and independent.
  double ReadGigabytes(int num_sequences) const {
    double share = 0;
    if (info.experts.num_experts > 0) {
      share = 1 - std::pow(1 - static_cast<double>(info.experts.num_choices) / info.experts.num_experts, num_sequences);
    }
    return (static_cast<double>(shared_bytes) + share * static_cast<double>(expert_bytes)) * 1e-9;
  }
};

Loaded Load(const Options& options, int32_t max_step_tokens) {
  Loaded loaded;
  auto device = MakeCpuDevice({});
  Require(device.status());
  loaded.device = std::move(*device);
  const LoadOptions load{.load_format = "dummy", .quantization = options.quantization};
  auto info = ReadModelInfo(options.model, load);
  Require(info.status());
  loaded.info = *info;
  auto weights = LoadWeights(*info, load, *loaded.device);
  Require(weights.status());
  double layer_weights = 0;
  for (const LayerWeights& layer : weights->layers) {
    for (const PackedWeight* weight :
         {layer.qkv.get(), layer.o.get(), layer.gate_up.get(), layer.down.get(), layer.router.get()}) {
      if (weight == nullptr) continue;
      loaded.shared_bytes += weight->num_bytes();
      layer_weights += static_cast<double>(weight->n()) * static_cast<double>(weight->k());
    }
    for (const PackedExperts* experts : {layer.expert_gate_up.get(), layer.expert_down.get()}) {
      if (experts == nullptr) continue;
      loaded.expert_bytes += experts->num_bytes();
      layer_weights +=
          info->experts.num_choices * static_cast<double>(experts->n()) * static_cast<double>(experts->k());
    }
  }
  loaded.shared_bytes += weights->lm_head->num_bytes();
  loaded.flops_a_token = 2 * layer_weights;
  loaded.head_flops = 2 * static_cast<double>(weights->lm_head->n()) * static_cast<double>(weights->lm_head->k());
  loaded.is_head_int8 = weights->lm_head->format() == WeightFormat::kInt8;
  auto model = Model::Create(*info, std::move(*weights),
                             {.max_rows = max_step_tokens,
                              .max_logit_rows = 64,
                              .max_positions = 1024,
                              .num_pages = 600,
                              .page_tokens = kPageTokens},
                             *loaded.device);
  Require(model.status());
  loaded.runner = std::make_unique<Runner>(std::move(*model), *loaded.device);
  return loaded;
}

struct Timing {
  double prefill_seconds = 0;  // until every sequence has its first token
  double decode_seconds = 0;   // the rest
};

double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

Timing RunSequences(Loaded& loaded, int num_sequences, int num_prompt, int num_new, int32_t max_step_tokens) {
  auto scheduler = Scheduler::Create({.num_pages = 600,
                                      .page_tokens = kPageTokens,
                                      .max_sequences = 64,
                                      .max_step_tokens = max_step_tokens,
                                      .max_model_tokens = 1024,
                                      .enable_prefix_caching = false});
  Require(scheduler.status());
  for (int s = 0; s < num_sequences; ++s) {
    Request request{.id = RequestId{static_cast<uint64_t>(s) + 1}, .max_new_tokens = num_new, .ignore_eos = true};
    request.sampling.temperature = 0;
    for (int i = 0; i < num_prompt; ++i)
      request.prompt_tokens.push_back((s * 7919 + i * 131) % loaded.info.vocab_tokens);
    Require((*scheduler)->Add(std::move(request), absl::Now()));
  }
  Timing timing;
  StepResult result;
  int num_started = 0;
  double begin = Now();
  while (!(*scheduler)->Idle()) {
    const StepPlan& plan = (*scheduler)->Plan(absl::Now());
    Require(loaded.runner->Run(plan, &result));
    for (const TokenEvent& event : (*scheduler)->Commit(result, absl::Now())) num_started += event.is_first ? 1 : 0;
    if (timing.prefill_seconds == 0 && num_started == num_sequences) {
      timing.prefill_seconds = Now() - begin;
      begin = Now();
    }
  }
  timing.decode_seconds = Now() - begin;
  return timing;
}

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (std::strcmp(argv[i], "--model") == 0) {
      options.model = value();
    } else if (std::strcmp(argv[i], "--quantization") == 0) {
      options.quantization = value();
    } else if (std::strcmp(argv[i], "--json") == 0) {
      options.json_path = value();
    } else if (std::strcmp(argv[i], "--short") == 0) {
      options.is_short = true;
    } else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return false;
    }
  }
  if (options.quantization == "none") options.quantization.clear();
  return true;
}

// The result lines, printed as they come and kept for the JSON file.
class Report {
 public:
  Report(std::string name, const bench::Roofline& roof) : name_(std::move(name)), roof_(roof) {}

  void Add(const std::string& what, double tokens_per_second, double share, const char* of) {
    std::printf("%-28s %-22s %9.1f tok/s  %5.1f %% of %s\n", name_.c_str(), what.c_str(), tokens_per_second,
                100 * share, of);
    std::fflush(stdout);
    absl::StrAppend(&json_, json_.empty() ? "" : ",\n", "  {\"model\": \"", name_, "\", \"case\": \"", what,
                    "\", \"tokens_per_second\": ", tokens_per_second, ", \"share\": ", share, ", \"of\": \"", of,
                    "\"}");
  }

  void Write(const std::string& path) const {
    std::ofstream(path) << "{\"read_gb_per_s\": " << roof_.read_gb_per_s
                        << ", \"bf16_gflop_per_s\": " << roof_.bf16_gflop_per_s
                        << ", \"f32_gflop_per_s\": " << roof_.f32_gflop_per_s
                        << ", \"int8_gop_per_s\": " << roof_.int8_gop_per_s
                        << ", \"int4_gop_per_s\": " << roof_.int4_gop_per_s << ", \"results\": [\n"
                        << json_ << "\n]}\n";
  }

 private:
  std::string name_;
  bench::Roofline roof_;
  std::string json_;
};

bench::Roofline MeasureRoof() {
  cpu::ThreadPool pool(cpu::AvailableCores());
  const bench::Roofline roof = bench::MeasureRoofline(pool);
  bench::PrintRoofline(roof, pool.num_threads());
  return roof;
}

double PeakFor(const std::string& quantization, const bench::Roofline& roof) {
  if (quantization.empty()) return roof.dense_gflop_per_s();
  return quantization == "int8" ? roof.int8_gop_per_s : roof.int4_gop_per_s;
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) return 2;
  const bench::Roofline roof = MeasureRoof();
  constexpr int32_t kMaxStepTokens = 512;
  Loaded loaded = Load(options, kMaxStepTokens);
  // Seconds a token takes at the arithmetic peak: of a prompt, and drawn.
  const double prompt_seconds = loaded.flops_a_token * 1e-9 / PeakFor(options.quantization, roof);
  const double head_peak = loaded.is_head_int8 ? roof.int8_gop_per_s : roof.dense_gflop_per_s();
  const double drawn_seconds = prompt_seconds + loaded.head_flops * 1e-9 / head_peak;
  Report report(absl::StrCat(loaded.info.name, " ", options.quantization.empty() ? "bf16" : options.quantization),
                roof);
  const int num_runs = options.is_short ? 1 : 3;
  double best_prefill = 1e30, best_decode = 1e30;
  RunSequences(loaded, 1, 64, 2, kMaxStepTokens);  // warm-up
  for (int run = 0; run < num_runs; ++run) {
    best_prefill = std::min(best_prefill, RunSequences(loaded, 1, 512, 1, kMaxStepTokens).prefill_seconds);
    best_decode = std::min(best_decode, RunSequences(loaded, 1, 1, 129, kMaxStepTokens).decode_seconds);
  }
  report.Add("prefill 512", 512 / best_prefill, 512 * prompt_seconds / best_prefill, "arithmetic peak");
  report.Add("decode 128", 128 / best_decode, 128 * loaded.ReadGigabytes(1) / best_decode / roof.read_gb_per_s,
             "read bandwidth");
  for (const int num_sequences : {4, 16, 32}) {
    if (options.is_short && num_sequences != 16) continue;
    const Timing timing = RunSequences(loaded, num_sequences, 128, 65, kMaxStepTokens);
    const double decoded = num_sequences * 64.0;
    report.Add(absl::StrCat(num_sequences, " sequences decode"), decoded / timing.decode_seconds,
               std::max(64.0 * loaded.ReadGigabytes(num_sequences) / timing.decode_seconds / roof.read_gb_per_s,
                        decoded * drawn_seconds / timing.decode_seconds),
               "the nearer roof");
    const double prompts = num_sequences * 128.0;
    report.Add(absl::StrCat(num_sequences, " sequences prefill"), prompts / timing.prefill_seconds,
               prompts * prompt_seconds / timing.prefill_seconds, "arithmetic peak");
  }
  if (!options.json_path.empty()) report.Write(options.json_path);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc, argv); }
