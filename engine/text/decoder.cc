// SPDX-License-Identifier: Apache-2.0
#include "engine/text/decoder.h"

#include <absl/status/status.h>

#include <algorithm>

#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte a token like "<0x0A>" stands for, or -1.
int ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  const int high = HexDigit(token[3]);
  const int low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  if (from.empty()) return std::string(text);
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, begin)) {
    out.append(text.substr(begin, at - begin)).append(to);
    begin = at + from.size();
  }
  out.append(text.substr(begin));
  return out;
}

// The bytes at the end of `text` that may be the beginning of `literal`, but not all of it.
size_t PossibleBeginningBytes(std::string_view text, std::string_view literal) {
  for (size_t n = std::min(text.size(), literal.size() - 1); n > 0; --n) {
    if (text.ends_with(literal.substr(0, n))) return n;
  }
  return 0;
}

std::string CleanUpEnglish(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = ReplaceAll(text, from, to);
  return text;
}

// Whether a step can work on pieces of one text.
bool WorksFused(const DecoderStep& step) {
  if (const auto* replace = std::get_if<ReplaceDecode>(&step)) return !replace->literal.empty();
  return std::holds_alternative<StripDecode>(step) || std::holds_alternative<FuseDecode>(step) ||
         std::holds_alternative<ByteFallbackDecode>(step);
}

}  // namespace

absl::StatusOr<DecoderChain> DecoderChain::Create(std::vector<DecoderStep> steps) {
  DecoderChain chain;
  chain.steps_ = std::move(steps);
  for (size_t i = 0; i < chain.steps_.size(); ++i) {
    const DecoderStep& step = chain.steps_[i];
    if (chain.is_fused_at(i) && !WorksFused(step)) {
      return absl::InvalidArgumentError("decoder: this step after Fuse or ByteLevel is not supported");
    }
    if (std::holds_alternative<ByteFallbackDecode>(step)) chain.replaces_each_byte_ = true;
    const bool fuses = std::holds_alternative<FuseDecode>(step) || std::holds_alternative<ByteLevelDecode>(step);
    if (fuses) chain.fuse_index_ = std::min(chain.fuse_index_, i);
  }
  return chain;
}

DecodeStream::DecodeStream(const DecoderChain& chain, StreamStart start)
    : chain_(chain), states_(chain.steps().size()) {
  for (StepState& state : states_) state.has_seen_token = state.start_is_over = start == StreamStart::kContinuation;
}

void DecodeStream::Push(std::string_view token, std::string& out) {
  Feed(0, token);
  Drain(/*at_end=*/false, out);
}

void DecodeStream::Finish(std::string& out) {
  Flush(FlushAt::kEnd);
  Drain(/*at_end=*/true, out);
}

std::string DecodeStream::MiddleBytes(std::string_view token) {
  Feed(0, token);
  Flush(FlushAt::kMiddle);
  return std::exchange(pending_, {});
}

void DecodeStream::Feed(size_t index, std::string_view text) {
  if (index == states_.size()) {
    pending_.append(text);
    return;
  }
  std::visit([&](const auto& step) { Run(index, step, text); }, chain_.steps()[index]);
}

void DecodeStream::Flush(FlushAt where) {
  for (size_t i = 0; i < states_.size(); ++i) {
    std::string held = std::exchange(states_[i].held, {});
    if (held.empty()) continue;
    const DecoderStep& step = chain_.steps()[i];
    if (std::holds_alternative<StripDecode>(step) && where == FlushAt::kEnd) continue;
    if (const auto* suffix = std::get_if<SuffixDecode>(&step)) {
      held = ReplaceAll(held, suffix->suffix, where == FlushAt::kEnd ? "" : " ");
    }
    Feed(i + 1, held);
  }
}

void DecodeStream::Drain(bool at_end, std::string& out) {
  size_t i = 0;
  while (i < pending_.size()) {
    const Utf8Step step = CheckUtf8At(pending_, i);
    if (step.fault == Utf8Fault::kNone) {
      out.append(pending_, i, step.num_bytes);
    } else {
      if (step.fault == Utf8Fault::kIncomplete && !at_end) break;
      const uint32_t num_marks = chain_.replaces_each_byte() ? step.num_bytes : 1;
      for (uint32_t mark = 0; mark < num_marks; ++mark) out.append(kReplacementUtf8);
    }
    i += step.num_bytes;
  }
  pending_.erase(0, i);
}

void DecodeStream::Run(size_t index, const ByteLevelDecode&, std::string_view text) {
  const auto bytes = AlphabetToBytes(text);
  Feed(index + 1, bytes ? *bytes : text);
}

void DecodeStream::Run(size_t index, const MetaspaceDecode& step, std::string_view text) {
  const bool is_first = !std::exchange(states_[index].has_seen_token, true);
  Feed(index + 1, ReplaceAll(text, step.replacement, is_first && step.strips_start ? "" : " "));
}

void DecodeStream::Run(size_t index, const ByteFallbackDecode&, std::string_view text) {
  const int byte = chain_.is_fused_at(index) ? -1 : ByteOfToken(text);
  const char raw = static_cast<char>(byte);
  Feed(index + 1, byte < 0 ? text : std::string_view(&raw, 1));
}

void DecodeStream::Run(size_t index, const FuseDecode&, std::string_view text) { Feed(index + 1, text); }

void DecodeStream::Run(size_t index, const ReplaceDecode& step, std::string_view text) {
  if (step.literal.empty()) {
    std::vector<ByteRange> matches;
    // A match limit exceeded on one token leaves it as it is.
    if (!IsValidUtf8(text) || !step.pattern.FindAll(text, matches).ok()) return Feed(index + 1, text);
    std::string replaced;
    size_t begin = 0;
    for (const ByteRange& match : matches) {
      replaced.append(text.substr(begin, match.begin - begin)).append(step.content);
      begin = match.end;
    }
    replaced.append(text.substr(begin));
    return Feed(index + 1, replaced);
  }
  if (!chain_.is_fused_at(index)) return Feed(index + 1, ReplaceAll(text, step.literal, step.content));
  std::string& held = states_[index].held;
  held.append(text);
  size_t begin = 0;
  std::string certain;
  for (size_t at = held.find(step.literal); at != std::string::npos; at = held.find(step.literal, begin)) {
    certain.append(held, begin, at - begin).append(step.content);
    begin = at + step.literal.size();
  }
  const size_t kept = PossibleBeginningBytes(std::string_view(held).substr(begin), step.literal);
  certain.append(held, begin, held.size() - begin - kept);
  held.erase(0, held.size() - kept);
  if (!certain.empty()) Feed(index + 1, certain);
}

void DecodeStream::Run(size_t index, const StripDecode& step, std::string_view text) {
  if (step.content.empty()) return Feed(index + 1, text);
  if (chain_.is_fused_at(index)) return StripFused(index, step, text);
  for (size_t i = 0; i < step.num_start && text.starts_with(step.content); ++i) text.remove_prefix(step.content.size());
  for (size_t i = 0; i < step.num_stop && text.ends_with(step.content); ++i) text.remove_suffix(step.content.size());
  Feed(index + 1, text);
}

// `content` is one character, but a piece may end inside it only where bytes were raw, and then nothing matches.
void DecodeStream::StripFused(size_t index, const StripDecode& step, std::string_view text) {
  StepState& state = states_[index];
  while (!state.start_is_over && !text.empty()) {
    if (state.num_stripped < step.num_start && text.starts_with(step.content)) {
      text.remove_prefix(step.content.size());
      ++state.num_stripped;
    } else {
      state.start_is_over = true;
    }
  }
  if (text.empty()) return;
  state.held.append(text);
  size_t certain_bytes = state.held.size();
  for (size_t i = 0; i < step.num_stop && std::string_view(state.held).substr(0, certain_bytes).ends_with(step.content);
       ++i) {
    certain_bytes -= step.content.size();
  }
  const std::string certain = state.held.substr(0, certain_bytes);
  state.held.erase(0, certain_bytes);
  if (!certain.empty()) Feed(index + 1, certain);
}

void DecodeStream::Run(size_t index, const WordPieceDecode& step, std::string_view text) {
  const bool is_first = !std::exchange(states_[index].has_seen_token, true);
  std::string out;
  if (!is_first && text.starts_with(step.prefix)) {
    out = text.substr(step.prefix.size());
  } else {
    out = is_first ? "" : " ";
    out.append(text);
  }
  Feed(index + 1, step.cleanup ? CleanUpEnglish(std::move(out)) : out);
}

// The last token's suffix vanishes and any other's is a space, so each token waits for the next.
void DecodeStream::Run(size_t index, const SuffixDecode& step, std::string_view text) {
  StepState& state = states_[index];
  const std::string previous = std::exchange(state.held, std::string(text));
  if (!previous.empty()) Feed(index + 1, ReplaceAll(previous, step.suffix, " "));
}

void DecodeStream::Run(size_t index, const SpaceJoinDecode&, std::string_view text) {
  const bool is_first = !std::exchange(states_[index].has_seen_token, true);
  if (!is_first) Feed(index + 1, " ");
  Feed(index + 1, text);
}

}  // namespace millrace
