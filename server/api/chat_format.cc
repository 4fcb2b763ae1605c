// SPDX-License-Identifier: Apache-2.0
// OpenAI's chat.completion and chat.completion.chunk.
#include <utility>

#include "server/api/answer_format.h"
#include "server/api/json_writer.h"

namespace millrace {
namespace {

void AppendTokenLogprob(const TokenText& token, std::string& out) {
  out += R"({"token":)";
  AppendJsonString(token.bytes, out);
  out += R"(,"logprob":)";
  AppendJsonFloat(token.logprob, out);
  out += R"(,"bytes":)";
  AppendJsonBytes(token.bytes, out);
}

class ChatFormat : public AnswerFormat {
 public:
  ChatFormat(AnswerHead head, const ChatFormatOptions& options) : options_(options), head_(std::move(head)) {
    AppendHead(head_, "chat.completion.chunk", chunk_head_);
  }

  std::vector<std::string> Chunks(const TextDelta& delta, bool is_first, const Usage* usage) override {
    std::vector<std::string> chunks;
    if (is_first) {
      std::string chunk = Begin(delta.choice, R"({"role":"assistant","content":""})");
      End(chunk, ",\"logprobs\":null,", FinishReason::kNone, {}, usage);
      chunks.push_back(std::move(chunk));
    }
    if (!delta.text.empty() || !delta.logprobs.empty()) {
      std::string content = R"({"content":)";
      AppendJsonString(delta.text, content);
      content += '}';
      std::string chunk = Begin(delta.choice, content);
      std::string logprobs;
      AppendLogprobs(delta.logprobs, logprobs);
      End(chunk, logprobs, FinishReason::kNone, {}, usage);
      chunks.push_back(std::move(chunk));
    }
    if (delta.finish != FinishReason::kNone) {
      std::string chunk = Begin(delta.choice, "{}");
      End(chunk, ",\"logprobs\":null,", delta.finish, delta.stop_reason, usage);
      chunks.push_back(std::move(chunk));
    }
    return chunks;
  }

  std::string UsageChunk(const Usage& usage) override {
    std::string chunk = chunk_head_ + R"(],"usage":)";
    AppendUsage(usage, chunk);
    chunk += '}';
    return chunk;
  }

  std::string Whole(const std::vector<CollectedChoice>& choices, const Usage& usage) override {
    std::string out;
    AppendHead(head_, "chat.completion", out);
    for (size_t i = 0; i < choices.size(); ++i) {
      const CollectedChoice& choice = choices[i];
      out += i > 0 ? R"(,{"index":)" : R"({"index":)";
      AppendJsonInt(static_cast<int64_t>(i), out);
      out += R"(,"message":{"role":"assistant","content":)";
      AppendJsonString(choice.text, out);
      out += R"(,"refusal":null})";
      AppendLogprobs(choice.logprobs, out);
      AppendFinish(choice.finish, choice.stop_reason, out);
      out += '}';
    }
    out += R"(],"usage":)";
    AppendUsage(usage, out);
    if (!choices.empty() && !choices.front().prompt_logprobs.empty()) {
      out += R"(,"prompt_logprobs":)";
      AppendPromptLogprobs(choices.front().prompt_logprobs, out);
    }
    out += '}';
    return out;
  }

 private:
  std::string Begin(int32_t choice, std::string_view delta) const {
    std::string chunk = chunk_head_;
    chunk += R"({"index":)";
    AppendJsonInt(choice, chunk);
    chunk += R"(,"delta":)";
    chunk += delta;
    return chunk;
  }

  void End(std::string& chunk, std::string_view logprobs, FinishReason finish, const StopReason& reason,
           const Usage* usage) const {
    chunk += logprobs;
    AppendFinish(finish, reason, chunk);
    chunk += "}]";
    if (usage != nullptr) {
      chunk += R"(,"usage":)";
      AppendUsage(*usage, chunk);
    } else if (options_.has_usage_field) {
      chunk += R"(,"usage":null)";
    }
    chunk += '}';
  }

  // ,"logprobs":null, or the object with its commas.
  void AppendLogprobs(const std::vector<TokenText>& tokens, std::string& out) const {
    if (!options_.has_logprobs) {
      out += R"(,"logprobs":null,)";
      return;
    }
    out += R"(,"logprobs":{"content":[)";
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ',';
      AppendTokenLogprob(tokens[i], out);
      out += R"(,"top_logprobs":[)";
      const size_t num_top = std::min(tokens[i].top.size(), static_cast<size_t>(options_.num_top_logprobs));
      for (size_t j = 0; j < num_top; ++j) {
        if (j > 0) out += ',';
        AppendTokenLogprob(tokens[i].top[j], out);
        out += '}';
      }
      out += "]}";
    }
    out += R"(],"refusal":null},)";
  }

  const ChatFormatOptions options_;
  const AnswerHead head_;
  std::string chunk_head_;
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeChatFormat(AnswerHead head, const ChatFormatOptions& options) {
  return std::make_unique<ChatFormat>(std::move(head), options);
}

}  // namespace millrace
