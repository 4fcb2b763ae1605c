// SPDX-License-Identifier: Apache-2.0
// What a Tokenizer is made of, and the last step of making it, shared by the two readers (tokenizer.json, GGUF
// vocabulary). Internal to engine/text.
#pragma once

#include <absl/status/status.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/decoder.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/string_index.h"
#include "engine/text/unigram_model.h"
#include "engine/text/wordpiece_model.h"

namespace millrace {

// Strings by id in one block of memory.
class TokenStrings {
 public:
  void Reserve(size_t num_strings) { ends_.reserve(num_strings); }
  void Append(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
  std::string_view operator[](int32_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }
  size_t num_bytes() const { return bytes_.size(); }

 private:
  std::string bytes_;
  std::vector<uint32_t> ends_;
};

enum TokenFlag : uint8_t { kTokenExists = 1, kTokenSpecial = 2, kTokenControl = 4 };

using TokenModel = std::variant<BpeModel, UnigramModel, WordPieceModel>;

struct TokenizerParts {
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pretokenizer;
  std::unique_ptr<const TokenModel> model;
  std::unique_ptr<const DecoderChain> decoder;
  std::vector<int32_t> prefix_ids;  // what Framing::kTemplate puts around the text
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> unk_id;

  // Filled by FinishParts.
  AddedTokenFinder raw_finder;
  AddedTokenFinder normalized_finder;
  TokenStrings names;
  TokenStrings bytes;
  StringIndex ids;
  std::vector<uint8_t> flags;  // TokenFlag, by id
};

// The vocabulary while a tokenizer is being made. Views point into the source.
struct VocabBuilder {
  std::vector<std::string_view> texts;  // by id; data() == nullptr: no such token
  StringIndex index;                    // of the model's tokens
  std::vector<AddedToken> added;

  // InvalidArgument when the id or the text is taken, the id is out of `max_id` or the text too long.
  absl::Status Add(std::string_view text, int64_t id, int64_t max_id);
  // As Add for a source that numbers its tokens itself and may repeat a text: the first id keeps it.
  absl::Status AddOrRepeat(std::string_view text, int32_t id);
  // The tokens a model may make from plain text: neither control tokens nor, with `byte_fallback`, those that stand for
  // a byte ("<0x0A>" written by a user stays text).
  std::vector<ModelToken> Producible(bool byte_fallback) const;
};

// The greatest id + 1 that a file with so many tokens may use: bounds the memory a short file can ask for.
int64_t MaxIdFor(size_t num_tokens);

// Fills the look-up tables of `parts` from the vocabulary. Errors as Normalize (of added tokens' contents).
absl::Status FinishParts(const VocabBuilder& vocab, TokenizerParts& parts);

// Rewrites tokens from the byte-level alphabet to raw bytes, kept in `bytes`. Tokens outside the alphabet can never be
// made from text and are dropped.
std::vector<ModelToken> ByteTokens(const std::vector<ModelToken>& tokens, std::vector<std::string>& bytes);

// The ids of "<0x00>" to "<0xFF>", -1 where absent.
std::array<int32_t, 256> ByteFallbackIds(const StringIndex& index);

}  // namespace millrace
