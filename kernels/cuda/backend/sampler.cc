// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/sampler.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

bool HasPenalty(const SampleRow& row) {
  return row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}

bool HasFilter(const SampleRow& row) {
  return row.temperature > 0 && (row.top_k > 0 || row.top_p < 1 || row.min_p > 0);
}

// What a row's lists hold at most: all the vocabulary biased and banned, and every token of the longest sequence.
int64_t MaxRowTokens(const StepLimits& limits) {
  return 2 * limits.vocab_tokens + limits.max_sequence_pages * limits.page_tokens;
}

}  // namespace

Sampler::Layout::Layout(const StepLimits& limits) {
  const int64_t max_rows = limits.max_logit_rows;
  max_list_tokens = MaxRowTokens(limits) + 1024 * max_rows;
  max_biases = limits.vocab_tokens + 512 * max_rows;
  mask_words = (limits.vocab_tokens + 31) / 32;
  ArrayLayout arrays;
  rows = arrays.Add<DeviceSampleRow>(max_rows);
  masks = arrays.Add<uint32_t>(max_rows * mask_words);
  biases = arrays.Add<float>(max_biases);
  tokens = arrays.Add<int32_t>(max_list_tokens);
  results = arrays.Add<DeviceSampleResult>(max_rows);
  top = arrays.Add<DeviceTokenLogprob>(max_rows * kMaxTopLogprobs);
  num_bytes = arrays.num_bytes();
  workspace_bytes = SampleWorkspaceBytes(max_rows, limits.vocab_tokens, max_list_tokens);
}

size_t Sampler::NumBytes(const StepLimits& limits) {
  const Layout layout(limits);
  return layout.num_bytes + layout.workspace_bytes;
}

absl::Status Sampler::Reserve(const StepLimits& limits, CudaStream& stream) {
  if (limits.vocab_tokens > kMaxSampledVocab) {
    return absl::InvalidArgumentError("the CUDA backend samples from vocabularies of at most 524288 tokens");
  }
  limits_ = limits;
  layout_ = Layout(limits);
  RETURN_IF_ERROR(memory_.Reserve(layout_.num_bytes, stream));
  ASSIGN_OR_RETURN(workspace_, DeviceMemory::Allocate(layout_.workspace_bytes, stream));
  return absl::OkStatus();
}

void Sampler::Sample(const SampleArgs& args, CudaStream& stream) {
  MILLRACE_CHECK(args.rows.size() == args.results.size(), "a result for each row");
  size_t begin = 0;
  Filled filled;
  for (size_t i = 0; i < args.rows.size();) {
    if (filled.num_rows < limits_.max_logit_rows && Add(args.rows[i], filled)) {
      ++i;
      if (i < args.rows.size()) continue;
    }
    MILLRACE_CHECK(i > begin, "the lists of one row fit");
    Launch(args, filled, stream);
    Collect(args.results.subspan(begin, i - begin), stream);
    begin = i;
    filled = {};
  }
}

void Sampler::AppendTokens(absl::Span<const int32_t> tokens, Filled& filled) {
  std::copy(tokens.begin(), tokens.end(), memory_.host<int32_t>(layout_.tokens) + filled.num_tokens);
  filled.num_tokens += static_cast<int64_t>(tokens.size());
}

// False when the row's lists do not fit beside those that are there.
bool Sampler::Add(const SampleRow& row, Filled& filled) {
  // Longer lists can only repeat themselves.
  const size_t vocab = static_cast<size_t>(limits_.vocab_tokens);
  const auto biased = row.logit_bias.subspan(0, vocab);
  const auto banned = row.banned_tokens.subspan(0, vocab);
  const auto prompt = HasPenalty(row) ? row.prompt_tokens : absl::Span<const int32_t>();
  const auto output = HasPenalty(row) ? row.output_tokens : absl::Span<const int32_t>();
  const size_t num_tokens = biased.size() + banned.size() + prompt.size() + output.size();
  if (filled.num_tokens + static_cast<int64_t>(num_tokens) > layout_.max_list_tokens) return false;
  if (filled.num_biases + static_cast<int64_t>(biased.size()) > layout_.max_biases) return false;
  DeviceSampleRow& out = memory_.host<DeviceSampleRow>(layout_.rows)[filled.num_rows++];
  out = {.row = row.row,
         .temperature = row.temperature,
         .top_k = row.top_k,
         .top_p = row.top_p,
         .min_p = row.min_p,
         .repetition_penalty = row.repetition_penalty,
         .presence_penalty = row.presence_penalty,
         .frequency_penalty = row.frequency_penalty,
         .seed = row.seed,
         .position = row.position,
         .first_token = static_cast<int32_t>(filled.num_tokens),
         .num_biased = static_cast<int32_t>(biased.size()),
         .num_banned = static_cast<int32_t>(banned.size()),
         .num_prompt = static_cast<int32_t>(prompt.size()),
         .num_output = static_cast<int32_t>(output.size()),
         .first_bias = static_cast<int32_t>(filled.num_biases),
         .num_top_logprobs = std::min(row.num_top_logprobs, kMaxTopLogprobs)};
  for (const TokenLogprob& bias : biased) {
    memory_.host<int32_t>(layout_.tokens)[filled.num_tokens++] = bias.token;
    memory_.host<float>(layout_.biases)[filled.num_biases++] = bias.logprob;
  }
  AppendTokens(banned, filled);
  AppendTokens(prompt, filled);
  AppendTokens(output, filled);
  if (row.mask != nullptr) {
    out.mask_row = filled.num_masks++;
    std::copy(row.mask, row.mask + layout_.mask_words,
              memory_.host<uint32_t>(layout_.masks) + out.mask_row * layout_.mask_words);
  }
  filled.features.has_filters |= HasFilter(row);
  filled.features.has_logprobs |= row.num_top_logprobs >= 0;
  return true;
}

void Sampler::Launch(const SampleArgs& args, const Filled& filled, CudaStream& stream) {
  const auto upload = [&](size_t offset, size_t num_bytes) { memory_.Upload(offset, offset + num_bytes, stream); };
  upload(layout_.rows, static_cast<size_t>(filled.num_rows) * sizeof(DeviceSampleRow));
  upload(layout_.masks, static_cast<size_t>(filled.num_masks * layout_.mask_words) * sizeof(uint32_t));
  upload(layout_.biases, static_cast<size_t>(filled.num_biases) * sizeof(float));
  upload(layout_.tokens, static_cast<size_t>(filled.num_tokens) * sizeof(int32_t));
  // Entries that are not written mean: no such token.
  std::fill_n(memory_.host<DeviceTokenLogprob>(layout_.top), filled.num_rows * kMaxTopLogprobs, DeviceTokenLogprob{});
  if (filled.features.has_logprobs) {
    upload(layout_.top, static_cast<size_t>(filled.num_rows) * kMaxTopLogprobs * sizeof(DeviceTokenLogprob));
  }
  stream.Keep(LaunchSample({.logits = args.logits,
                            .rows = memory_.device<DeviceSampleRow>(layout_.rows),
                            .num_rows = filled.num_rows,
                            .features = filled.features,
                            .tokens = memory_.device<int32_t>(layout_.tokens),
                            .biases = memory_.device<float>(layout_.biases),
                            .masks = memory_.device<uint32_t>(layout_.masks),
                            .results = memory_.device<DeviceSampleResult>(layout_.results),
                            .top = memory_.device<DeviceTokenLogprob>(layout_.top),
                            .workspace = workspace_->data()},
                           stream.get()),
              "sampling");
}

void Sampler::Logprobs(const LogprobsArgs& args, CudaStream& stream) {
  const int64_t num_rows = args.logits.rows;
  MILLRACE_CHECK(num_rows <= limits_.max_logit_rows && args.targets.size() == args.results.size(),
                 "a target and a result for each row, within the limits");
  // The lists of sampling are not in use here: the targets take their place.
  std::copy(args.targets.begin(), args.targets.end(), memory_.host<int32_t>(layout_.tokens));
  memory_.Upload(layout_.tokens, layout_.tokens + args.targets.size() * sizeof(int32_t), stream);
  const size_t top_bytes = static_cast<size_t>(num_rows) * kMaxTopLogprobs * sizeof(DeviceTokenLogprob);
  std::fill_n(memory_.host<DeviceTokenLogprob>(layout_.top), num_rows * kMaxTopLogprobs, DeviceTokenLogprob{});
  memory_.Upload(layout_.top, layout_.top + top_bytes, stream);
  stream.Keep(LaunchLogprobs({.logits = args.logits,
                              .targets = memory_.device<int32_t>(layout_.tokens),
                              .num_top = std::min(args.num_top, kMaxTopLogprobs),
                              .results = memory_.device<DeviceSampleResult>(layout_.results),
                              .top = memory_.device<DeviceTokenLogprob>(layout_.top),
                              .workspace = workspace_->data()},
                             stream.get()),
              "log-probabilities");
  Collect(args.results, stream);
}

void Sampler::Collect(absl::Span<SampleResult> results, CudaStream& stream) {
  memory_.Download(layout_.results, layout_.results + results.size() * sizeof(DeviceSampleResult), stream);
  const bool wants_top = std::any_of(results.begin(), results.end(), [](auto& result) { return !result.top.empty(); });
  if (wants_top) {
    memory_.Download(layout_.top, layout_.top + results.size() * kMaxTopLogprobs * sizeof(DeviceTokenLogprob), stream);
  }
  const bool is_usable = stream.Synchronize().ok();
  const DeviceSampleResult* found = memory_.host<DeviceSampleResult>(layout_.results);
  const DeviceTokenLogprob* top = memory_.host<DeviceTokenLogprob>(layout_.top);
  for (size_t i = 0; i < results.size(); ++i) {
    SampleResult& result = results[i];
    result.is_failed = !is_usable || found[i].is_failed != 0;
    if (!is_usable) continue;
    result.token = found[i].token;
    result.logprob = found[i].logprob;
    result.rank = found[i].rank;
    const size_t num_top = std::min(result.top.size(), static_cast<size_t>(kMaxTopLogprobs));
    for (size_t t = 0; t < num_top; ++t) {
      const DeviceTokenLogprob& entry = top[i * kMaxTopLogprobs + t];
      result.top[t] = {.token = entry.token, .logprob = entry.logprob};
    }
  }
}

}  // namespace millrace::cuda
