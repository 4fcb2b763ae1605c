// SPDX-License-Identifier: Apache-2.0
#include "engine/text/text_loader.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/gguf_model.h"
#include "engine/text/byte_alphabet.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxTokenizerBytes = 256u << 20;

absl::StatusOr<std::unique_ptr<Tokenizer>> ByteTokenizer() {
  VocabSpec spec{.model = "gpt2", .pre = "gpt-2"};
  for (int byte = 0; byte < 256; ++byte)
    spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  return Tokenizer::FromVocab(spec);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadTokenizer(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t num_bytes = fs::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path.string(), ": ", error.message()));
  if (num_bytes > kMaxTokenizerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", num_bytes, " bytes, the limit is ", kMaxTokenizerBytes));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string json((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(), absl::StrCat(path.string(), ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> GgufTokenizer(const std::string& path) {
  ASSIGN_OR_RETURN(const GgufText text, ReadGgufText(path));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromVocab(text.vocab);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(), absl::StrCat(path, ": ", tokenizer.status().message()));
}

}  // namespace

absl::StatusOr<ModelText> LoadModelText(const std::string& model_path, const std::string& chat_template,
                                        MissingTokenizer missing) {
  ModelText text;
  const fs::path tokenizer_path = fs::path(model_path) / "tokenizer.json";
  std::error_code error;
  if (IsGgufPath(model_path)) {
    ASSIGN_OR_RETURN(text.tokenizer, GgufTokenizer(model_path));
  } else if (fs::exists(tokenizer_path, error)) {
    ASSIGN_OR_RETURN(text.tokenizer, ReadTokenizer(tokenizer_path));
  } else if (missing == MissingTokenizer::kMeansBytes) {
    ASSIGN_OR_RETURN(text.tokenizer, ByteTokenizer());
  } else {
    return absl::NotFoundError(absl::StrCat(tokenizer_path.string(), ": the model has no tokenizer"));
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> loaded = LoadChatTemplate(model_path, chat_template);
  if (loaded.ok()) {
    text.chat_template = *std::move(loaded);
  } else if (!absl::IsNotFound(loaded.status()) || !chat_template.empty()) {
    return loaded.status();
  }
  return text;
}

}  // namespace millrace
