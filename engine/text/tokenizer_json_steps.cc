// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer_json_steps.h"

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxLiteralBytes = 1024;
constexpr size_t kMaxDecoderLiteralBytes = 64;

struct Component {
  std::string where;  // for errors, e.g. "normalizer Replace"
  std::string_view type;
  JsonObject object;
};

absl::StatusOr<Component> ReadComponent(std::string_view what, const JsonElement& element) {
  Component component;
  ASSIGN_OR_RETURN(component.object, AsObject(what, element));
  ASSIGN_OR_RETURN(component.type, StringField(what, component.object, "type", ""));
  if (component.type.empty()) return WrongType(what, "type", "the name of a component");
  component.where = absl::StrCat(std::string(what), " ", std::string(component.type.substr(0, 80)));
  return component;
}

absl::Status Unknown(const Component& component) {
  return absl::InvalidArgumentError(absl::StrCat(component.where, ": this component is not known"));
}

// Reads the members of a Sequence with `read_one`.
template <class Steps, class ReadOne>
absl::Status ReadSequence(const Component& component, std::string_view key, Steps& steps, ReadOne&& read_one) {
  ASSIGN_OR_RETURN(const JsonArray members, ArrayField(component.where, component.object, key));
  for (const JsonElement& member : members) {
    RETURN_IF_ERROR(read_one(member, steps));
    if (steps.size() > kMaxSteps) return absl::InvalidArgumentError(absl::StrCat(component.where, ": too many steps"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BoundedString(const Component& c, std::string_view key, std::string_view fallback,
                                          size_t max_bytes) {
  ASSIGN_OR_RETURN(const std::string_view text, StringField(c.where, c.object, key, fallback));
  if (text.size() > max_bytes) return WrongType(c.where, key, absl::StrCat("at most ", max_bytes, " bytes"));
  return std::string(text);
}

struct PatternField {
  SplitPattern pattern;
  std::string literal;  // empty for a regular expression
};

absl::StatusOr<PatternField> ReadPattern(const Component& c, size_t max_literal_bytes) {
  const auto element = Field(c.object, "pattern");
  if (!element) return WrongType(c.where, "pattern", "given");
  ASSIGN_OR_RETURN(const JsonObject object, AsObject(absl::StrCat(c.where, " pattern"), *element));
  if (Field(object, "Regex")) {
    ASSIGN_OR_RETURN(const std::string_view expression, StringField(c.where, object, "Regex", ""));
    auto pattern = SplitPattern::Expression(expression);
    if (!pattern.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(c.where, ": ", pattern.status().message()));
    }
    return PatternField{*std::move(pattern), ""};
  }
  ASSIGN_OR_RETURN(const std::string_view literal, StringField(c.where, object, "String", ""));
  if (literal.empty() || literal.size() > max_literal_bytes) {
    return WrongType(c.where, "pattern", absl::StrCat("a Regex, or a String of 1 to ", max_literal_bytes, " bytes"));
  }
  return PatternField{SplitPattern::Literal(std::string(literal)), std::string(literal)};
}

absl::StatusOr<SplitBehavior> ReadBehavior(const Component& c, std::string_view fallback) {
  ASSIGN_OR_RETURN(const std::string_view name, StringField(c.where, c.object, "behavior", fallback));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return WrongType(c.where, "behavior", "one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

absl::Status ReadBertNormalizer(const Component& c, std::vector<NormalizerStep>& steps) {
  ASSIGN_OR_RETURN(const bool clean, BoolField(c.where, c.object, "clean_text", true));
  ASSIGN_OR_RETURN(const bool chinese, BoolField(c.where, c.object, "handle_chinese_chars", true));
  ASSIGN_OR_RETURN(const bool lowercase, BoolField(c.where, c.object, "lowercase", true));
  ASSIGN_OR_RETURN(const bool accents, BoolField(c.where, c.object, "strip_accents", lowercase));
  if (clean) steps.push_back(CleanBertStep{});
  if (chinese) steps.push_back(SpaceChineseStep{});
  if (accents) {
    steps.push_back(UnicodeFormStep{UnicodeForm::kNfd});
    steps.push_back(StripAccentsStep{.only_nonspacing = true});
  }
  if (lowercase) steps.push_back(LowercaseStep{});
  return absl::OkStatus();
}

absl::StatusOr<NormalizerStep> ReadNormalizerWithFields(const Component& c) {
  if (c.type == "Replace") {
    ASSIGN_OR_RETURN(PatternField field, ReadPattern(c, kMaxLiteralBytes));
    ASSIGN_OR_RETURN(std::string content, BoundedString(c, "content", "", kMaxLiteralBytes));
    return ReplaceStep{std::move(field.pattern), std::move(content)};
  }
  if (c.type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, BoundedString(c, "prepend", "", kMaxLiteralBytes));
    return PrependStep{std::move(prefix)};
  }
  if (c.type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, BoolField(c.where, c.object, "strip_left", true));
    ASSIGN_OR_RETURN(const bool right, BoolField(c.where, c.object, "strip_right", true));
    return StripStep{left, right};
  }
  if (c.type == "Precompiled") {
    ASSIGN_OR_RETURN(const std::string_view map, StringField(c.where, c.object, "precompiled_charsmap", ""));
    ASSIGN_OR_RETURN(PrecompiledCharsmap charsmap, PrecompiledCharsmap::Parse(map));
    return charsmap;
  }
  return Unknown(c);
}

}  // namespace

absl::Status ReadNormalizer(const JsonElement& element, std::vector<NormalizerStep>& steps) {
  ASSIGN_OR_RETURN(const Component c, ReadComponent("normalizer", element));
  if (c.type == "Sequence") return ReadSequence(c, "normalizers", steps, ReadNormalizer);
  if (c.type == "BertNormalizer") return ReadBertNormalizer(c, steps);
  if (c.type == "Precompiled" && !Field(c.object, "precompiled_charsmap")) return absl::OkStatus();
  const std::pair<std::string_view, NormalizerStep (*)()> kPlain[] = {
      {"NFC", [] { return NormalizerStep(UnicodeFormStep{UnicodeForm::kNfc}); }},
      {"NFD", [] { return NormalizerStep(UnicodeFormStep{UnicodeForm::kNfd}); }},
      {"NFKC", [] { return NormalizerStep(UnicodeFormStep{UnicodeForm::kNfkc}); }},
      {"NFKD", [] { return NormalizerStep(UnicodeFormStep{UnicodeForm::kNfkd}); }},
      {"Lowercase", [] { return NormalizerStep(LowercaseStep{}); }},
      {"StripAccents", [] { return NormalizerStep(StripAccentsStep{}); }},
      {"Nmt", [] { return NormalizerStep(CleanNmtStep{}); }},
      {"ByteLevel", [] { return NormalizerStep(ByteAlphabetStep{}); }},
  };
  for (const auto& [name, make] : kPlain) {
    if (c.type != name) continue;
    steps.push_back(make());
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(NormalizerStep step, ReadNormalizerWithFields(c));
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

namespace {

absl::StatusOr<PreTokenizerStep> ReadMetaspace(const Component& c) {
  MetaspaceStep step;
  ASSIGN_OR_RETURN(step.replacement, BoundedString(c, "replacement", step.replacement, 4));
  if (step.replacement.empty()) return WrongType(c.where, "replacement", "a character");
  ASSIGN_OR_RETURN(step.split, BoolField(c.where, c.object, "split", true));
  ASSIGN_OR_RETURN(const bool prefix, BoolField(c.where, c.object, "add_prefix_space", true));
  ASSIGN_OR_RETURN(const std::string_view scheme,
                   StringField(c.where, c.object, "prepend_scheme", prefix ? "always" : "never"));
  if (scheme == "always") {
    step.prepend_scheme = PrependScheme::kAlways;
  } else if (scheme == "first") {
    step.prepend_scheme = PrependScheme::kFirst;
  } else if (scheme == "never") {
    step.prepend_scheme = PrependScheme::kNever;
  } else {
    return WrongType(c.where, "prepend_scheme", "always, first or never");
  }
  return step;
}

absl::StatusOr<PreTokenizerStep> ReadByteLevel(const Component& c) {
  ByteLevelStep step;
  ASSIGN_OR_RETURN(step.add_prefix_space, BoolField(c.where, c.object, "add_prefix_space", true));
  ASSIGN_OR_RETURN(step.use_regex, BoolField(c.where, c.object, "use_regex", true));
  return step;
}

absl::StatusOr<PreTokenizerStep> ReadSplit(const Component& c) {
  ASSIGN_OR_RETURN(PatternField field, ReadPattern(c, kMaxLiteralBytes));
  ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(c, ""));
  ASSIGN_OR_RETURN(const bool invert, BoolField(c.where, c.object, "invert", false));
  return SplitStep{std::move(field.pattern), behavior, invert};
}

absl::StatusOr<PreTokenizerStep> ReadPreTokenizerStep(const Component& c) {
  if (c.type == "ByteLevel") return ReadByteLevel(c);
  if (c.type == "Split") return ReadSplit(c);
  if (c.type == "Metaspace") return ReadMetaspace(c);
  if (c.type == "Digits") {
    ASSIGN_OR_RETURN(const bool single, BoolField(c.where, c.object, "individual_digits", false));
    return CharClassStep{IsNumeric, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous};
  }
  if (c.type == "Punctuation") {
    ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(c, "Isolated"));
    return CharClassStep{IsPunctuation, behavior};
  }
  if (c.type == "WhitespaceSplit") return CharClassStep{IsWhiteSpace, SplitBehavior::kRemoved};
  if (c.type == "Whitespace") return WordsStep{};
  if (c.type == "CharDelimiterSplit") {
    ASSIGN_OR_RETURN(std::string delimiter, BoundedString(c, "delimiter", "", 4));
    if (delimiter.empty()) return WrongType(c.where, "delimiter", "a character");
    return SplitStep{SplitPattern::Literal(std::move(delimiter)), SplitBehavior::kRemoved, false};
  }
  return Unknown(c);
}

}  // namespace

absl::Status ReadPreTokenizer(const JsonElement& element, std::vector<PreTokenizerStep>& steps) {
  ASSIGN_OR_RETURN(const Component c, ReadComponent("pre_tokenizer", element));
  if (c.type == "Sequence") return ReadSequence(c, "pretokenizers", steps, ReadPreTokenizer);
  if (c.type == "BertPreTokenizer") {
    steps.push_back(CharClassStep{IsWhiteSpace, SplitBehavior::kRemoved});
    steps.push_back(CharClassStep{IsPunctuation, SplitBehavior::kIsolated});
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(PreTokenizerStep step, ReadPreTokenizerStep(c));
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

namespace {

absl::StatusOr<DecoderStep> ReadStrip(const Component& c) {
  StripDecode step;
  ASSIGN_OR_RETURN(step.content, BoundedString(c, "content", " ", 4));
  ASSIGN_OR_RETURN(const int64_t start, IntField(c.where, c.object, "start", 0));
  ASSIGN_OR_RETURN(const int64_t stop, IntField(c.where, c.object, "stop", 0));
  if (start < 0 || stop < 0 || start > 1024 || stop > 1024) return WrongType(c.where, "start", "from 0 to 1024");
  step.num_start = static_cast<size_t>(start);
  step.num_stop = static_cast<size_t>(stop);
  return step;
}

absl::StatusOr<DecoderStep> ReadDecoderStep(const Component& c) {
  if (c.type == "ByteLevel") return ByteLevelDecode{};
  if (c.type == "ByteFallback") return ByteFallbackDecode{};
  if (c.type == "Fuse") return FuseDecode{};
  if (c.type == "Strip") return ReadStrip(c);
  if (c.type == "Metaspace") {
    ASSIGN_OR_RETURN(const PreTokenizerStep twin, ReadMetaspace(c));
    const auto& metaspace = std::get<MetaspaceStep>(twin);
    return MetaspaceDecode{metaspace.replacement, metaspace.prepend_scheme != PrependScheme::kNever};
  }
  if (c.type == "Replace") {
    ASSIGN_OR_RETURN(PatternField field, ReadPattern(c, kMaxDecoderLiteralBytes));
    ASSIGN_OR_RETURN(std::string content, BoundedString(c, "content", "", kMaxDecoderLiteralBytes));
    return ReplaceDecode{std::move(field.pattern), std::move(field.literal), std::move(content)};
  }
  if (c.type == "WordPiece") {
    WordPieceDecode step;
    ASSIGN_OR_RETURN(step.prefix, BoundedString(c, "prefix", step.prefix, kMaxDecoderLiteralBytes));
    ASSIGN_OR_RETURN(step.cleanup, BoolField(c.where, c.object, "cleanup", true));
    return step;
  }
  if (c.type == "BPEDecoder") {
    SuffixDecode step;
    ASSIGN_OR_RETURN(step.suffix, BoundedString(c, "suffix", step.suffix, kMaxDecoderLiteralBytes));
    return step;
  }
  return Unknown(c);
}

}  // namespace

absl::Status ReadDecoder(const JsonElement& element, std::vector<DecoderStep>& steps) {
  ASSIGN_OR_RETURN(const Component c, ReadComponent("decoder", element));
  if (c.type == "Sequence") return ReadSequence(c, "decoders", steps, ReadDecoder);
  ASSIGN_OR_RETURN(DecoderStep step, ReadDecoderStep(c));
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

}  // namespace millrace
