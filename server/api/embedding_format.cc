// SPDX-License-Identifier: Apache-2.0
#include "server/api/embedding_format.h"

#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

class EmbeddingFormat : public AnswerFormat {
 public:
  EmbeddingFormat(std::string model, EmbeddingEncoding encoding) : model_(std::move(model)), encoding_(encoding) {}

  std::vector<std::string> Chunks(const TextDelta&, bool, const Usage*) override { return {}; }
  std::string UsageChunk(const Usage&) override { return {}; }

  std::string Whole(const std::vector<CollectedChoice>& choices, const Usage& usage) override {
    std::string out = R"({"object":"list","data":[)";
    for (size_t i = 0; i < choices.size(); ++i) {
      out += i > 0 ? R"(,{"object":"embedding","index":)" : R"({"object":"embedding","index":)";
      AppendJsonInt(static_cast<int64_t>(i), out);
      out += R"(,"embedding":)";
      AppendVector(choices[i].embedding, out);
      out += '}';
    }
    out += R"(],"model":)";
    AppendJsonString(model_, out);
    out += R"(,"usage":{"prompt_tokens":)";
    AppendJsonInt(usage.num_prompt_tokens, out);
    out += R"(,"total_tokens":)";
    AppendJsonInt(usage.num_prompt_tokens, out);
    out += "}}";
    return out;
  }

 private:
  void AppendVector(const std::vector<float>& vector, std::string& out) const {
    if (encoding_ == EmbeddingEncoding::kBase64) {
      // Little-endian float32, as OpenAI's clients read it.
      std::string bytes(vector.size() * sizeof(float), '\0');
      std::memcpy(bytes.data(), vector.data(), bytes.size());
      out += '"';
      out += absl::Base64Escape(bytes);
      out += '"';
      return;
    }
    out += '[';
    for (size_t i = 0; i < vector.size(); ++i) {
      if (i > 0) out += ',';
      AppendJsonFloat(vector[i], out);
    }
    out += ']';
  }

  const std::string model_;
  const EmbeddingEncoding encoding_;
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeEmbeddingFormat(std::string model, EmbeddingEncoding encoding) {
  return std::make_unique<EmbeddingFormat>(std::move(model), encoding);
}

}  // namespace millrace
