// SPDX-License-Identifier: Apache-2.0
// Steps of a whole model of random weights on a device, through the real scheduler and step loop: decoding of some
// sequences at some context, and prompts computed. Prints JSON lines with what a step took, how long the host waited
// for it, and what a perfect device would have had to read and to multiply; benches/cuda/goals.py turns them into
// shares of the roofs measured in the same run. Usage: step_bench [--device cpu|cuda] [--model DIR] [--quantization
// none|int8|int4] [--kv bf16|int8] [--layers N]
//                   [--cases decode:SEQUENCES:CONTEXT,prefill:TOKENS,...]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "engine/load/model_weights.h"
#include "engine/run/model.h"
#include "engine/run/runner.h"
#include "engine/run/step_loop.h"
#include "kernels/device.h"
#include "scheduler/scheduler.h"

namespace millrace {
namespace {

constexpr int32_t kPageTokens = 16;
constexpr int32_t kStepTokens = 2048;
constexpr int32_t kNewTokens = 64;     // drawn by each sequence that decodes
constexpr double kLateSeconds = 2e-6;  // a step waited for no longer was over before the host asked

struct BenchCase {
  bool is_decode = false;
  int32_t num_sequences = 1;
  int32_t num_tokens = 0;  // context while decoding, or the prompt
};

struct Options {
  std::string device = "cuda";
  std::string model = std::string(MILLRACE_SOURCE_DIR) + "/benches/engine/configs/llama-3.1-8b";
  std::string quantization;
  DType kv_dtype = DType::kBF16;
  int num_layers = 0;  // 0: all
  std::vector<BenchCase> cases = {{true, 1, 1024},   {true, 32, 1024}, {true, 128, 1024},
                                  {true, 256, 1024}, {false, 1, 2048}, {false, 1, 8192}};
};

template <typename T>
T OrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "step_bench: %s\n", value.status().ToString().c_str());
  std::exit(absl::IsNotFound(value.status()) ? 77 : 1);  // 77: what it needs is not here
}
void OrExit(const absl::Status& status) { OrExit(status.ok() ? absl::StatusOr<int>(0) : absl::StatusOr<int>(status)); }

bool ParseCases(const std::string& text, std::vector<BenchCase>& cases) {
  cases.clear();
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::vector<std::string> parts = absl::StrSplit(word, ':');
    BenchCase one{.is_decode = parts[0] == "decode"};
    const bool is_right = one.is_decode ? parts.size() == 3 && absl::SimpleAtoi(parts[1], &one.num_sequences)
                                        : parts.size() == 2 && parts[0] == "prefill";
    if (!is_right || !absl::SimpleAtoi(parts.back(), &one.num_tokens) || one.num_tokens < 1 || one.num_sequences < 1) {
      return false;
    }
    cases.push_back(one);
  }
  return true;
}

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--device") {
      options.device = value;
    } else if (name == "--model") {
      options.model = value;
    } else if (name == "--quantization") {
      options.quantization = value == "none" ? "" : value;
    } else if (name == "--kv") {
      options.kv_dtype = value == "int8" ? DType::kI8 : DType::kBF16;
    } else if (name != "--layers" ? name != "--cases" || !ParseCases(value, options.cases)
                                  : !absl::SimpleAtoi(value, &options.num_layers)) {
      std::fprintf(stderr, "step_bench: %s %s is not to be understood\n", name.c_str(), value.c_str());
      return false;
    }
  }
  return argc % 2 == 1;
}

// What a step must do at least.
struct Needs {
  double weight_bytes = 0;      // read by every step
  double kv_bytes_a_token = 0;  // over all layers
  double layer_flops = 0;       // of a row, in the format of the layers
  double head_flops = 0;        // of a drawn token
  double attention_flops = 0;   // of a row for each token it sees
};

Needs NeedsOf(const ModelInfo& info, const ModelWeights& weights, DType kv_dtype) {
  Needs needs;
  for (const LayerWeights& layer : weights.layers) {
    for (const PackedWeight* weight : {layer.qkv.get(), layer.o.get(), layer.gate_up.get(), layer.down.get()}) {
      if (weight == nullptr) continue;
      needs.weight_bytes += static_cast<double>(weight->num_bytes());
      needs.layer_flops += 2.0 * static_cast<double>(weight->n()) * static_cast<double>(weight->k());
    }
  }
  needs.weight_bytes += static_cast<double>(weights.lm_head->num_bytes());
  needs.head_flops = 2.0 * static_cast<double>(weights.lm_head->n()) * static_cast<double>(weights.lm_head->k());
  needs.kv_bytes_a_token = static_cast<double>(KvPageBytes(info, kPageTokens, kv_dtype)) / kPageTokens;
  needs.attention_flops = 4.0 * info.num_heads * info.head_dim * info.num_layers;
  return needs;
}

struct Loaded {
  ModelInfo info;
  std::unique_ptr<Device> device;
  Needs needs;
  std::unique_ptr<Runner> runner;
  SchedulerConfig config;
};

std::unique_ptr<Device> OpenDevice(const std::string& name) {
  return name == "cpu" ? OrExit(MakeCpuDevice({})) : OrExit(MakeCudaDevice({}));
}

Loaded Load(const Options& options) {
  Loaded loaded{.device = OpenDevice(options.device)};
  const LoadOptions load{.dtype = "bfloat16", .load_format = "dummy", .quantization = options.quantization};
  loaded.info = OrExit(ReadModelInfo(options.model, load));
  if (options.num_layers > 0) loaded.info.num_layers = options.num_layers;
  int32_t most_sequences = 1, most_tokens = 1, num_pages = 1;
  for (const BenchCase& bench : options.cases) {
    const int32_t tokens = bench.num_tokens + kNewTokens + kPageTokens;
    most_sequences = std::max(most_sequences, bench.num_sequences);
    most_tokens = std::max(most_tokens, tokens);
    num_pages = std::max(num_pages, bench.num_sequences * (tokens / kPageTokens + 1));
  }
  loaded.config = {.num_pages = num_pages,
                   .page_tokens = kPageTokens,
                   .max_sequences = most_sequences,
                   .max_step_tokens = kStepTokens,
                   .max_model_tokens = most_tokens,
                   .max_queued_tokens = int64_t{1} << 30,
                   .enable_prefix_caching = false,
                   .max_chunk_tokens = kStepTokens};
  ModelWeights weights = OrExit(LoadWeights(loaded.info, load, *loaded.device));
  loaded.needs = NeedsOf(loaded.info, weights, options.kv_dtype);
  std::unique_ptr<Model> model = OrExit(Model::Create(loaded.info, std::move(weights),
                                                      {.max_rows = kStepTokens,
                                                       .max_logit_rows = most_sequences,
                                                       .max_sequences = most_sequences,
                                                       .max_positions = most_tokens,
                                                       .num_pages = num_pages,
                                                       .page_tokens = kPageTokens,
                                                       .kv_dtype = options.kv_dtype},
                                                      *loaded.device));
  OrExit(model->RecordSteps());
  loaded.runner = std::make_unique<Runner>(std::move(model), *loaded.device);
  return loaded;
}

// Of one run: seconds between the ends of steps that follow each other, all of them with every sequence decoding.
struct Measured {
  std::vector<double> step_seconds, wait_seconds;
  double prefill_seconds = 0;  // from the first launch to the end of the last step with more than one row a sequence
};

// Wraps the runner's functions with clocks; used by the loop's thread.
class Clocks {
 public:
  Clocks(Runner& runner, int num_sequences) : runner_(runner), num_sequences_(num_sequences) {}

  StepFunctions functions(StepOrder order) {
    return {.launch =
                [this](const StepPlan& plan) {
                  if (num_launched_++ == 0) begin_ = Now();
                  const bool is_decode =
                      plan.num_rows == num_sequences_ && static_cast<int>(plan.sequences.size()) == num_sequences_;
                  flights_.push_back(is_decode);
                  return runner_.Launch(plan);
                },
            .collect =
                [this](StepResult* result) {
                  const double asked = Now();
                  const absl::Status status = runner_.Collect(result);
                  Note(asked, Now());
                  return status;
                },
            .order = order};
  }
  Measured take() { return std::move(measured_); }

 private:
  static double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }
  void Note(double asked, double end) {
    const bool is_decode = flights_.front();
    flights_.pop_front();
    if (!is_decode) measured_.prefill_seconds = end - begin_;
    if (is_decode && was_decode_) {
      measured_.step_seconds.push_back(end - last_end_);
      measured_.wait_seconds.push_back(end - asked);
    }
    was_decode_ = is_decode;
    last_end_ = end;
  }

  Runner& runner_;
  const int num_sequences_;
  int num_launched_ = 0;
  double begin_ = 0, last_end_ = 0;
  bool was_decode_ = false;
  std::deque<bool> flights_;
  Measured measured_;
};

Measured RunCase(Loaded& loaded, const BenchCase& bench) {
  Clocks clocks(*loaded.runner, bench.num_sequences);
  const StepOrder order = loaded.device->shares_host_memory() ? StepOrder::kPlain : StepOrder::kAhead;
  absl::BlockingCounter left(bench.num_sequences);
  std::vector<RequestHandle> handles;
  {
    StepLoop loop(OrExit(Scheduler::Create(loaded.config)), loaded.config, clocks.functions(order),
                  [](const StepStats&) {});
    for (int s = 0; s < bench.num_sequences; ++s) {
      Request request{.max_new_tokens = bench.is_decode ? kNewTokens : 1, .ignore_eos = true};
      request.sampling.temperature = 0;
      for (int32_t i = 0; i < bench.num_tokens; ++i) {
        request.prompt_tokens.push_back((s * 7919 + i * 131) % loaded.info.vocab_tokens);
      }
      handles.push_back(OrExit(loop.Submit(std::move(request), [&left](TokenEvent&& event) {
        if (event.finish != FinishReason::kNone) left.DecrementCount();
      })));
    }
    loop.Start();
    left.Wait();
    for (RequestHandle& handle : handles) handle.Disarm();
  }
  return clocks.take();
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void Report(const Options& options, const Loaded& loaded, const BenchCase& bench, const Measured& measured) {
  const Needs& needs = loaded.needs;
  const double sequences = bench.num_sequences, tokens = bench.num_tokens;
  double bytes = needs.weight_bytes, flops = 0, head_flops = needs.head_flops * sequences, attention_flops = 0;
  double seconds = measured.prefill_seconds;
  if (bench.is_decode) {
    // The tokens drawn so far are seen too: half of them on average.
    bytes += sequences * (tokens + kNewTokens / 2.0) * needs.kv_bytes_a_token;
    flops = sequences * needs.layer_flops;
    seconds = Median(measured.step_seconds);
  } else {
    flops = tokens * needs.layer_flops;
    attention_flops = tokens * tokens / 2 * needs.attention_flops;  // a token sees those before it
  }
  const auto is_late = [](double wait) { return wait < kLateSeconds; };
  const auto num_late = std::count_if(measured.wait_seconds.begin(), measured.wait_seconds.end(), is_late);
  const double num_steps = std::max<double>(1, static_cast<double>(measured.wait_seconds.size()));
  std::printf(
      "{\"what\": \"engine %s\", \"model\": \"%s\", \"layers\": %d, \"weights\": \"%s\", \"kv\": \"%s\", "
      "\"sequences\": %d, \"tokens\": %d, \"us\": %.1f, \"tokens_per_second\": %.1f, \"host_waits_us\": %.1f, "
      "\"late_share\": %.3f, \"bytes\": %.6g, \"flops\": %.6g, \"head_flops\": %.6g, \"attention_flops\": %.6g}\n",
      bench.is_decode ? "decode" : "prefill", loaded.info.name.c_str(), loaded.info.num_layers,
      options.quantization.empty() ? "bf16" : options.quantization.c_str(),
      options.kv_dtype == DType::kI8 ? "int8" : "bf16", bench.num_sequences, bench.num_tokens, seconds * 1e6,
      (bench.is_decode ? sequences : tokens) / seconds, Median(measured.wait_seconds) * 1e6,
      static_cast<double>(num_late) / num_steps, bytes, flops, head_flops, attention_flops);
  std::fflush(stdout);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::Options options;
  if (!millrace::ParseOptions(argc, argv, options)) return 2;
  millrace::Loaded loaded = millrace::Load(options);
  // Loads what is loaded lazily, and tells the allocators.
  millrace::RunCase(loaded, {.is_decode = true, .num_sequences = 1, .num_tokens = 32});
  for (const millrace::BenchCase& bench : options.cases) {
    millrace::Report(options, loaded, bench, millrace::RunCase(loaded, bench));
  }
  return 0;
}
