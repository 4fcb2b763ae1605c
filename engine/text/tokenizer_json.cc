// SPDX-License-Identifier: Apache-2.0
// Tokenizer::FromJson: reads the vocabulary, the merges and the added tokens, and lets the steps' reader do the rest.
#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "engine/text/json_fields.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json_steps.h"
#include "engine/text/tokenizer_parts.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxJsonBytes = size_t{256} << 20;
constexpr size_t kMaxNesting = 64;
constexpr size_t kMaxMerges = 8'000'000;
constexpr size_t kMaxAddedTokens = 200'000;
constexpr size_t kMaxAddedTokenBytes = 1024;
constexpr size_t kMaxAffixBytes = 64;

enum class ModelKind : uint8_t { kBpe, kUnigram, kWordPiece };

// Files older than the field "type" are told apart by what they contain.
absl::StatusOr<ModelKind> KindOf(const JsonObject& model) {
  ASSIGN_OR_RETURN(const std::string_view type, StringField("model", model, "type", ""));
  if (type == "BPE") return ModelKind::kBpe;
  if (type == "Unigram") return ModelKind::kUnigram;
  if (type == "WordPiece") return ModelKind::kWordPiece;
  if (!type.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model ", std::string(type.substr(0, 80)), ": this component is not known"));
  }
  if (Field(model, "merges")) return ModelKind::kBpe;
  const auto vocab = Field(model, "vocab");
  return vocab && vocab->is_array() ? ModelKind::kUnigram : ModelKind::kWordPiece;
}

class Reader {
 public:
  Reader(const JsonObject& root, TokenizerParts& parts) : root_(root), parts_(parts) {}

  absl::Status Read() {
    const auto model = Field(root_, "model");
    if (!model) return absl::InvalidArgumentError("tokenizer.json has no model");
    ASSIGN_OR_RETURN(model_, AsObject("model", *model));
    ASSIGN_OR_RETURN(kind_, KindOf(model_));
    RETURN_IF_ERROR(ReadSteps());
    RETURN_IF_ERROR(kind_ == ModelKind::kUnigram ? ReadScoredVocab() : ReadVocab());
    ASSIGN_OR_RETURN(byte_fallback_, BoolField("model", model_, "byte_fallback", false));
    if (kind_ == ModelKind::kUnigram) {
      RETURN_IF_ERROR(ReadUnigramUnk());
    } else {
      ASSIGN_OR_RETURN(const std::string_view unk, StringField("model", model_, "unk_token", ""));
      // A name outside the vocabulary means that nothing stands for unknown characters.
      if (const int32_t id = vocab_.index.Find(unk); !unk.empty() && id >= 0) parts_.unk_id = id;
    }
    RETURN_IF_ERROR(ReadAddedTokens());
    if (const auto element = Field(root_, "post_processor")) {
      RETURN_IF_ERROR(ReadPostProcessor(*element, vocab_, parts_));
    }
    RETURN_IF_ERROR(MakeModel());
    return FinishParts(vocab_, parts_);
  }

 private:
  absl::Status ReadSteps() {
    if (const auto element = Field(root_, "normalizer")) RETURN_IF_ERROR(ReadNormalizer(*element, parts_.normalizer));
    if (const auto element = Field(root_, "pre_tokenizer")) {
      RETURN_IF_ERROR(ReadPreTokenizer(*element, parts_.pretokenizer));
    }
    std::vector<DecoderStep> decoder;
    if (const auto element = Field(root_, "decoder")) {
      RETURN_IF_ERROR(ReadDecoder(*element, decoder));
    } else {
      decoder.push_back(SpaceJoinDecode{});
    }
    ASSIGN_OR_RETURN(DecoderChain chain, DecoderChain::Create(std::move(decoder)));
    parts_.decoder = std::make_unique<const DecoderChain>(std::move(chain));
    return absl::OkStatus();
  }

  absl::Status ReadVocab() {
    const auto element = Field(model_, "vocab");
    if (!element) return absl::InvalidArgumentError("model has no vocab");
    ASSIGN_OR_RETURN(const JsonObject vocab, AsObject("model vocab", *element));
    size_t num_tokens = 0;  // object::size() saturates at 2^24 - 1
    for ([[maybe_unused]] const auto& field : vocab) ++num_tokens;
    max_id_ = MaxIdFor(num_tokens);
    vocab_.index.Reserve(num_tokens);
    for (const auto& [text, value] : vocab) {
      int64_t id = -1;
      if (value.get(id) != simdjson::SUCCESS) {
        return WrongType("model vocab", text.substr(0, 80), "an integer id");
      }
      RETURN_IF_ERROR(vocab_.Add(text, id, max_id_));
    }
    return absl::OkStatus();
  }

  // [[token, score], ...]
  absl::Status ReadScoredVocab() {
    ASSIGN_OR_RETURN(const JsonArray vocab, ArrayField("model", model_, "vocab"));
    max_id_ = MaxIdFor(SIZE_MAX);
    for (const JsonElement& element : vocab) {
      JsonArray pair;
      std::string_view text;
      double score = 0;
      const bool well_formed = element.get(pair) == simdjson::SUCCESS && pair.at(0).get(text) == simdjson::SUCCESS &&
                               pair.at(1).get(score) == simdjson::SUCCESS;
      if (!well_formed) return WrongType("model", "vocab", "a list of [token, score]");
      RETURN_IF_ERROR(vocab_.Add(text, static_cast<int64_t>(scores_.size()), max_id_));
      scores_.push_back(score);
    }
    return absl::OkStatus();
  }

  absl::Status ReadUnigramUnk() {
    ASSIGN_OR_RETURN(const int64_t unk, IntField("model", model_, "unk_id", -1));
    if (unk >= static_cast<int64_t>(scores_.size())) return WrongType("model", "unk_id", "the id of a token");
    if (unk >= 0) parts_.unk_id = static_cast<int32_t>(unk);
    return absl::OkStatus();
  }

  absl::Status ReadAddedTokens() {
    if (!Field(root_, "added_tokens")) return absl::OkStatus();
    ASSIGN_OR_RETURN(const JsonArray list, ArrayField("tokenizer.json", root_, "added_tokens"));
    size_t num_added = 0;
    for (const JsonElement& element : list) {
      constexpr std::string_view kWhere = "added_tokens";
      ASSIGN_OR_RETURN(const JsonObject object, AsObject("a member of added_tokens", element));
      AddedToken token;
      ASSIGN_OR_RETURN(const std::string_view content, StringField(kWhere, object, "content", ""));
      ASSIGN_OR_RETURN(const int64_t id, IntField(kWhere, object, "id", -1));
      ASSIGN_OR_RETURN(token.special, BoolField(kWhere, object, "special", false));
      ASSIGN_OR_RETURN(token.lstrip, BoolField(kWhere, object, "lstrip", false));
      ASSIGN_OR_RETURN(token.rstrip, BoolField(kWhere, object, "rstrip", false));
      ASSIGN_OR_RETURN(token.single_word, BoolField(kWhere, object, "single_word", false));
      ASSIGN_OR_RETURN(token.normalized, BoolField(kWhere, object, "normalized", !token.special));
      if (content.empty()) continue;  // ignored by the reference implementation as well
      if (content.size() > kMaxAddedTokenBytes) return WrongType(kWhere, "content", "at most 1024 bytes");
      if (++num_added > kMaxAddedTokens) return absl::InvalidArgumentError("too many added_tokens");
      if (id < 0 || id > INT32_MAX) return WrongType(kWhere, "id", "a token id");
      token.id = static_cast<int32_t>(id);
      token.content = content;
      vocab_.added.push_back(std::move(token));
      added_texts_.push_back(content);
    }
    max_id_ = std::max(max_id_, MaxIdFor(vocab_.texts.size() + num_added));
    return PlaceAdded();
  }

  // The JSON document outlives the builder's strings, so its views serve as the tokens' texts.
  absl::Status PlaceAdded() {
    for (size_t i = 0; i < vocab_.added.size(); ++i) {
      AddedToken& token = vocab_.added[i];
      // The model's own id counts where it knows the token, as in the reference implementation.
      if (const int32_t id = vocab_.index.Find(token.content); id >= 0) {
        token.id = id;
      } else {
        RETURN_IF_ERROR(vocab_.Add(added_texts_[i], token.id, max_id_));
      }
    }
    return absl::OkStatus();
  }

  absl::Status MakeModel() {
    if (kind_ == ModelKind::kBpe) return MakeBpe();
    if (kind_ == ModelKind::kUnigram) {
      UnigramModel::Options options;
      options.unk_id = parts_.unk_id;
      if (byte_fallback_) options.byte_ids = ByteFallbackIds(vocab_.index);
      ASSIGN_OR_RETURN(options.fuse_unk, BoolField("model", model_, "fuse_unk", true));
      double min_score = 0;
      for (const double score : scores_) min_score = std::min(min_score, score);
      scores_.resize(vocab_.texts.size());
      parts_.model = std::make_unique<const TokenModel>(
          UnigramModel(options, vocab_.Producible(byte_fallback_), std::move(scores_), min_score));
      return absl::OkStatus();
    }
    WordPieceModel::Options options;
    options.unk_id = parts_.unk_id;
    ASSIGN_OR_RETURN(options.continuing_prefix, Affix("continuing_subword_prefix", "##"));
    ASSIGN_OR_RETURN(const int64_t max_chars, IntField("model", model_, "max_input_chars_per_word", 100));
    if (max_chars < 0 || max_chars > 1000) return WrongType("model", "max_input_chars_per_word", "from 0 to 1000");
    options.max_word_chars = static_cast<size_t>(max_chars);
    parts_.model = std::make_unique<const TokenModel>(WordPieceModel(options, vocab_.Producible(false)));
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Affix(std::string_view key, std::string_view fallback) {
    ASSIGN_OR_RETURN(const std::string_view affix, StringField("model", model_, key, fallback));
    if (affix.size() > kMaxAffixBytes) return WrongType("model", key, "at most 64 bytes");
    return std::string(affix);
  }

  absl::Status MakeBpe() {
    BpeModel::Options options;
    options.unk_id = parts_.unk_id;
    ASSIGN_OR_RETURN(options.continuing_prefix, Affix("continuing_subword_prefix", ""));
    ASSIGN_OR_RETURN(options.word_suffix, Affix("end_of_word_suffix", ""));
    ASSIGN_OR_RETURN(options.fuse_unk, BoolField("model", model_, "fuse_unk", false));
    ASSIGN_OR_RETURN(options.ignore_merges, BoolField("model", model_, "ignore_merges", false));
    if (byte_fallback_) options.byte_ids = ByteFallbackIds(vocab_.index);
    ASSIGN_OR_RETURN(const std::vector<MergeRule> rules, ReadMerges(options.continuing_prefix));
    // Where the byte alphabet is the last thing to happen to a piece, the model reads the bytes themselves.
    auto* last = parts_.pretokenizer.empty() ? nullptr : std::get_if<ByteLevelStep>(&parts_.pretokenizer.back());
    options.byte_level =
        last != nullptr && !byte_fallback_ && options.continuing_prefix.empty() && options.word_suffix.empty();
    std::vector<ModelToken> tokens = vocab_.Producible(byte_fallback_);
    std::vector<std::string> bytes;
    if (options.byte_level) {
      last->to_alphabet = false;
      tokens = ByteTokens(tokens, bytes);
    }
    const auto num_ids = static_cast<int32_t>(vocab_.texts.size());
    parts_.model = std::make_unique<const TokenModel>(BpeModel(std::move(options), tokens, rules, num_ids));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<MergeRule>> ReadMerges(std::string_view prefix) {
    std::vector<MergeRule> rules;
    if (!Field(model_, "merges")) return rules;
    ASSIGN_OR_RETURN(const JsonArray merges, ArrayField("model", model_, "merges"));
    uint32_t rank = 0;
    std::string joined;
    for (const JsonElement& element : merges) {
      std::string_view left, right;
      if (!SplitMerge(element, left, right)) {
        return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " is neither \"a b\" nor [\"a\", \"b\"]"));
      }
      if (rules.size() >= kMaxMerges) return absl::InvalidArgumentError("too many merges");
      joined.assign(left);
      joined.append(right.starts_with(prefix) ? right.substr(prefix.size()) : right);
      const MergeRule rule{vocab_.index.Find(left), vocab_.index.Find(right), vocab_.index.Find(joined), rank};
      if (rule.left < 0 || rule.right < 0 || rule.result < 0) {
        const std::string_view missing = rule.left < 0 ? left : rule.right < 0 ? right : std::string_view(joined);
        return absl::InvalidArgumentError(
            absl::StrCat("merge ", rank, ": '", std::string(missing.substr(0, 80)), "' is not in the vocabulary"));
      }
      rules.push_back(rule);
      ++rank;
    }
    return rules;
  }

  static bool SplitMerge(const JsonElement& element, std::string_view& left, std::string_view& right) {
    JsonArray pair;
    if (element.get(pair) == simdjson::SUCCESS) {
      return pair.size() == 2 && pair.at(0).get(left) == simdjson::SUCCESS &&
             pair.at(1).get(right) == simdjson::SUCCESS;
    }
    std::string_view line;
    if (element.get(line) != simdjson::SUCCESS) return false;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) return false;
    left = line.substr(0, space);
    right = line.substr(space + 1);
    return true;
  }

  const JsonObject& root_;
  TokenizerParts& parts_;
  JsonObject model_;
  ModelKind kind_ = ModelKind::kBpe;
  bool byte_fallback_ = false;
  int64_t max_id_ = 0;
  VocabBuilder vocab_;
  std::vector<double> scores_;                 // Unigram, by id
  std::vector<std::string_view> added_texts_;  // of vocab_.added, in the document
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  if (tokenizer_json.size() > kMaxJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json of ", tokenizer_json.size(), " bytes; at most ", kMaxJsonBytes, " are read"));
  }
  simdjson::dom::parser parser;
  if (parser.allocate(std::max<size_t>(tokenizer_json.size(), 64), kMaxNesting) != simdjson::SUCCESS) {
    return absl::ResourceExhaustedError("no memory to parse tokenizer.json");
  }
  JsonElement root;
  const simdjson::error_code error = parser.parse(tokenizer_json.data(), tokenizer_json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", simdjson::error_message(error)));
  }
  ASSIGN_OR_RETURN(const JsonObject object, AsObject("tokenizer.json", root));
  auto parts = std::make_unique<TokenizerParts>();
  RETURN_IF_ERROR(Reader(object, *parts).Read());
  return FromParts(std::move(parts));
}

}  // namespace millrace
