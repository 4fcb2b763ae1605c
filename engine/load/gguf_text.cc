// SPDX-License-Identifier: Apache-2.0
// The vocabulary and the chat template of a GGUF file.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/gguf_model.h"
#include "engine/load/mapped_file.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr char kPrefix[] = "tokenizer.ggml.";

absl::Status ReadId(const GgufFile& file, const char* name, std::optional<int32_t>& id) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> value, file.Int(absl::StrCat(kPrefix, name)));
  // Writers mark "none" with -1 as an unsigned number.
  if (value.has_value() && *value >= 0 && *value < (int64_t{1} << 31)) id = static_cast<int32_t>(*value);
  return absl::OkStatus();
}

absl::Status ReadFlag(const GgufFile& file, const char* name, bool fallback, bool& flag) {
  ASSIGN_OR_RETURN(const std::optional<bool> value, file.Bool(absl::StrCat(kPrefix, name)));
  flag = value.value_or(fallback);
  return absl::OkStatus();
}

// Where the file does not say: SentencePiece models begin with a BOS, of the byte-level ones Llama 3 and Tekken do.
bool AddsBosByDefault(const VocabSpec& vocab) {
  return vocab.model == "llama" || vocab.pre == "llama-bpe" || vocab.pre == "llama3" || vocab.pre == "llama-v3" ||
         vocab.pre == "tekken";
}

absl::Status ReadTokens(const GgufFile& file, VocabSpec& vocab) {
  const std::string prefix = kPrefix;
  ASSIGN_OR_RETURN(vocab.tokens, file.Strings(prefix + "tokens"));
  if (vocab.tokens.empty()) return absl::InvalidArgumentError("GGUF: key 'tokenizer.ggml.tokens' is missing or empty");
  ASSIGN_OR_RETURN(vocab.scores, file.Floats(prefix + "scores"));
  ASSIGN_OR_RETURN(vocab.merges, file.Strings(prefix + "merges"));
  ASSIGN_OR_RETURN(const std::vector<int32_t> types, file.Ints(prefix + "token_type"));
  for (const auto [name, count] : {std::pair("scores", vocab.scores.size()), {"token_type", types.size()}}) {
    if (count != 0 && count != vocab.tokens.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF: ", count, " values of '", prefix, name, "' for ", vocab.tokens.size(), " tokens"));
    }
  }
  for (const int32_t type : types) {
    if (type < 0 || type > static_cast<int32_t>(VocabTokenType::kByte)) {
      return absl::InvalidArgumentError(absl::StrCat("GGUF: key '", prefix, "token_type' holds ", type));
    }
    vocab.token_types.push_back(static_cast<VocabTokenType>(type));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufText> GgufTextOf(const GgufFile& file) {
  GgufText text;
  VocabSpec& vocab = text.vocab;
  const std::string prefix = kPrefix;
  ASSIGN_OR_RETURN(const std::optional<std::string> model, file.String(prefix + "model"));
  if (!model.has_value()) return absl::InvalidArgumentError("GGUF: key 'tokenizer.ggml.model' is missing");
  vocab.model = *model;
  if (vocab.model != "llama" && vocab.model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat("GGUF: tokenizer model '", vocab.model.substr(0, 50),
                                                 "' is not supported; supported: llama, gpt2"));
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> pre, file.String(prefix + "pre"));
  vocab.pre = pre.value_or(vocab.model == "gpt2" ? "default" : "");
  RETURN_IF_ERROR(ReadTokens(file, vocab));
  RETURN_IF_ERROR(ReadId(file, "bos_token_id", vocab.bos_id));
  RETURN_IF_ERROR(ReadId(file, "eos_token_id", vocab.eos_id));
  RETURN_IF_ERROR(ReadId(file, "unknown_token_id", vocab.unk_id));
  RETURN_IF_ERROR(ReadFlag(file, "add_bos_token", AddsBosByDefault(vocab), vocab.add_bos));
  RETURN_IF_ERROR(ReadFlag(file, "add_eos_token", false, vocab.add_eos));
  RETURN_IF_ERROR(ReadFlag(file, "add_space_prefix", true, vocab.add_space_prefix));
  ASSIGN_OR_RETURN(const std::optional<std::string> chat_template, file.String("tokenizer.chat_template"));
  text.chat_template = chat_template.value_or("");
  return text;
}

absl::StatusOr<GgufText> ReadGgufText(const std::string& path) {
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> mapped, MappedFile::Open(path));
  absl::StatusOr<GgufText> text = absl::InternalError("");
  const absl::StatusOr<GgufFile> file = ParseGguf(mapped->bytes());
  text = file.ok() ? GgufTextOf(*file) : file.status();
  if (text.ok()) return text;
  return absl::Status(text.status().code(), absl::StrCat(path, ": ", text.status().message()));
}

}  // namespace millrace
