// SPDX-License-Identifier: Apache-2.0
#include "server/api/answer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/wire/api_error.h"

namespace millrace {

absl::Status FinishStatus(FinishReason finish) {
  switch (finish) {
    case FinishReason::kError:
      return absl::InternalError("the engine could not compute this request");
    case FinishReason::kDeadline:
      return absl::DeadlineExceededError("the request's deadline passed");
    case FinishReason::kCancelled:
      return absl::CancelledError("the request was cancelled");
    default:
      return absl::OkStatus();
  }
}

namespace {

std::vector<HttpHeader> CacheHeaders(const CacheReport& report) {
  std::vector<HttpHeader> headers;
  if (report.outcome == CacheOutcome::kNone) return headers;
  headers.push_back({"x-millrace-cache", std::string(CacheOutcomeName(report.outcome))});
  if (report.outcome == CacheOutcome::kHit) {
    headers.push_back({"age", absl::StrCat(absl::ToInt64Seconds(report.age))});
  }
  return headers;
}

}  // namespace

Answer::Answer(AnswerArgs args) : args_(std::move(args)) {}

void Answer::Refuse(const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    is_gone_ = true;
  }
  args_.writer->Send(ErrorResponse(status));
}

void Answer::Begin(std::unique_ptr<Generation> generation, std::unique_ptr<AnswerFormat> format) {
  std::unique_ptr<Generation> finished;  // dropped after the lock is gone, as everywhere here
  {
    absl::MutexLock lock(&mu_);
    generation_ = std::move(generation);
    format_ = std::move(format);
    cache_ = generation_->cache();
    num_prompt_tokens_ = generation_->num_prompt_tokens();
    num_choices_per_prompt_ = generation_->num_choices_per_prompt();
    num_open_ = generation_->prompts().size() * static_cast<size_t>(num_choices_per_prompt_);
    choices_.resize(num_open_);
    cached_tokens_.resize(num_open_);
    has_begun_.resize(num_open_);
    if (is_stream()) {
      StreamOptions options;
      options.keep_alive_interval = args_.keep_alive_interval;
      options.headers = CacheHeaders(cache_);
      options.num_choices = static_cast<int64_t>(num_open_);
      args_.writer->BeginStream(std::move(options));
    }
    // In one piece: a replayed answer is all here, and would look like a reader who is slow.
    std::string out;
    for (TextDelta& delta : early_) Process(std::move(delta), out);
    early_.clear();
    WriteStream(out);
    if (num_open_ == 0) finished = std::move(generation_);
  }
  args_.writer->OnClose([self = shared_from_this()] { self->OnClientGone(); });
}

bool Answer::OnDelta(TextDelta&& delta) {
  std::unique_ptr<Generation> finished;
  absl::MutexLock lock(&mu_);
  if (is_gone_) return false;
  if (format_ == nullptr) {
    early_.push_back(std::move(delta));
    return true;
  }
  std::string out;
  Process(std::move(delta), out);
  WriteStream(out);
  if (num_open_ == 0 || is_gone_) finished = std::move(generation_);
  return !is_gone_;
}

void Answer::OnClientGone() {
  std::unique_ptr<Generation> generation;
  absl::MutexLock lock(&mu_);
  is_gone_ = true;
  generation = std::move(generation_);
}

void Answer::Process(TextDelta&& delta, std::string& out) {
  const auto index = static_cast<size_t>(delta.choice);
  CollectedChoice& choice = choices_[index];
  const bool is_first = !has_begun_[index];
  has_begun_[index] = true;
  cached_tokens_[index] = std::max(cached_tokens_[index], delta.num_cached_tokens);
  choice.num_tokens += static_cast<int32_t>(delta.tokens.size());
  for (const TokenText& token : delta.logprobs) choice.sum_logprob += token.logprob;
  choice.finish = delta.finish;
  choice.stop_reason = delta.stop_reason;
  if (delta.finish != FinishReason::kNone) --num_open_;
  if (is_stream()) {
    Stream(delta, is_first, out);
    return;
  }
  choice.text += delta.text;
  const auto append = [](std::vector<TokenText>& to, std::vector<TokenText>& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  append(choice.logprobs, delta.logprobs);
  append(choice.prompt_logprobs, delta.prompt_logprobs);
  choice.embedding = std::move(delta.embedding);
  if (num_open_ == 0) SendWhole();
}

void Answer::Stream(const TextDelta& delta, bool is_first, std::string& out) {
  const absl::Status failure = FinishStatus(delta.finish);
  if (!failure.ok()) {
    out += "data: " + ErrorJson(ToApiError(failure)) + "\n\n";
  } else {
    Usage usage;
    if (args_.stream.has_continuous_usage) usage = CountUsage();
    const Usage* shown = args_.stream.has_continuous_usage ? &usage : nullptr;
    for (const std::string& chunk : format_->Chunks(delta, is_first, shown)) {
      out += "data: ";
      out += chunk;
      out += "\n\n";
    }
  }
  if (num_open_ > 0) return;
  if (args_.stream.includes_usage) out += "data: " + format_->UsageChunk(CountUsage()) + "\n\n";
  out += "data: [DONE]\n\n";
}

void Answer::WriteStream(const std::string& out) {
  if (!is_stream()) return;
  if (!out.empty() && !args_.writer->Write(out)) is_gone_ = true;
  if (num_open_ == 0 && !is_gone_) args_.writer->End();
}

Usage Answer::CountUsage() const {
  Usage usage{.num_prompt_tokens = num_prompt_tokens_, .cache = cache_.outcome};
  for (const CollectedChoice& choice : choices_) usage.num_completion_tokens += choice.num_tokens;
  for (const int32_t num_cached_tokens : cached_tokens_) usage.num_cached_tokens += num_cached_tokens;
  return usage;
}

void Answer::SendWhole() {
  for (const CollectedChoice& choice : choices_) {
    if (absl::Status failure = FinishStatus(choice.finish); !failure.ok()) {
      args_.writer->Send(ErrorResponse(failure));
      return;
    }
  }
  const Usage usage = CountUsage();
  KeepBest();
  args_.writer->Send({.headers = CacheHeaders(cache_), .body = format_->Whole(choices_, usage)});
}

// best_of: of each prompt's choices those with the highest log-probability per token stay.
void Answer::KeepBest() {
  const int32_t num_kept = args_.num_choices_to_return;
  if (num_kept == 0 || num_kept >= num_choices_per_prompt_) return;
  const auto score = [](const CollectedChoice& choice) { return choice.sum_logprob / std::max(1, choice.num_tokens); };
  std::vector<CollectedChoice> kept;
  for (size_t begin = 0; begin < choices_.size(); begin += static_cast<size_t>(num_choices_per_prompt_)) {
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = begin; i < begin + static_cast<size_t>(num_choices_per_prompt_); ++i) {
      order.emplace_back(-score(choices_[i]), i);
    }
    std::sort(order.begin(), order.end());
    for (int32_t i = 0; i < num_kept; ++i) kept.push_back(std::move(choices_[order[static_cast<size_t>(i)].second]));
  }
  choices_ = std::move(kept);
}

}  // namespace millrace
