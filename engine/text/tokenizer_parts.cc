// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer_parts.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>

#include "engine/text/byte_alphabet.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kMaxIds = 4'000'000;
constexpr size_t kMaxTokenBytes = 8192;
constexpr size_t kMaxVocabBytes = size_t{1} << 30;

std::string Shown(std::string_view text) { return std::string(text.substr(0, 80)); }

}  // namespace

int64_t MaxIdFor(size_t num_tokens) {
  const auto bounded = static_cast<int64_t>(std::min<size_t>(num_tokens, kMaxIds));
  return std::min(kMaxIds, 16 * bounded + 4096);
}

absl::Status VocabBuilder::Add(std::string_view text, int64_t id, int64_t max_id) {
  if (id < 0 || id >= max_id) {
    return absl::InvalidArgumentError(
        absl::StrCat("token '", Shown(text), "' has the id ", id, "; allowed are 0 to ", max_id - 1));
  }
  if (text.size() > kMaxTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat("token ", id, " has ", text.size(), " bytes"));
  }
  if (static_cast<size_t>(id) >= texts.size()) texts.resize(id + 1);
  if (texts[id].data() != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("id ", id, " belongs to '", Shown(texts[id]), "' and to '", Shown(text), "'"));
  }
  if (!index.Insert(text, static_cast<int32_t>(id))) {
    return absl::InvalidArgumentError(absl::StrCat("token '", Shown(text), "' comes twice"));
  }
  texts[id] = text.data() == nullptr ? std::string_view("") : text;
  return absl::OkStatus();
}

absl::Status VocabBuilder::AddOrRepeat(std::string_view text, int32_t id) {
  if (text.size() > kMaxTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat("token ", id, " has ", text.size(), " bytes"));
  }
  if (static_cast<size_t>(id) >= texts.size()) texts.resize(id + 1);
  index.Insert(text, id);
  texts[id] = text;
  return absl::OkStatus();
}

std::vector<ModelToken> VocabBuilder::Producible(bool byte_fallback) const {
  std::vector<bool> is_control(texts.size());
  if (byte_fallback) {
    for (const int32_t id : ByteFallbackIds(index)) {
      if (id >= 0) is_control[id] = true;
    }
  }
  for (const AddedToken& token : added) is_control[token.id] = is_control[token.id] || IsControlToken(token);
  std::vector<ModelToken> tokens;
  tokens.reserve(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (texts[id].data() != nullptr && !texts[id].empty() && !is_control[id]) {
      tokens.push_back({texts[id], static_cast<int32_t>(id)});
    }
  }
  return tokens;
}

std::vector<ModelToken> ByteTokens(const std::vector<ModelToken>& tokens, std::vector<std::string>& bytes) {
  bytes.reserve(tokens.size());  // views point into the strings, which must not move
  std::vector<ModelToken> kept;
  kept.reserve(tokens.size());
  for (const ModelToken& token : tokens) {
    auto raw = AlphabetToBytes(token.text);
    if (raw) kept.push_back({bytes.emplace_back(*std::move(raw)), token.id});
  }
  return kept;
}

std::array<int32_t, 256> ByteFallbackIds(const StringIndex& index) {
  std::array<int32_t, 256> ids;
  for (int byte = 0; byte < 256; ++byte) ids[byte] = index.Find(absl::StrFormat("<0x%02X>", byte));
  return ids;
}

namespace {

absl::Status BuildFinders(const VocabBuilder& vocab, TokenizerParts& parts) {
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  std::vector<std::string> raw_patterns;
  std::vector<std::string> normalized_patterns;
  for (const AddedToken& token : vocab.added) {
    if (token.content.empty()) continue;
    if (!token.normalized) {
      raw.push_back(token);
      raw_patterns.push_back(token.content);
      continue;
    }
    TrackedText pattern{token.content, {}};
    RETURN_IF_ERROR(Normalize(parts.normalizer, pattern));
    if (pattern.bytes.empty()) continue;
    normalized.push_back(token);
    normalized_patterns.push_back(std::move(pattern.bytes));
  }
  parts.raw_finder = AddedTokenFinder(raw, raw_patterns);
  parts.normalized_finder = AddedTokenFinder(normalized, normalized_patterns);
  return absl::OkStatus();
}

}  // namespace

absl::Status FinishParts(const VocabBuilder& vocab, TokenizerParts& parts) {
  const size_t num_ids = vocab.texts.size();
  parts.flags.assign(num_ids, 0);
  parts.names.Reserve(num_ids);
  parts.bytes.Reserve(num_ids);
  parts.ids = vocab.index;
  DecodeStream middle(*parts.decoder, StreamStart::kContinuation);
  for (size_t id = 0; id < num_ids; ++id) {
    const std::string_view text = vocab.texts[id];
    if (text.data() != nullptr) parts.flags[id] |= kTokenExists;
    parts.names.Append(text);
    parts.bytes.Append(text.data() == nullptr ? std::string() : middle.MiddleBytes(text));
    if (parts.names.num_bytes() > kMaxVocabBytes || parts.bytes.num_bytes() > kMaxVocabBytes) {
      return absl::InvalidArgumentError("the tokens of the vocabulary are too long altogether");
    }
  }
  for (const AddedToken& token : vocab.added) {
    if (token.special) parts.flags[token.id] |= kTokenSpecial;
    if (IsControlToken(token)) parts.flags[token.id] |= kTokenControl;
  }
  return BuildFinders(vocab, parts);
}

}  // namespace millrace
