// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "engine/text/tokenizer_parts.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

// The text of one call and who wrote it.
struct Input {
  std::string_view text;
  std::string storage;             // of `text` when it had to be joined or repaired
  std::vector<uint8_t> from_user;  // one flag for each byte when segments differ, else empty
  bool all_from_user = false;
};

void Join(std::span<const TextSegment> segments, Input& input) {
  bool any_user = false;
  bool any_template = false;
  for (const TextSegment& segment : segments) {
    if (!segment.text.empty()) (segment.trust == Trust::kUser ? any_user : any_template) = true;
  }
  input.all_from_user = any_user && !any_template;
  if (segments.size() == 1 && IsValidUtf8(segments[0].text)) {
    input.text = segments[0].text;
    return;
  }
  for (const TextSegment& segment : segments) {
    const size_t begin = input.storage.size();
    AppendRepairedUtf8(segment.text, input.storage);
    if (any_user && any_template) {
      input.from_user.insert(input.from_user.end(), input.storage.size() - begin,
                             segment.trust == Trust::kUser ? 1 : 0);
    }
  }
  input.text = input.storage;
}

class Encoder {
 public:
  Encoder(const TokenizerParts& parts, const Input& input, std::vector<int32_t>& ids)
      : parts_(parts), input_(input), ids_(ids) {
    scratch_.cache.EnableFor(input.text.size());
  }

  absl::Status Run() {
    std::vector<AddedTokenFinder::Part> found;
    parts_.raw_finder.Split(input_.text, input_.from_user, input_.all_from_user, found);
    for (const auto& part : found) {
      if (part.id >= 0) {
        ids_.push_back(part.id);
      } else {
        RETURN_IF_ERROR(EncodeRaw(part.begin, part.end));
      }
    }
    return absl::OkStatus();
  }

 private:
  // Text without raw added tokens: normalise, look for the normalised ones.
  absl::Status EncodeRaw(size_t begin, size_t end) {
    const std::string_view raw = input_.text.substr(begin, end - begin);
    const bool at_start = begin == 0;
    if (parts_.normalizer.empty() && parts_.normalized_finder.empty()) return EncodePlain(raw, at_start);
    TrackedText text;
    std::string_view normalized = raw;
    if (!input_.from_user.empty() && !parts_.normalized_finder.empty()) {
      text.from_user.assign(input_.from_user.begin() + static_cast<ptrdiff_t>(begin),
                            input_.from_user.begin() + static_cast<ptrdiff_t>(end));
    }
    if (!parts_.normalizer.empty()) {
      text.bytes = raw;
      RETURN_IF_ERROR(Normalize(parts_.normalizer, text));
      normalized = list_.Keep(std::move(text.bytes));
    }
    if (parts_.normalized_finder.empty()) return EncodePlain(normalized, at_start);
    std::vector<AddedTokenFinder::Part> found;
    parts_.normalized_finder.Split(normalized, text.from_user, input_.all_from_user, found);
    for (const auto& part : found) {
      if (part.id >= 0) {
        ids_.push_back(part.id);
      } else {
        RETURN_IF_ERROR(EncodePlain(normalized.substr(part.begin, part.end - part.begin), at_start && part.begin == 0));
      }
    }
    return absl::OkStatus();
  }

  absl::Status EncodePlain(std::string_view text, bool at_start) {
    if (text.empty()) return absl::OkStatus();
    list_.pieces.assign(1, {text, at_start});
    RETURN_IF_ERROR(PreTokenize(parts_.pretokenizer, list_));
    if (const auto* bpe = std::get_if<BpeModel>(parts_.model.get())) {
      for (const Piece& piece : list_.pieces) bpe->Encode(piece.text, scratch_, ids_);
    } else if (const auto* unigram = std::get_if<UnigramModel>(parts_.model.get())) {
      for (const Piece& piece : list_.pieces) RETURN_IF_ERROR(unigram->Encode(piece.text, ids_));
    } else {
      const auto& word_piece = std::get<WordPieceModel>(*parts_.model);
      for (const Piece& piece : list_.pieces) word_piece.Encode(piece.text, ids_);
    }
    return absl::OkStatus();
  }

  const TokenizerParts& parts_;
  const Input& input_;
  std::vector<int32_t>& ids_;
  PieceList list_;  // its storage outlives the scratch's cache of words
  EncodeScratch scratch_;
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromParts(std::unique_ptr<TokenizerParts> parts) {
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, SpecialTokens special,
                                                       Framing framing) const {
  const TextSegment segment{text, special == SpecialTokens::kParse ? Trust::kTemplate : Trust::kUser};
  return EncodeSegments({&segment, 1}, framing);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeSegments(std::span<const TextSegment> segments,
                                                               Framing framing) const {
  size_t num_bytes = 0;
  for (const TextSegment& segment : segments) num_bytes += segment.text.size();
  if (num_bytes > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("text of ", num_bytes, " bytes is too long to tokenize"));
  }
  Input input;
  Join(segments, input);
  std::vector<int32_t> ids;
  ids.reserve(num_bytes / 3 + 8);
  if (framing == Framing::kTemplate) ids = parts_->prefix_ids;
  RETURN_IF_ERROR(Encoder(*parts_, input, ids).Run());
  if (framing == Framing::kTemplate) ids.insert(ids.end(), parts_->suffix_ids.begin(), parts_->suffix_ids.end());
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, SkipSpecial skip) const {
  std::string text;
  DecodeStream stream(*parts_->decoder, StreamStart::kText);
  for (const int32_t id : ids) {
    if (!HasId(id) || (skip == SkipSpecial::kYes && IsSpecial(id))) continue;
    stream.Push(parts_->names[id], text);
  }
  stream.Finish(text);
  return text;
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const int32_t id = parts_->ids.Find(token);
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

std::string_view Tokenizer::IdToToken(int32_t id) const { return HasId(id) ? parts_->names[id] : std::string_view(); }

std::string_view Tokenizer::TokenBytes(int32_t id) const { return HasId(id) ? parts_->bytes[id] : std::string_view(); }

bool Tokenizer::HasId(int32_t id) const {
  return id >= 0 && id < vocab_size() && (parts_->flags[id] & kTokenExists) != 0;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(parts_->flags.size()); }
bool Tokenizer::IsSpecial(int32_t id) const { return HasId(id) && (parts_->flags[id] & kTokenSpecial) != 0; }
bool Tokenizer::IsControl(int32_t id) const { return HasId(id) && (parts_->flags[id] & kTokenControl) != 0; }
std::optional<int32_t> Tokenizer::bos_id() const { return parts_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return parts_->eos_id; }
std::optional<int32_t> Tokenizer::unk_id() const { return parts_->unk_id; }
bool Tokenizer::adds_bos() const {
  return parts_->bos_id && !parts_->prefix_ids.empty() && parts_->prefix_ids.front() == *parts_->bos_id;
}
const DecoderChain& Tokenizer::decoder() const { return *parts_->decoder; }

}  // namespace millrace
