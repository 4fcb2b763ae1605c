// SPDX-License-Identifier: Apache-2.0
#include "engine/run/runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int32_t kWantSample = -1;
constexpr int32_t kWantEmbedding = -2;

// Backends leave log-probabilities that nobody asked for as they find them.
TokenResult ToTokenResult(const SampleResult& result, int32_t num_top) {
  if (num_top < 0) return {.token = result.token};
  TokenResult token{.token = result.token, .logprob = result.logprob, .rank = result.rank};
  if (num_top > 0) {
    token.top.reserve(static_cast<size_t>(num_top));
    for (int32_t i = 0; i < num_top && static_cast<size_t>(i) < result.top.size(); ++i) {
      const TokenLogprob& top = result.top[static_cast<size_t>(i)];
      if (top.token >= 0) token.top.push_back({.token = top.token, .logprob = top.logprob});
    }
  }
  return token;
}

}  // namespace

Runner::Runner(std::unique_ptr<Model> model, Device& device, const TokenVocabulary* vocabulary)
    : model_(std::move(model)), device_(device) {
  if (vocabulary != nullptr) grammar_masks_ = std::make_unique<GrammarMasks>(*vocabulary);
  const size_t max_rows = static_cast<size_t>(model_->limits().max_rows);
  tokens_.reserve(max_rows);
  positions_.reserve(max_rows);
  slots_.reserve(max_rows);
  bias_storage_.resize(static_cast<size_t>(model_->limits().max_logit_rows));
}

absl::Status Runner::Launch(const StepPlan& plan) {
  MILLRACE_CHECK(num_launched_ - num_collected_ < 2, "at most two steps are in flight");
  const Flight& before = flights_[(num_launched_ + 1) % 2];
  Flight& flight = flights_[num_launched_++ % 2];
  flight.result.step = plan.step;
  flight.result.sequences.assign(plan.sequences.size(), {});
  if (grammar_masks_ != nullptr) grammar_masks_->BeginStep(plan);
  LayOut(plan, before);
  model_->Forward({.tokens = tokens_, .positions = positions_, .slots = slots_, .sequences = sequences_});
  CollectWanted(plan, flight);
  MakeRoom(flight);
  const size_t max_chunk = static_cast<size_t>(model_->limits().max_logit_rows);
  for (size_t begin = 0; begin < flight.wanted.size(); begin += max_chunk) {
    RETURN_IF_ERROR(LaunchChunk(plan, begin, flight));
  }
  model_->EndStep();
  return absl::OkStatus();
}

absl::Status Runner::Collect(StepResult* result) {
  MILLRACE_CHECK(num_collected_ < num_launched_, "only a launched step is collected");
  Flight& flight = flights_[num_collected_++ % 2];
  RETURN_IF_ERROR(model_->CollectStep());
  for (size_t i = 0; i < flight.wanted.size(); ++i) {
    const WantedRow& want = flight.wanted[i];
    if (want.target == kWantEmbedding) continue;
    SequenceResult& sequence = flight.result.sequences[static_cast<size_t>(want.sequence)];
    const SampleResult& found = flight.results[i];
    if (want.target >= 0) {
      sequence.prompt_logprobs.push_back(ToTokenResult(found, want.num_top));
    } else {
      sequence.is_failed = found.is_failed;
      sequence.sampled = ToTokenResult(found, want.num_top);
    }
  }
  std::swap(*result, flight.result);
  return absl::OkStatus();
}

absl::Status Runner::Run(const StepPlan& plan, StepResult* result) {
  RETURN_IF_ERROR(Launch(plan));
  return Collect(result);
}

void Runner::LayOut(const StepPlan& plan, const Flight& before) {
  tokens_.clear();
  positions_.clear();
  slots_.clear();
  sequences_.clear();
  const int32_t page_tokens = model_->limits().page_tokens;
  for (const PlannedSequence& planned : plan.sequences) {
    sequences_.push_back({.first_row = static_cast<int32_t>(tokens_.size()),
                          .num_rows = planned.num_tokens,
                          .context_tokens = planned.first_position,
                          .pages = planned.pages.data()});
    for (int32_t i = 0; i < planned.num_tokens; ++i) {
      const int32_t position = planned.first_position + i;
      tokens_.push_back(planned.tokens[static_cast<size_t>(position)]);
      positions_.push_back(position);
      const int64_t page = planned.pages[static_cast<size_t>(position / page_tokens)];
      slots_.push_back(page * page_tokens + position % page_tokens);
    }
    if (planned.drawn_by < 0) continue;
    const int32_t drawn = before.drawn_by_sequence[static_cast<size_t>(planned.drawn_by)];
    MILLRACE_CHECK(tokens_.back() == kUnknownToken && drawn >= 0, "an unknown token is drawn by the step before");
    tokens_.back() = DrawnToken(drawn);
  }
}

// Embeddings first, then rows to sample, then prompt rows: a chunk calls each op once.
void Runner::CollectWanted(const StepPlan& plan, Flight& flight) {
  flight.wanted.clear();
  flight.drawn_by_sequence.assign(plan.sequences.size(), -1);
  int32_t num_drawn = 0;
  for (const int32_t want : {kWantEmbedding, kWantSample}) {
    int32_t next_row = 0;
    for (size_t s = 0; s < plan.sequences.size(); ++s) {
      const PlannedSequence& planned = plan.sequences[s];
      next_row += planned.num_tokens;
      const int32_t wants = planned.request->kind == Request::Kind::kEmbed ? kWantEmbedding : kWantSample;
      if (!planned.samples || wants != want) continue;
      const int32_t num_top = planned.request->sampling.num_top_logprobs;
      flight.wanted.push_back({next_row - 1, static_cast<int32_t>(s), want, num_top});
      if (want == kWantSample) flight.drawn_by_sequence[s] = num_drawn++;
    }
  }
  int32_t first_row = 0;
  for (size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    const int32_t num_top = planned.request->sampling.num_prompt_logprobs;
    for (int32_t i = 0; num_top >= 0 && i < planned.num_tokens; ++i) {
      const int32_t next = planned.first_position + i + 1;
      if (next >= planned.num_prompt_tokens) break;
      const int32_t target = planned.tokens[static_cast<size_t>(next)];
      flight.wanted.push_back({first_row + i, static_cast<int32_t>(s), target, num_top});
    }
    first_row += planned.num_tokens;
  }
}

void Runner::MakeRoom(Flight& flight) {
  flight.results.assign(flight.wanted.size(), {});
  size_t num_top = 0;
  for (const WantedRow& want : flight.wanted) num_top += static_cast<size_t>(std::max(want.num_top, 0));
  flight.top.assign(num_top, {});
  absl::Span<TokenLogprob> left = absl::MakeSpan(flight.top);
  for (size_t i = 0; i < flight.wanted.size(); ++i) {
    const size_t room = static_cast<size_t>(std::max(flight.wanted[i].num_top, 0));
    flight.results[i].top = left.first(room);
    left.remove_prefix(room);
  }
}

// The wanted rows from `begin` on, as many as logits are computed of at once.
absl::Status Runner::LaunchChunk(const StepPlan& plan, size_t begin, Flight& flight) {
  const size_t max_chunk = static_cast<size_t>(model_->limits().max_logit_rows);
  absl::Span<const WantedRow> wanted = absl::MakeConstSpan(flight.wanted).subspan(begin, max_chunk);
  absl::Span<SampleResult> results = absl::MakeSpan(flight.results).subspan(begin, max_chunk);
  const auto first_sample =
      std::find_if(wanted.begin(), wanted.end(), [](auto& w) { return w.target > kWantEmbedding; });
  const size_t num_embeddings = static_cast<size_t>(first_sample - wanted.begin());
  if (num_embeddings > 0) RETURN_IF_ERROR(Embeddings(wanted.first(num_embeddings), &flight.result));
  wanted.remove_prefix(num_embeddings);
  results.remove_prefix(num_embeddings);
  if (wanted.empty()) return absl::OkStatus();
  chunk_rows_.clear();
  for (const WantedRow& want : wanted) chunk_rows_.push_back(want.row);
  const Matrix logits = model_->Logits(chunk_rows_);
  const auto first_target = std::find_if(wanted.begin(), wanted.end(), [](auto& w) { return w.target >= 0; });
  const size_t num_samples = static_cast<size_t>(first_target - wanted.begin());
  Matrix prompt_logits = logits;
  prompt_logits.data = static_cast<float*>(logits.data) + static_cast<int64_t>(num_samples) * logits.stride;
  prompt_logits.rows = logits.rows - static_cast<int64_t>(num_samples);
  if (prompt_logits.rows > 0) PromptLogprobs(wanted.subspan(num_samples), prompt_logits, results.subspan(num_samples));
  if (num_samples > 0) SampleRows(plan, wanted.first(num_samples), logits, results.first(num_samples));
  return absl::OkStatus();
}

absl::Status Runner::Embeddings(absl::Span<const WantedRow> wanted, StepResult* result) {
  chunk_rows_.clear();
  for (const WantedRow& want : wanted) chunk_rows_.push_back(want.row);
  const Matrix hidden = model_->FinalHidden(chunk_rows_);
  RETURN_IF_ERROR(hidden_.Fetch(hidden, device_));
  for (size_t i = 0; i < wanted.size(); ++i) {
    const float* row = hidden_.row(static_cast<int64_t>(i));
    double norm = 0;
    for (int64_t c = 0; c < hidden.cols; ++c) norm += static_cast<double>(row[c]) * row[c];
    const float scale = norm > 0 ? static_cast<float>(1.0 / std::sqrt(norm)) : 0.0f;
    SequenceResult& sequence = result->sequences[static_cast<size_t>(wanted[i].sequence)];
    sequence.is_failed = !std::isfinite(norm);
    sequence.embedding.resize(static_cast<size_t>(hidden.cols));
    for (int64_t c = 0; c < hidden.cols; ++c) sequence.embedding[static_cast<size_t>(c)] = row[c] * scale;
  }
  return absl::OkStatus();
}

void Runner::PromptLogprobs(absl::Span<const WantedRow> wanted, Matrix logits, absl::Span<SampleResult> results) {
  int32_t max_top = 0;
  targets_.clear();
  for (const WantedRow& want : wanted) {
    targets_.push_back(want.target);
    max_top = std::max(max_top, want.num_top);
  }
  device_.ops().Logprobs({.logits = logits, .targets = targets_, .num_top = max_top, .results = results});
}

SampleRow Runner::MakeSampleRow(const PlannedSequence& planned, int32_t logit_row) {
  const SamplingParams& sampling = planned.request->sampling;
  const size_t num_prompt = static_cast<size_t>(planned.num_prompt_tokens);
  const size_t num_known = static_cast<size_t>(planned.first_position) + static_cast<size_t>(planned.num_tokens);
  MILLRACE_DCHECK(num_known >= num_prompt, "a sequence samples only after its prompt");
  SampleRow row{.row = logit_row,
                .temperature = sampling.temperature,
                .top_k = sampling.top_k,
                .top_p = sampling.top_p,
                .min_p = sampling.min_p,
                .repetition_penalty = sampling.repetition_penalty,
                .presence_penalty = sampling.presence_penalty,
                .frequency_penalty = sampling.frequency_penalty,
                .seed = sampling.seed,
                .position = num_known,
                .prompt_tokens = planned.tokens.subspan(0, num_prompt),
                .output_tokens = planned.tokens.subspan(num_prompt, num_known - num_prompt),
                .num_top_logprobs = sampling.num_top_logprobs};
  std::vector<TokenLogprob>& bias = bias_storage_[static_cast<size_t>(logit_row)];
  bias.clear();
  for (const auto& [token, value] : sampling.logit_bias) bias.push_back({.token = token, .logprob = value});
  row.logit_bias = bias;
  if (planned.request->grammar != nullptr) {
    MILLRACE_CHECK(grammar_masks_ != nullptr, "a grammar needs the vocabulary");
    row.mask = grammar_masks_->Next(planned, row.output_tokens);
  }
  if (static_cast<int32_t>(row.output_tokens.size()) < planned.request->min_new_tokens) {
    row.banned_tokens = planned.request->stop_token_ids;
  }
  return row;
}

void Runner::SampleRows(const StepPlan& plan, absl::Span<const WantedRow> wanted, Matrix logits,
                        absl::Span<SampleResult> results) {
  sample_rows_.clear();
  for (size_t i = 0; i < wanted.size(); ++i) {
    sample_rows_.push_back(
        MakeSampleRow(plan.sequences[static_cast<size_t>(wanted[i].sequence)], static_cast<int32_t>(i)));
  }
  device_.ops().Sample({.logits = logits, .rows = sample_rows_, .results = results});
}

}  // namespace millrace
