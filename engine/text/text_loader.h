// SPDX-License-Identifier: Apache-2.0
#pragma once
// The text side of a model: its tokenizer and its chat template, read from where the model lies. Loading thread.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace millrace {

struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;         // never null
  std::unique_ptr<ChatTemplate> chat_template;  // null: the model has none
};

enum class MissingTokenizer : uint8_t { kIsAnError, kMeansBytes };

// `chat_template`: a path or a template that replaces the model's own; empty: the model's own.
// With kMeansBytes a model without tokenizer gets one whose 256 tokens are the bytes (models of random weights).
// NotFound or InvalidArgument with the file and the fault.
absl::StatusOr<ModelText> LoadModelText(const std::string& model_path, const std::string& chat_template,
                                        MissingTokenizer missing = MissingTokenizer::kIsAnError);

}  // namespace millrace
