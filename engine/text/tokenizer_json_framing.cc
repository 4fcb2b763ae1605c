// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer_json_steps.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxFramingIds = 1024;
constexpr int kMaxNesting = 16;

absl::StatusOr<int32_t> KnownId(std::string_view where, const VocabBuilder& vocab, int64_t id) {
  const bool known = id >= 0 && id < static_cast<int64_t>(vocab.texts.size()) && vocab.texts[id].data() != nullptr;
  if (!known) return absl::InvalidArgumentError(absl::StrCat(std::string(where), ": there is no token ", id));
  return static_cast<int32_t>(id);
}

// The ids of one special token of a template.
absl::Status AppendSpecial(const std::optional<JsonElement>& specials, std::string_view name, const VocabBuilder& vocab,
                           std::vector<int32_t>& out) {
  constexpr std::string_view kWhere = "post_processor TemplateProcessing";
  std::optional<JsonElement> entry;
  if (specials) {
    ASSIGN_OR_RETURN(const JsonObject by_name, AsObject("post_processor TemplateProcessing special_tokens", *specials));
    entry = Field(by_name, name);
  }
  if (!entry) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(kWhere), ": '", std::string(name), "' is not among special_tokens"));
  }
  ASSIGN_OR_RETURN(const JsonObject object, AsObject(kWhere, *entry));
  ASSIGN_OR_RETURN(const JsonArray ids, ArrayField(kWhere, object, "ids"));
  for (const JsonElement& element : ids) {
    int64_t id = -1;
    if (element.get(id) != simdjson::SUCCESS) return WrongType(kWhere, "ids", "a list of integers");
    ASSIGN_OR_RETURN(const int32_t known, KnownId(kWhere, vocab, id));
    out.push_back(known);
    if (out.size() > kMaxFramingIds) return WrongType(kWhere, "single", "shorter");
  }
  return absl::OkStatus();
}

// Puts ids around those already there.
void Wrap(const std::vector<int32_t>& before, const std::vector<int32_t>& behind, TokenizerParts& parts) {
  parts.prefix_ids.insert(parts.prefix_ids.begin(), before.begin(), before.end());
  parts.suffix_ids.insert(parts.suffix_ids.end(), behind.begin(), behind.end());
}

absl::Status ReadTemplate(const JsonObject& object, const VocabBuilder& vocab, TokenizerParts& parts) {
  constexpr std::string_view kWhere = "post_processor TemplateProcessing";
  ASSIGN_OR_RETURN(const JsonArray single, ArrayField(kWhere, object, "single"));
  const auto specials = Field(object, "special_tokens");
  std::vector<int32_t> before;
  std::vector<int32_t> behind;
  int num_texts = 0;
  for (const JsonElement& element : single) {
    ASSIGN_OR_RETURN(const JsonObject item, AsObject("post_processor TemplateProcessing single", element));
    if (const auto special = Field(item, "SpecialToken")) {
      ASSIGN_OR_RETURN(const JsonObject fields, AsObject("SpecialToken", *special));
      ASSIGN_OR_RETURN(const std::string_view name, StringField(kWhere, fields, "id", ""));
      RETURN_IF_ERROR(AppendSpecial(specials, name, vocab, num_texts == 0 ? before : behind));
    } else if (Field(item, "Sequence")) {
      ++num_texts;
    } else {
      return WrongType(kWhere, "single", "a list of SpecialToken and Sequence");
    }
  }
  if (num_texts != 1) return WrongType(kWhere, "single", "a template with the text once");
  Wrap(before, behind, parts);
  return absl::OkStatus();
}

// "cls": [token, id] and "sep": [token, id] of BertProcessing and RobertaProcessing.
absl::Status ReadClsSep(std::string_view where, const JsonObject& object, const VocabBuilder& vocab,
                        TokenizerParts& parts) {
  std::vector<int32_t> ids;
  for (const std::string_view key : {"cls", "sep"}) {
    ASSIGN_OR_RETURN(const JsonArray pair, ArrayField(where, object, key));
    int64_t id = -1;
    if (pair.at(1).get(id) != simdjson::SUCCESS) return WrongType(where, key, "[token, id]");
    ASSIGN_OR_RETURN(const int32_t known, KnownId(where, vocab, id));
    ids.push_back(known);
  }
  Wrap({ids[0]}, {ids[1]}, parts);
  return absl::OkStatus();
}

absl::Status ReadNested(const JsonElement& element, const VocabBuilder& vocab, int depth, TokenizerParts& parts) {
  ASSIGN_OR_RETURN(const JsonObject object, AsObject("post_processor", element));
  ASSIGN_OR_RETURN(const std::string_view type, StringField("post_processor", object, "type", ""));
  if (type == "ByteLevel") return absl::OkStatus();  // only moves offsets
  if (type == "TemplateProcessing") return ReadTemplate(object, vocab, parts);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return ReadClsSep(absl::StrCat("post_processor ", std::string(type)), object, vocab, parts);
  }
  if (type == "Sequence" && depth < kMaxNesting) {
    ASSIGN_OR_RETURN(const JsonArray members, ArrayField("post_processor Sequence", object, "processors"));
    for (const JsonElement& member : members) {
      RETURN_IF_ERROR(ReadNested(member, vocab, depth + 1, parts));
      if (parts.prefix_ids.size() + parts.suffix_ids.size() > kMaxFramingIds) {
        return WrongType("post_processor Sequence", "processors", "shorter");
      }
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("post_processor ", std::string(type.substr(0, 80)), ": this component is not known"));
}

}  // namespace

absl::Status ReadPostProcessor(const JsonElement& element, const VocabBuilder& vocab, TokenizerParts& parts) {
  RETURN_IF_ERROR(ReadNested(element, vocab, 0, parts));
  if (!parts.prefix_ids.empty()) parts.bos_id = parts.prefix_ids.front();
  if (!parts.suffix_ids.empty()) parts.eos_id = parts.suffix_ids.back();
  return absl::OkStatus();
}

}  // namespace millrace
