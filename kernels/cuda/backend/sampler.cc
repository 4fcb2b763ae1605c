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
  max_drawn = std::max(limits.max_sequences, limits.max_logit_rows);
  max_told = std::max(limits.max_rows, limits.max_logit_rows);
  max_list_tokens = MaxRowTokens(limits) + 1024 * limits.max_logit_rows;
  max_biases = limits.vocab_tokens + 512 * limits.max_logit_rows;
  mask_words = (limits.vocab_tokens + 31) / 32;
  ArrayLayout arrays;
  rows = arrays.Add<DeviceSampleRow>(max_drawn);
  masks = arrays.Add<uint32_t>(max_drawn * mask_words);
  biases = arrays.Add<float>(max_biases);
  tokens = arrays.Add<int32_t>(max_list_tokens);
  results = arrays.Add<DeviceSampleResult>(max_drawn + max_told);
  top = arrays.Add<DeviceTokenLogprob>((max_drawn + max_told) * kMaxTopLogprobs);
  num_bytes = arrays.num_bytes();
  workspace_bytes = SampleWorkspaceBytes(limits.max_logit_rows, limits.vocab_tokens, max_list_tokens);
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

void Sampler::BeginStep(int side) {
  side_ = side;
  memory_.Choose(side);
  pending_[static_cast<size_t>(side)].clear();
  filled_ = {};
  num_drawn_ = num_told_ = 0;
}

void Sampler::Sample(const SampleArgs& args, CudaStream& stream) {
  MILLRACE_CHECK(args.rows.size() == args.results.size(), "a result for each row");
  MILLRACE_CHECK(num_drawn_ + static_cast<int64_t>(args.rows.size()) <= layout_.max_drawn, "more rows than reserved");
  size_t begin = 0;
  Filled before = filled_;
  SampleFeatures features;
  for (size_t i = 0; i < args.rows.size();) {
    const bool is_full = filled_.num_rows - before.num_rows == limits_.max_logit_rows;
    if (!is_full && Add(args.rows[i], features)) {
      if (++i < args.rows.size()) continue;
    }
    if (i > begin) {
      Launch(args, before, features, stream);
      Download(args.results.subspan(begin, i - begin), num_drawn_, stream);
      num_drawn_ += static_cast<int64_t>(i - begin);
    } else {
      MILLRACE_CHECK(filled_.num_tokens > 0 || filled_.num_biases > 0, "the lists of one row fit");
    }
    if (i < args.rows.size() && !is_full) Restart(stream);
    begin = i;
    before = filled_;
    features = {};
  }
}

void Sampler::Restart(CudaStream& stream) {
  static_cast<void>(stream.Synchronize());
  filled_ = {.num_rows = filled_.num_rows, .num_masks = filled_.num_masks};
}

void Sampler::AppendTokens(absl::Span<const int32_t> tokens) {
  std::copy(tokens.begin(), tokens.end(), memory_.host<int32_t>(layout_.tokens) + filled_.num_tokens);
  filled_.num_tokens += static_cast<int64_t>(tokens.size());
}

// False when the row's lists do not fit beside those that are there.
bool Sampler::Add(const SampleRow& row, SampleFeatures& features) {
  // Longer lists can only repeat themselves.
  const size_t vocab = static_cast<size_t>(limits_.vocab_tokens);
  const auto biased = row.logit_bias.subspan(0, vocab);
  const auto banned = row.banned_tokens.subspan(0, vocab);
  const auto prompt = HasPenalty(row) ? row.prompt_tokens : absl::Span<const int32_t>();
  const auto output = HasPenalty(row) ? row.output_tokens : absl::Span<const int32_t>();
  const size_t num_tokens = biased.size() + banned.size() + prompt.size() + output.size();
  if (filled_.num_tokens + static_cast<int64_t>(num_tokens) > layout_.max_list_tokens) return false;
  if (filled_.num_biases + static_cast<int64_t>(biased.size()) > layout_.max_biases) return false;
  DeviceSampleRow& out = memory_.host<DeviceSampleRow>(layout_.rows)[filled_.num_rows++];
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
         .first_token = static_cast<int32_t>(filled_.num_tokens),
         .num_biased = static_cast<int32_t>(biased.size()),
         .num_banned = static_cast<int32_t>(banned.size()),
         .num_prompt = static_cast<int32_t>(prompt.size()),
         .num_output = static_cast<int32_t>(output.size()),
         .first_bias = static_cast<int32_t>(filled_.num_biases),
         .num_top_logprobs = std::min(row.num_top_logprobs, kMaxTopLogprobs)};
  for (const TokenLogprob& bias : biased) {
    memory_.host<int32_t>(layout_.tokens)[filled_.num_tokens++] = bias.token;
    memory_.host<float>(layout_.biases)[filled_.num_biases++] = bias.logprob;
  }
  AppendTokens(banned);
  AppendTokens(prompt);
  AppendTokens(output);
  if (row.mask != nullptr) {
    out.mask_row = static_cast<int32_t>(filled_.num_masks++);
    std::copy(row.mask, row.mask + layout_.mask_words,
              memory_.host<uint32_t>(layout_.masks) + out.mask_row * layout_.mask_words);
  }
  features.has_filters |= HasFilter(row);
  features.has_logprobs |= row.num_top_logprobs >= 0;
  return true;
}

void Sampler::Launch(const SampleArgs& args, const Filled& begin, SampleFeatures features, CudaStream& stream) {
  const auto upload = [&](size_t array, size_t first, size_t last) {
    memory_.Upload(array + first, array + last, stream);
  };
  const auto bytes = [](int64_t count, size_t each) { return static_cast<size_t>(count) * each; };
  const size_t mask_bytes = bytes(layout_.mask_words, sizeof(uint32_t));
  upload(layout_.rows, bytes(begin.num_rows, sizeof(DeviceSampleRow)),
         bytes(filled_.num_rows, sizeof(DeviceSampleRow)));
  upload(layout_.masks, bytes(begin.num_masks, mask_bytes), bytes(filled_.num_masks, mask_bytes));
  upload(layout_.biases, bytes(begin.num_biases, sizeof(float)), bytes(filled_.num_biases, sizeof(float)));
  upload(layout_.tokens, bytes(begin.num_tokens, sizeof(int32_t)), bytes(filled_.num_tokens, sizeof(int32_t)));
  const int64_t num_rows = filled_.num_rows - begin.num_rows;
  if (features.has_logprobs) ClearTop(num_drawn_, num_rows, stream);
  stream.Keep(LaunchSample({.logits = args.logits,
                            .rows = memory_.device<DeviceSampleRow>(layout_.rows) + begin.num_rows,
                            .num_rows = static_cast<int>(num_rows),
                            .features = features,
                            .tokens = memory_.device<int32_t>(layout_.tokens),
                            .biases = memory_.device<float>(layout_.biases),
                            .masks = memory_.device<uint32_t>(layout_.masks),
                            .results = memory_.device<DeviceSampleResult>(layout_.results) + num_drawn_,
                            .top = memory_.device<DeviceTokenLogprob>(layout_.top) + num_drawn_ * kMaxTopLogprobs,
                            .workspace = workspace_->data(),
                            .is_dependent = stream.overlaps_kernels()},
                           stream.get()),
              "sampling");
}

// Entries that are not written mean: no such token.
void Sampler::ClearTop(int64_t first, int64_t count, CudaStream& stream) {
  const size_t begin = layout_.top + static_cast<size_t>(first * kMaxTopLogprobs) * sizeof(DeviceTokenLogprob);
  std::fill_n(memory_.host<DeviceTokenLogprob>(begin), count * kMaxTopLogprobs, DeviceTokenLogprob{});
  memory_.Upload(begin, begin + static_cast<size_t>(count * kMaxTopLogprobs) * sizeof(DeviceTokenLogprob), stream);
}

void Sampler::Logprobs(const LogprobsArgs& args, CudaStream& stream) {
  const int64_t num_rows = args.logits.rows;
  MILLRACE_CHECK(num_rows <= limits_.max_logit_rows && num_told_ + num_rows <= layout_.max_told &&
                     args.targets.size() == args.results.size(),
                 "a target and a result for each row, within the limits");
  if (filled_.num_tokens + num_rows > layout_.max_list_tokens) Restart(stream);
  const size_t targets = layout_.tokens + static_cast<size_t>(filled_.num_tokens) * sizeof(int32_t);
  AppendTokens(args.targets);
  memory_.Upload(targets, targets + args.targets.size() * sizeof(int32_t), stream);
  const int64_t first = layout_.max_drawn + num_told_;
  ClearTop(first, num_rows, stream);
  stream.Keep(LaunchLogprobs({.logits = args.logits,
                              .targets = memory_.device<int32_t>(targets),
                              .num_top = std::min(args.num_top, kMaxTopLogprobs),
                              .results = memory_.device<DeviceSampleResult>(layout_.results) + first,
                              .top = memory_.device<DeviceTokenLogprob>(layout_.top) + first * kMaxTopLogprobs,
                              .workspace = workspace_->data(),
                              .is_dependent = stream.overlaps_kernels()},
                             stream.get()),
              "log-probabilities");
  Download(args.results, first, stream);
  num_told_ += num_rows;
}

void Sampler::Download(absl::Span<SampleResult> results, int64_t first, CudaStream& stream) {
  const auto download = [&](size_t array, size_t each) {
    const size_t begin = array + static_cast<size_t>(first) * each;
    memory_.Download(begin, begin + results.size() * each, stream);
  };
  download(layout_.results, sizeof(DeviceSampleResult));
  const bool wants_top = std::any_of(results.begin(), results.end(), [](auto& result) { return !result.top.empty(); });
  if (wants_top) download(layout_.top, kMaxTopLogprobs * sizeof(DeviceTokenLogprob));
  pending_[static_cast<size_t>(side_)].push_back({results, first});
}

void Sampler::Collect(int side, const CudaStream& stream) {
  const bool is_usable = stream.first_error().ok();
  for (const Pending& pending : pending_[static_cast<size_t>(side)]) {
    const auto* found = memory_.host_of_side<DeviceSampleResult>(side, layout_.results) + pending.first;
    const auto* top = memory_.host_of_side<DeviceTokenLogprob>(side, layout_.top) + pending.first * kMaxTopLogprobs;
    for (size_t i = 0; i < pending.results.size(); ++i) {
      SampleResult& result = pending.results[i];
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
  pending_[static_cast<size_t>(side)].clear();
}

}  // namespace millrace::cuda
