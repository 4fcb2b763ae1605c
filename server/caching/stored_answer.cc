// SPDX-License-Identifier: Apache-2.0
#include "server/caching/stored_answer.h"

#include <bit>
#include <utility>

namespace millrace {
namespace {

// Numbers are LEB128, signed ones in zigzag; texts and lists follow their length. The cached tokens and the embedding
// are left out: a replay has the former anew, and embeddings are not kept.
//
//   answer  number of deltas, deltas
//   delta   choice, text, tokens, log-probabilities, those of the prompt, finish, stop reason
//   token   id, bytes, log-probability (4 bytes), rank, number of top tokens, those (id, bytes, log-probability, rank)

class Writer {
 public:
  void Number(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  void Signed(int32_t value) { Number((static_cast<uint32_t>(value) << 1) ^ static_cast<uint32_t>(value >> 31)); }
  void Text(std::string_view text) {
    Number(text.size());
    out_ += text;
  }
  void Tokens(const std::vector<TokenText>& tokens) {
    Number(tokens.size());
    for (const TokenText& token : tokens) {
      Token(token);
      Number(token.top.size());
      for (const TokenText& top : token.top) Token(top);
    }
  }
  void Delta(const TextDelta& delta) {
    Signed(delta.choice);
    Text(delta.text);
    Number(delta.tokens.size());
    for (const int32_t token : delta.tokens) Signed(token);
    Tokens(delta.logprobs);
    Tokens(delta.prompt_logprobs);
    Number(static_cast<uint64_t>(delta.finish));
    Number(delta.stop_reason.index());
    if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) Text(*text);
    if (const auto* token = std::get_if<int32_t>(&delta.stop_reason)) Signed(*token);
  }
  std::string Take() { return std::move(out_); }

 private:
  void Token(const TokenText& token) {
    Signed(token.token);
    Text(token.bytes);
    const auto bits = std::bit_cast<uint32_t>(token.logprob);
    for (int shift = 0; shift < 32; shift += 8) out_ += static_cast<char>(bits >> shift);
    Signed(token.rank);
  }

  std::string out_;
};

// After the first fault everything is empty and is_good() false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  bool is_good() const { return is_good_; }
  bool is_at_end() const { return is_good_ && bytes_.empty(); }

  uint64_t Number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 35; shift += 7) {  // nothing here is longer than 32 bits
      const uint8_t byte = Byte();
      value |= uint64_t{byte & 0x7FU} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    is_good_ = false;
    return 0;
  }
  int32_t Signed() {
    const uint64_t value = Number();
    if (value > UINT32_MAX) is_good_ = false;
    const auto bits = static_cast<uint32_t>(value);
    return static_cast<int32_t>((bits >> 1) ^ (0U - (bits & 1U)));
  }
  // Of things that take a byte at least.
  size_t Count() {
    const uint64_t count = Number();
    if (count > bytes_.size()) is_good_ = false;
    return is_good_ ? static_cast<size_t>(count) : 0;
  }
  std::string Text() { return std::string(Cut(Count())); }
  std::vector<TokenText> Tokens() {
    std::vector<TokenText> tokens;
    for (size_t left = Count(); left > 0 && is_good_; --left) {
      tokens.push_back(Token());
      for (size_t num_top = Count(); num_top > 0 && is_good_; --num_top) tokens.back().top.push_back(Token());
    }
    return tokens;
  }
  TextDelta Delta() {
    TextDelta delta;
    delta.choice = Signed();
    delta.text = Text();
    for (size_t left = Count(); left > 0 && is_good_; --left) delta.tokens.push_back(Signed());
    delta.logprobs = Tokens();
    delta.prompt_logprobs = Tokens();
    const uint64_t finish = Number();
    if (finish > static_cast<uint64_t>(FinishReason::kLength)) is_good_ = false;
    delta.finish = static_cast<FinishReason>(is_good_ ? finish : 0);
    const uint64_t reason = Number();
    if (reason == 1) delta.stop_reason = Text();
    if (reason == 2) delta.stop_reason = Signed();
    if (reason > 2) is_good_ = false;
    return delta;
  }

 private:
  uint8_t Byte() {
    const std::string_view byte = Cut(1);
    return byte.empty() ? 0 : static_cast<uint8_t>(byte.front());
  }
  std::string_view Cut(size_t num_bytes) {
    if (num_bytes > bytes_.size()) is_good_ = false;
    if (!is_good_) return {};
    const std::string_view cut = bytes_.substr(0, num_bytes);
    bytes_.remove_prefix(num_bytes);
    return cut;
  }
  TokenText Token() {
    TokenText token;
    token.token = Signed();
    token.bytes = Text();
    uint32_t bits = 0;
    for (int shift = 0; shift < 32; shift += 8) bits |= uint32_t{Byte()} << shift;
    token.logprob = std::bit_cast<float>(bits);
    token.rank = Signed();
    return token;
  }

  std::string_view bytes_;
  bool is_good_ = true;
};

size_t TokensBytes(const std::vector<TokenText>& tokens) {
  size_t num_bytes = 0;
  for (const TokenText& token : tokens) num_bytes += token.bytes.size() + 12 + TokensBytes(token.top);
  return num_bytes;
}

}  // namespace

size_t StoredBytes(const TextDelta& delta) {
  return delta.text.size() + 4 * delta.tokens.size() + TokensBytes(delta.logprobs) +
         TokensBytes(delta.prompt_logprobs) + 16;
}

std::string EncodeAnswer(const std::vector<TextDelta>& deltas) {
  Writer writer;
  writer.Number(deltas.size());
  for (const TextDelta& delta : deltas) writer.Delta(delta);
  return writer.Take();
}

std::optional<std::vector<TextDelta>> DecodeAnswer(std::string_view bytes, int32_t num_choices) {
  if (num_choices <= 0) return std::nullopt;
  Reader reader(bytes);
  const size_t num_deltas = reader.Count();
  if (num_deltas > kMaxStoredDeltas) return std::nullopt;
  std::vector<TextDelta> deltas;
  std::vector<bool> is_over(static_cast<size_t>(num_choices));
  int32_t num_open = num_choices;
  for (size_t i = 0; i < num_deltas; ++i) {
    TextDelta delta = reader.Delta();
    if (!reader.is_good() || delta.choice < 0 || delta.choice >= num_choices) return std::nullopt;
    const auto choice = static_cast<size_t>(delta.choice);
    if (is_over[choice]) return std::nullopt;
    is_over[choice] = delta.finish != FinishReason::kNone;
    if (is_over[choice]) --num_open;
    deltas.push_back(std::move(delta));
  }
  if (!reader.is_at_end() || num_open > 0) return std::nullopt;
  return deltas;
}

}  // namespace millrace
