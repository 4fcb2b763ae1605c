// SPDX-License-Identifier: Apache-2.0
#include "server/cli/inspect.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/inspect.h"
#include "engine/load/quantize_checkpoint.h"
#include "server/cli/progress.h"
#include "server/load_model.h"

namespace millrace {
namespace {

int Complain(const absl::Status& status) {
  std::fprintf(stderr, "millrace: %s\n", std::string(status.message()).c_str());
  return 1;
}

void Line(const char* name, const std::string& value) { absl::PrintF("  %-18s %s\n", name, value); }

std::string RopeText(const RopeParams& rope) {
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return absl::StrFormat("theta %g", rope.theta);
    case RopeScaling::kLinear:
      return absl::StrFormat("theta %g, linear x%g", rope.theta, rope.factor);
    case RopeScaling::kLlama3:
      return absl::StrFormat("theta %g, llama3 x%g", rope.theta, rope.factor);
    case RopeScaling::kYarn:
      return absl::StrFormat("theta %g, yarn x%g", rope.theta, rope.factor);
  }
  return "";
}

std::string QuantizationText(const CheckpointQuantization& quantization) {
  using Method = CheckpointQuantization::Method;
  const char* name = quantization.method == Method::kGptq       ? "GPTQ"
                     : quantization.method == Method::kAwq      ? "AWQ"
                     : quantization.method == Method::kMillrace ? "millrace"
                                                                : "none";
  if (quantization.method == Method::kNone) return name;
  return absl::StrCat(name, ", ", quantization.bits, " bits, groups of ", quantization.group_size,
                      quantization.is_symmetric ? ", symmetric" : ", with zero points");
}

void PrintInfo(const ModelInfo& info) {
  absl::PrintF("%s\n", info.name);
  Line("source", info.source);
  Line("architecture", info.architecture_name);
  Line("parameters", absl::StrFormat("%.1f million", static_cast<double>(info.num_parameters) / 1e6));
  Line("layers", absl::StrCat(info.num_layers));
  Line("hidden, ffn", absl::StrCat(info.hidden_dim, ", ", info.ffn_dim));
  if (info.experts.num_experts > 0) {
    Line("experts",
         absl::StrCat(info.experts.num_choices, " of ", info.experts.num_experts, ", ffn ", info.experts.ffn_dim));
  }
  Line("heads", absl::StrCat(info.num_heads, " of ", info.head_dim, ", ", info.num_kv_heads, " for keys and values"));
  Line("vocabulary", absl::StrCat(info.vocab_tokens, info.has_tied_embeddings ? ", tied with the output" : ""));
  Line("positions",
       absl::StrCat(info.max_positions,
                    info.window_tokens > 0 ? absl::StrCat(", window of ", info.window_tokens) : std::string()));
  Line("rope", RopeText(info.rope));
  Line("weights", info.weights_name);
  Line("quantisation", QuantizationText(info.quantization));
  Line("end of sequence", absl::StrJoin(info.eos_token_ids, ", "));
}

}  // namespace

int RunInspect(const ServeOptions& serve) {
  auto path = FindModel(serve.model, serve.hub, nullptr);
  if (!path.ok()) return Complain(path.status());
  EngineOptions options = serve.engine;
  options.model_dir = *std::move(path);
  const auto report = InspectModel(options);
  if (!report.ok()) return Complain(report.status());
  PrintInfo(report->info);
  if (!report->memory_status.ok()) return Complain(report->memory_status);
  absl::PrintF("\nMemory plan\n%s\n", report->memory_plan);
  return 0;
}

int RunQuantize(const QuantizeOptions& options) {
  ProgressBar bar(nullptr);
  const auto result = QuantizeCheckpoint(
      options.input, options.output,
      {.quantization = options.format,
       .on_progress = [&bar](std::string_view stage, double fraction) { bar.Show(stage, fraction); }});
  bar.Clear();
  if (!result.ok()) return Complain(result.status());
  const double mib = 1 << 20;
  absl::PrintF("%s: weights %.1f MiB -> %.1f MiB\n", options.output, static_cast<double>(result->input_bytes) / mib,
               static_cast<double>(result->output_bytes) / mib);
  return 0;
}

}  // namespace millrace
