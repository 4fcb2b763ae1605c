// SPDX-License-Identifier: Apache-2.0
// Tokenizer::FromVocab: a tokenizer from the vocabulary of a GGUF file.
#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <functional>

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_parts.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kMaxMergedBytes = 512;
constexpr size_t kMaxTokens = 4'000'000;
constexpr size_t kMaxMerges = 8'000'000;

// A pre-tokenizer by the name GGUF files give it.
struct NamedPattern {
  std::string_view name;
  ScannerKind scanner;
  bool ignore_merges = false;
  bool single_digits = false;  // digits are cut out one by one before the pattern
  bool nfc = false;            // the model was trained on NFC text
};

constexpr NamedPattern kNamedPatterns[] = {
    {"gpt-2", ScannerKind::kGpt2},
    {"phi-2", ScannerKind::kGpt2},
    {"llama-bpe", ScannerKind::kLlama3, true},
    {"llama-v3", ScannerKind::kLlama3, true},
    {"llama3", ScannerKind::kLlama3, true},
    {"dbrx", ScannerKind::kLlama3},
    {"smaug-bpe", ScannerKind::kLlama3},
    {"qwen2", ScannerKind::kQwen2, false, false, true},
    {"deepseek-r1-qwen", ScannerKind::kQwen2, false, false, true},
    {"stablelm2", ScannerKind::kQwen2},
    {"gpt-4o", ScannerKind::kO200k, true},
    {"tekken", ScannerKind::kTekken, true},
    {"smollm", ScannerKind::kGpt2, false, true},
    {"starcoder", ScannerKind::kGpt2, false, true},
    {"refact", ScannerKind::kGpt2, false, true},
    {"command-r", ScannerKind::kGpt2, false, true},
};

absl::Status AddDefaultSteps(std::vector<PreTokenizerStep>& steps) {
  for (const std::string_view expression :
       {R"([\p{P}\$\+<=>\^~\|]+)", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))",
        R"(\p{N}+)", R"([0-9][0-9][0-9])"}) {
    ASSIGN_OR_RETURN(SplitPattern pattern, SplitPattern::Expression(expression));
    steps.push_back(SplitStep{std::move(pattern), SplitBehavior::kIsolated, false});
  }
  return absl::OkStatus();
}

class VocabReader {
 public:
  VocabReader(const VocabSpec& spec, TokenizerParts& parts) : spec_(spec), parts_(parts) {}

  absl::Status Read() {
    RETURN_IF_ERROR(ReadTokens());
    std::vector<DecoderStep> decoder;
    if (spec_.model == "llama") {
      RETURN_IF_ERROR(MakeScored(decoder));
    } else if (spec_.model == "gpt2") {
      RETURN_IF_ERROR(MakeByteLevel(decoder));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer model '", spec_.model.substr(0, 80), "' of a GGUF file is not known"));
    }
    ASSIGN_OR_RETURN(DecoderChain chain, DecoderChain::Create(std::move(decoder)));
    parts_.decoder = std::make_unique<const DecoderChain>(std::move(chain));
    return FinishParts(vocab_, parts_);
  }

 private:
  VocabTokenType TypeOf(size_t id) const {
    return spec_.token_types.empty() ? VocabTokenType::kNormal : spec_.token_types[id];
  }

  absl::Status CheckId(std::string_view name, const std::optional<int32_t>& id) const {
    if (!id || (*id >= 0 && static_cast<size_t>(*id) < spec_.tokens.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("vocabulary: ", std::string(name), " ", *id, " is not a token"));
  }

  absl::Status ReadTokens() {
    const size_t num_tokens = spec_.tokens.size();
    if (num_tokens == 0 || num_tokens > kMaxTokens) {
      return absl::InvalidArgumentError(absl::StrCat("vocabulary of ", num_tokens, " tokens"));
    }
    if (!spec_.token_types.empty() && spec_.token_types.size() != num_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("vocabulary: ", spec_.token_types.size(), " token types for ", num_tokens, " tokens"));
    }
    RETURN_IF_ERROR(CheckId("bos_id", spec_.bos_id));
    RETURN_IF_ERROR(CheckId("eos_id", spec_.eos_id));
    RETURN_IF_ERROR(CheckId("unk_id", spec_.unk_id));
    vocab_.index.Reserve(num_tokens);
    for (size_t id = 0; id < num_tokens; ++id) {
      if (!IsValidUtf8(spec_.tokens[id])) {
        return absl::InvalidArgumentError(absl::StrCat("vocabulary: token ", id, " is not valid UTF-8"));
      }
      RETURN_IF_ERROR(vocab_.AddOrRepeat(spec_.tokens[id], static_cast<int32_t>(id)));
      ReadType(static_cast<int32_t>(id));
    }
    parts_.bos_id = spec_.bos_id;
    parts_.eos_id = spec_.eos_id;
    if (spec_.unk_id) parts_.unk_id = spec_.unk_id;
    if (spec_.add_bos && spec_.bos_id) parts_.prefix_ids.push_back(*spec_.bos_id);
    if (spec_.add_eos && spec_.eos_id) parts_.suffix_ids.push_back(*spec_.eos_id);
    return absl::OkStatus();
  }

  void ReadType(int32_t id) {
    const VocabTokenType type = TypeOf(id);
    const bool special = type == VocabTokenType::kControl || type == VocabTokenType::kUnknown;
    if (type == VocabTokenType::kUnknown && !parts_.unk_id) parts_.unk_id = id;
    if (special || type == VocabTokenType::kUserDefined) {
      AddedToken token;
      token.content = spec_.tokens[id];
      token.id = id;
      token.special = special;
      vocab_.added.push_back(std::move(token));
    }
  }

  // Tokens that merging may make.
  std::vector<ModelToken> Mergeable(bool byte_fallback) const {
    std::vector<ModelToken> tokens = vocab_.Producible(byte_fallback);
    std::erase_if(tokens, [&](const ModelToken& token) {
      const VocabTokenType type = TypeOf(token.id);
      return type == VocabTokenType::kUnused || type == VocabTokenType::kByte;
    });
    return tokens;
  }

  // SentencePiece BPE: of all neighbours whose concatenation is a token, those with the best score merge first. As
  // merge rules: every way to cut a token in two, with equal ranks for equal scores.
  absl::Status MakeScored(std::vector<DecoderStep>& decoder) {
    if (spec_.scores.size() != spec_.tokens.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("vocabulary: ", spec_.scores.size(), " scores for ", spec_.tokens.size(), " tokens"));
    }
    if (spec_.add_space_prefix) parts_.normalizer.push_back(PrependStep{std::string(kSpaceMark)});
    parts_.normalizer.push_back(ReplaceStep{SplitPattern::Literal(" "), std::string(kSpaceMark)});
    decoder.push_back(ReplaceDecode{SplitPattern::Literal(std::string(kSpaceMark)), std::string(kSpaceMark), " "});
    decoder.push_back(ByteFallbackDecode{});
    decoder.push_back(FuseDecode{});
    if (spec_.add_space_prefix) decoder.push_back(StripDecode{" ", 1, 0});

    BpeModel::Options options;
    options.unk_id = parts_.unk_id;
    options.byte_ids = ByteFallbackIds(vocab_.index);
    const std::vector<ModelToken> tokens = Mergeable(/*byte_fallback=*/true);
    ASSIGN_OR_RETURN(const std::vector<uint32_t> ranks, RanksByScore());
    StringIndex symbols;
    for (const ModelToken& token : tokens) symbols.Insert(token.text, token.id);
    const auto num_ids = static_cast<int32_t>(spec_.tokens.size());
    std::vector<std::string> virtual_chars;
    const auto symbol_of = [&](std::string_view part) {
      const int32_t id = symbols.Find(part);
      if (id >= 0 || Utf8At(part, 0).num_bytes < part.size()) return id;
      // A character without a token of its own can still be half of one.
      virtual_chars.emplace_back(part);
      symbols.Insert(part, num_ids + static_cast<int32_t>(virtual_chars.size()) - 1);
      return num_ids + static_cast<int32_t>(virtual_chars.size()) - 1;
    };
    std::vector<MergeRule> rules;
    for (const ModelToken& token : tokens) {
      if (token.text.size() > kMaxMergedBytes) {
        return absl::InvalidArgumentError(absl::StrCat("vocabulary: token ", token.id, " is too long"));
      }
      for (size_t i = Utf8At(token.text, 0).num_bytes; i < token.text.size(); i += Utf8At(token.text, i).num_bytes) {
        const int32_t left = symbol_of(token.text.substr(0, i));
        const int32_t right = symbol_of(token.text.substr(i));
        if (left >= 0 && right >= 0) rules.push_back({left, right, token.id, ranks[token.id]});
      }
      if (rules.size() > kMaxMerges) return absl::InvalidArgumentError("vocabulary: too many merges");
    }
    parts_.model = std::make_unique<const TokenModel>(
        BpeModel(std::move(options), tokens, rules, num_ids, std::move(virtual_chars)));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<uint32_t>> RanksByScore() const {
    std::vector<float> scores = spec_.scores;
    for (const float score : scores) {
      if (score != score) return absl::InvalidArgumentError("vocabulary: a score is not a number");
    }
    std::sort(scores.begin(), scores.end(), std::greater<>());
    scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
    std::vector<uint32_t> ranks(spec_.scores.size());
    for (size_t id = 0; id < ranks.size(); ++id) {
      const auto at = std::lower_bound(scores.begin(), scores.end(), spec_.scores[id], std::greater<>());
      ranks[id] = static_cast<uint32_t>(at - scores.begin());
    }
    return ranks;
  }

  absl::Status MakeByteLevel(std::vector<DecoderStep>& decoder) {
    decoder.push_back(ByteLevelDecode{});
    BpeModel::Options options;
    options.byte_level = true;
    options.unk_id = parts_.unk_id;
    RETURN_IF_ERROR(ReadPattern(options.ignore_merges));
    if (spec_.merges.size() > kMaxMerges) return absl::InvalidArgumentError("vocabulary: too many merges");
    std::vector<MergeRule> rules;
    rules.reserve(spec_.merges.size());
    for (const std::string& line : spec_.merges) {
      // A piece is never empty, so a space at the very front belongs to the left piece.
      const size_t space = line.find(' ', 1);
      const std::string_view whole(line);
      MergeRule rule{-1, -1, -1, static_cast<uint32_t>(rules.size())};
      if (space != std::string::npos) {
        rule.left = vocab_.index.Find(whole.substr(0, space));
        rule.right = vocab_.index.Find(whole.substr(space + 1));
        rule.result = vocab_.index.Find(absl::StrCat(line.substr(0, space), line.substr(space + 1)));
      }
      if (rule.left < 0 || rule.right < 0 || rule.result < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("vocabulary: merge ", rule.rank, " '", line.substr(0, 80), "' is not of its tokens"));
      }
      rules.push_back(rule);
    }
    std::vector<std::string> bytes;
    const std::vector<ModelToken> tokens = ByteTokens(Mergeable(/*byte_fallback=*/false), bytes);
    parts_.model = std::make_unique<const TokenModel>(
        BpeModel(std::move(options), tokens, rules, static_cast<int32_t>(spec_.tokens.size())));
    return absl::OkStatus();
  }

  absl::Status ReadPattern(bool& ignore_merges) {
    if (spec_.pre.empty() || spec_.pre == "default") return AddDefaultSteps(parts_.pretokenizer);
    for (const NamedPattern& named : kNamedPatterns) {
      if (named.name != spec_.pre) continue;
      ignore_merges = named.ignore_merges;
      if (named.nfc) parts_.normalizer.push_back(UnicodeFormStep{UnicodeForm::kNfc});
      if (named.single_digits) parts_.pretokenizer.push_back(CharClassStep{IsNumeric, SplitBehavior::kIsolated});
      parts_.pretokenizer.push_back(SplitStep{SplitPattern::Scanner(named.scanner), SplitBehavior::kIsolated, false});
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("pre-tokenizer '", spec_.pre.substr(0, 80), "' of a GGUF file is not known"));
  }

  const VocabSpec& spec_;
  TokenizerParts& parts_;
  VocabBuilder vocab_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromVocab(const VocabSpec& spec) {
  auto parts = std::make_unique<TokenizerParts>();
  RETURN_IF_ERROR(VocabReader(spec, *parts).Read());
  return FromParts(std::move(parts));
}

}  // namespace millrace
