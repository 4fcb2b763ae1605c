// SPDX-License-Identifier: Apache-2.0
// OpenAI's chat.completion and chat.completion.chunk.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/answer_format.h"
#include "server/api/call_id.h"
#include "server/wire/json_writer.h"

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
    while (parsers_.size() <= static_cast<size_t>(delta.choice)) parsers_.emplace_back(options_.parser);
    AnswerParser& parser = parsers_[static_cast<size_t>(delta.choice)];
    const int32_t num_calls_before = parser.num_calls();
    AnswerParts parts;
    parser.Push(delta.text, parts);
    if (delta.finish != FinishReason::kNone) parser.Finish(parts);
    std::vector<std::string> chunks;
    const auto add = [&](std::string_view body, std::string_view logprobs) {
      std::string chunk = Begin(delta.choice, body);
      End(chunk, logprobs, FinishReason::kNone, {}, usage);
      chunks.push_back(std::move(chunk));
    };
    if (is_first) add(R"({"role":"assistant","content":""})", kNoLogprobs);
    if (!parts.reasoning.empty()) add(Member("reasoning_content", parts.reasoning), kNoLogprobs);
    if (!parts.content.empty() || !delta.logprobs.empty()) {
      std::string logprobs;
      AppendLogprobs(delta.logprobs, logprobs);
      add(Member("content", parts.content), logprobs);
    }
    if (!parts.calls.empty()) {
      std::string calls = R"({"tool_calls":[)";
      AppendCalls(parts.calls, delta.choice, num_calls_before, calls);
      add(calls + "]}", kNoLogprobs);
    }
    if (delta.finish != FinishReason::kNone) {
      std::string chunk = Begin(delta.choice, "{}");
      End(chunk, kNoLogprobs, delta.finish, delta.stop_reason, usage, parser.num_calls());
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
      AnswerParser parser(options_.parser);
      AnswerParts parts;
      parser.Push(choice.text, parts);
      parser.Finish(parts);
      out += R"(,"message":)";
      AppendMessage(parts, static_cast<int32_t>(i), out);
      AppendLogprobs(choice.logprobs, out);
      AppendChatFinish(choice.finish, choice.stop_reason, parser.num_calls(), out);
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
  static constexpr char kNoLogprobs[] = ",\"logprobs\":null,";

  static std::string Member(const char* name, std::string_view text) {
    std::string out = absl::StrCat("{\"", name, "\":");
    AppendJsonString(text, out);
    return out + '}';
  }

  void AppendMessage(const AnswerParts& parts, int32_t choice, std::string& out) const {
    out += R"({"role":"assistant","content":)";
    if (parts.content.empty() && !parts.calls.empty()) {
      out += "null";
    } else {
      AppendJsonString(parts.content, out);
    }
    out += R"(,"refusal":null)";
    if (!parts.reasoning.empty()) {
      out += R"(,"reasoning_content":)";
      AppendJsonString(parts.reasoning, out);
    }
    if (!parts.calls.empty()) {
      out += R"(,"tool_calls":[)";
      AppendCalls(parts.calls, choice, -1, out);
      out += ']';
    }
    out += '}';
  }

  // `first`: the number of the first one in a stream, where calls carry their index; -1 in a whole answer.
  void AppendCalls(const std::vector<ParsedToolCall>& calls, int32_t choice, int32_t first, std::string& out) const {
    for (size_t i = 0; i < calls.size(); ++i) {
      const int32_t number = std::max(first, 0) + static_cast<int32_t>(i);
      out += i > 0 ? ",{" : "{";
      if (first >= 0) {
        out += R"("index":)";
        AppendJsonInt(number, out);
        out += ',';
      }
      out += R"("id":)";
      AppendJsonString(MakeCallId(made_at_, choice, number), out);
      out += R"(,"type":"function","function":{"name":)";
      AppendJsonString(calls[i].name, out);
      out += R"(,"arguments":)";
      AppendJsonString(calls[i].arguments, out);
      out += "}}";
    }
  }

  // An answer that ends by itself after calls waits for their results.
  static void AppendChatFinish(FinishReason finish, const StopReason& reason, int32_t num_calls, std::string& out) {
    if (finish == FinishReason::kStop && num_calls > 0) {
      out += R"("finish_reason":"tool_calls","stop_reason":null)";
    } else {
      AppendFinish(finish, reason, out);
    }
  }

  std::string Begin(int32_t choice, std::string_view delta) const {
    std::string chunk = chunk_head_;
    chunk += R"({"index":)";
    AppendJsonInt(choice, chunk);
    chunk += R"(,"delta":)";
    chunk += delta;
    return chunk;
  }

  void End(std::string& chunk, std::string_view logprobs, FinishReason finish, const StopReason& reason,
           const Usage* usage, int32_t num_calls = 0) const {
    chunk += logprobs;
    AppendChatFinish(finish, reason, num_calls, chunk);
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
  const int64_t made_at_ = absl::GetCurrentTimeNanos();
  std::string chunk_head_;
  std::vector<AnswerParser> parsers_;  // of a stream's choices
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeChatFormat(AnswerHead head, const ChatFormatOptions& options) {
  return std::make_unique<ChatFormat>(std::move(head), options);
}

}  // namespace millrace
