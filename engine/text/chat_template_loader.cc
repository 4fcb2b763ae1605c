// SPDX-License-Identifier: Apache-2.0
// Where Hugging Face directories and GGUF files keep chat templates.
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/gguf_model.h"
#include "engine/text/chat_template.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxFileBytes = 64 << 20;

// The file's bytes; empty and ok when it does not exist.
absl::StatusOr<std::string> ReadIfPresent(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::string();
  const auto file_bytes = std::filesystem::file_size(path, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", error.message()));
  if (file_bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), " has ", file_bytes, " bytes, more than the limit of ", kMaxFileBytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(file_bytes), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " cannot be read"));
  }
  return text;
}

// The JSON object of a file; an empty one when it does not exist.
absl::StatusOr<TemplateValue> ReadJson(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadIfPresent(path));
  if (text.empty()) return TemplateValue::Dict();
  absl::StatusOr<TemplateValue> value = ParseJsonValue(text);
  if (!value.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", std::string(value.status().message())));
  }
  if (!value->is_dict()) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  return value;
}

// A chat_template field: one text, or a list of named ones of which we know "default" and "tool_use".
absl::Status TakeTemplates(const TemplateValue* field, ChatTemplateSource& source) {
  if (field == nullptr || field->is_none()) return absl::OkStatus();
  if (field->is_string()) {
    source.text = std::string(field->text());
    return absl::OkStatus();
  }
  if (!field->is_list()) return absl::InvalidArgumentError("chat_template is neither a text nor a list");
  for (const TemplateValue& entry : field->as_list().items) {
    const TemplateValue* name = entry.is_dict() ? entry.as_dict().Find("name") : nullptr;
    const TemplateValue* text = entry.is_dict() ? entry.as_dict().Find("template") : nullptr;
    if (name == nullptr || text == nullptr || !name->is_string() || !text->is_string()) {
      return absl::InvalidArgumentError("chat_template: each entry of the list needs a name and a template");
    }
    if (name->text() == "default") source.text = std::string(text->text());
    if (name->text() == "tool_use") source.tool_use_text = std::string(text->text());
  }
  if (source.text.empty()) source.text = source.tool_use_text;
  return absl::OkStatus();
}

// Every "..._token" that is a text or {"content": text}.
void TakeSpecialTokens(const TemplateDict& config, ChatTemplateSource& source) {
  for (const auto& [key, value] : config.entries()) {
    if (!key.is_string() || !key.text().ends_with("_token")) continue;
    const TemplateValue* text = value.is_dict() ? value.as_dict().Find("content") : &value;
    if (text == nullptr || !text->is_string()) continue;
    bool is_known = false;
    for (const auto& [name, known] : source.special_tokens) is_known |= name == key.text();
    if (!is_known) source.special_tokens.emplace_back(std::string(key.text()), std::string(text->text()));
  }
}

absl::StatusOr<ChatTemplateSource> GgufTemplateSource(const std::string& path) {
  ASSIGN_OR_RETURN(GgufText text, ReadGgufText(path));
  ChatTemplateSource source;
  source.text = std::move(text.chat_template);
  const auto add = [&](const char* name, const std::optional<int32_t>& id) {
    if (id.has_value() && static_cast<size_t>(*id) < text.vocab.tokens.size()) {
      source.special_tokens.emplace_back(name, text.vocab.tokens[static_cast<size_t>(*id)]);
    }
  };
  add("bos_token", text.vocab.bos_id);
  add("eos_token", text.vocab.eos_id);
  add("unk_token", text.vocab.unk_id);
  return source;
}

}  // namespace

absl::StatusOr<ChatTemplateSource> ReadChatTemplateSource(const std::string& model_dir) {
  if (IsGgufPath(model_dir)) return GgufTemplateSource(model_dir);
  const std::filesystem::path dir = model_dir;
  ChatTemplateSource source;
  ASSIGN_OR_RETURN(const TemplateValue config, ReadJson(dir / "tokenizer_config.json"));
  ASSIGN_OR_RETURN(const TemplateValue token_map, ReadJson(dir / "special_tokens_map.json"));
  TakeSpecialTokens(config.as_dict(), source);
  TakeSpecialTokens(token_map.as_dict(), source);

  RETURN_IF_ERROR(TakeTemplates(config.as_dict().Find("chat_template"), source));
  ASSIGN_OR_RETURN(const TemplateValue json, ReadJson(dir / "chat_template.json"));
  if (json.as_dict().Find("chat_template") != nullptr) {
    source.tool_use_text.clear();
    RETURN_IF_ERROR(TakeTemplates(json.as_dict().Find("chat_template"), source));
  }
  ASSIGN_OR_RETURN(std::string file_text, ReadIfPresent(dir / "chat_template.jinja"));
  if (!file_text.empty()) {
    source.text = std::move(file_text);
    source.tool_use_text.clear();
  }
  ASSIGN_OR_RETURN(file_text, ReadIfPresent(dir / "additional_chat_templates" / "tool_use.jinja"));
  if (!file_text.empty()) source.tool_use_text = std::move(file_text);
  return source;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(const std::string& model_dir, const std::string& given) {
  ASSIGN_OR_RETURN(ChatTemplateSource source, ReadChatTemplateSource(model_dir));
  if (!given.empty()) {
    source.tool_use_text.clear();
    source.text = given;
    // A template has a tag in it, a path has not.
    if (given.find('{') == std::string::npos && given.find('\n') == std::string::npos) {
      ASSIGN_OR_RETURN(source.text, ReadIfPresent(given));
      if (source.text.empty()) {
        return absl::NotFoundError(absl::StrCat("--chat-template: no such file: ", given));
      }
    }
  }
  if (source.text.empty()) {
    return absl::NotFoundError(
        absl::StrCat(model_dir,
                     " has no chat template (looked in chat_template.jinja, chat_template.json and "
                     "tokenizer_config.json); give one with --chat-template"));
  }
  return ChatTemplate::Parse(std::move(source));
}

}  // namespace millrace
