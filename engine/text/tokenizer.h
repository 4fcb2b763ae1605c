// SPDX-License-Identifier: Apache-2.0
// Tokenizer: text to token ids and back, from a Hugging Face tokenizer.json or a GGUF vocabulary.
// Owned by the loaded model, built once, constant afterwards: every method is safe from any thread.
// Does not stream (see detokenizer.h), render chat templates or read files.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/vocab_spec.h"

namespace millrace {

struct TokenizerParts;
class DecoderChain;

// What text that spells a control token means. The default for anything a client wrote is kPlainText.
enum class SpecialTokens : uint8_t { kParse, kPlainText };

// Whether the tokenizer's post-processor (usually: a BOS before the text) applies.
enum class Framing : uint8_t { kNone, kTemplate };

enum class SkipSpecial : uint8_t { kNo, kYes };

// Who wrote a piece of a rendered prompt. Only kTemplate text may become control tokens.
enum class Trust : uint8_t { kTemplate, kUser };

struct TextSegment {
  std::string_view text;
  Trust trust = Trust::kUser;
};

class Tokenizer {
 public:
  // Builds from the bytes of a tokenizer.json. InvalidArgument names the fault: broken JSON, a limit exceeded, an
  // unknown component, a merge outside the vocabulary. Linear in the file; about 0.3 s for 200,000 tokens.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json);

  // Builds from the vocabulary of a GGUF file. InvalidArgument as above.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromVocab(const VocabSpec& spec);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Token ids of `text`. Broken UTF-8 is replaced by U+FFFD first. With kPlainText no control token (IsControl) is
  // ever produced, except the unknown token. Time is O(n log n) at worst in the text.
  // A character that has no token in a model without unknown token is dropped by BPE and an InvalidArgument for
  // Unigram; ResourceExhausted when a regular expression of the tokenizer exceeds its match limit on this text.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, SpecialTokens special,
                                              Framing framing = Framing::kNone) const;

  // As Encode of the concatenation, but a control token is recognised only where all its characters are kTemplate.
  // Where no kUser segment takes part in spelling a control token, the result equals Encode(joined, kParse).
  absl::StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments,
                                                      Framing framing = Framing::kNone) const;

  // Text of the tokens, always valid UTF-8. Bytes that form no character become U+FFFD: one for each maximal part, or
  // one for each byte with byte fallback, where the reference implementation also gives up the valid characters next to
  // them; here they stay, so that they can be streamed at once. Unknown ids yield nothing.
  std::string Decode(std::span<const int32_t> ids, SkipSpecial skip) const;

  // The id of a token by its name in the vocabulary (added tokens first), e.g. "<|im_end|>" or "Ġthe".
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The token's name; empty for an id without token. Valid as long as the tokenizer.
  std::string_view IdToToken(int32_t id) const;
  // The bytes a token stands for in the middle of a text ("Ġthe" -> " the", "<0x0A>" -> "\n"); may be part of a
  // UTF-8 character. Empty for an unknown id. Valid as long as the tokenizer.
  std::string_view TokenBytes(int32_t id) const;

  bool HasId(int32_t id) const;
  // One more than the greatest id; ids between may be unused.
  int32_t vocab_size() const;
  // Marked "special" by its maker: left out of text by SkipSpecial::kYes.
  bool IsSpecial(int32_t id) const;
  // May not come from user text: special, or an added token with any visible character (e.g. "<tool_call>").
  bool IsControl(int32_t id) const;

  // Where the vocabulary or the post-processor tells.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> unk_id() const;
  // Whether Framing::kTemplate puts a BOS in front.
  bool adds_bos() const;

  // For Detokenizer: the chain that turns tokens into text.
  const DecoderChain& decoder() const;

 private:
  explicit Tokenizer(std::unique_ptr<TokenizerParts> parts);

  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromParts(std::unique_ptr<TokenizerParts> parts);

  const std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace millrace
