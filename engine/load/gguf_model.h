// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a GGUF file says about its model: the shape of the forward pass, the vocabulary, the chat template. Plain
// functions, any thread.
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/load/gguf.h"
#include "engine/load/model_info.h"
#include "engine/text/vocab_spec.h"

namespace millrace {

// Whether a model path names a GGUF file: by its ending.
bool IsGgufPath(std::string_view path);

struct GgufText {
  VocabSpec vocab;
  std::string chat_template;  // empty: none
};

// InvalidArgument names the key and the fault; Unimplemented names what is supported.
absl::StatusOr<ModelInfo> GgufModelInfo(const GgufFile& file);
absl::StatusOr<GgufText> GgufTextOf(const GgufFile& file);

// The same from a file. NotFound: no such file.
absl::StatusOr<ModelInfo> ReadGgufModelInfo(const std::string& path);
absl::StatusOr<GgufText> ReadGgufText(const std::string& path);

}  // namespace millrace
