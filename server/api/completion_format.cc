// SPDX-License-Identifier: Apache-2.0
// OpenAI's text_completion, whole and in chunks.
#include <algorithm>
#include <utility>

#include "server/api/answer_format.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

class CompletionFormat : public AnswerFormat {
 public:
  CompletionFormat(AnswerHead head, CompletionFormatOptions options)
      : options_(std::move(options)), head_(std::move(head)) {
    AppendHead(head_, "text_completion", chunk_head_);
  }

  std::vector<std::string> Chunks(const TextDelta& delta, bool is_first, const Usage* usage) override {
    const auto index = static_cast<size_t>(delta.choice);
    if (offsets_.size() <= index) offsets_.resize(index + 1, 0);
    std::string text;
    std::string chunk = chunk_head_;
    const CompletionFormatOptions::Echo* echo = is_first ? EchoOf(index) : nullptr;
    if (echo != nullptr) text = echo->text;
    text += delta.text;
    chunk += R"({"index":)";
    AppendJsonInt(delta.choice, chunk);
    chunk += R"(,"text":)";
    AppendJsonString(text, chunk);
    AppendLogprobs(echo, delta.prompt_logprobs, delta.logprobs, offsets_[index], chunk);
    AppendFinish(delta.finish, delta.stop_reason, chunk);
    chunk += "}]";
    if (usage != nullptr) {
      chunk += R"(,"usage":)";
      AppendUsage(*usage, chunk);
    } else if (options_.has_usage_field) {
      chunk += R"(,"usage":null)";
    }
    chunk += '}';
    std::vector<std::string> chunks;
    chunks.push_back(std::move(chunk));
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
    AppendHead(head_, "text_completion", out);
    for (size_t i = 0; i < choices.size(); ++i) {
      const CollectedChoice& choice = choices[i];
      const CompletionFormatOptions::Echo* echo = EchoOf(i);
      out += i > 0 ? R"(,{"index":)" : R"({"index":)";
      AppendJsonInt(static_cast<int64_t>(i), out);
      out += R"(,"text":)";
      AppendJsonString(echo != nullptr ? echo->text + choice.text : choice.text, out);
      size_t offset = 0;
      AppendLogprobs(echo, choice.prompt_logprobs, choice.logprobs, offset, out);
      AppendFinish(choice.finish, choice.stop_reason, out);
      if (options_.shows_prompt_logprobs) {
        out += R"(,"prompt_logprobs":)";
        AppendPromptLogprobs(choice.prompt_logprobs, out);
      }
      out += '}';
    }
    out += R"(],"usage":)";
    AppendUsage(usage, out);
    out += '}';
    return out;
  }

 private:
  const CompletionFormatOptions::Echo* EchoOf(size_t choice) const {
    if (options_.echoes.empty()) return nullptr;
    return &options_.echoes[choice / static_cast<size_t>(options_.num_choices_per_prompt)];
  }

  // Four parallel lists; the prompt's tokens come first when it is echoed, its very first without a probability.
  void AppendLogprobs(const CompletionFormatOptions::Echo* echo, const std::vector<TokenText>& prompt,
                      const std::vector<TokenText>& tokens, size_t& offset, std::string& out) const {
    if (!options_.has_logprobs) {
      out += R"(,"logprobs":null,)";
      return;
    }
    std::string texts, logprobs, tops, offsets;
    const auto append = [&](const TokenText& token, bool has_logprob) {
      const char* comma = texts.empty() ? "" : ",";
      texts += comma, logprobs += comma, tops += comma, offsets += comma;
      AppendJsonString(token.bytes, texts);
      AppendJsonInt(static_cast<int64_t>(offset), offsets);
      offset += token.bytes.size();
      if (has_logprob) {
        AppendJsonFloat(token.logprob, logprobs);
        AppendTop(token, tops);
      } else {
        logprobs += "null";
        tops += "null";
      }
    };
    if (echo != nullptr) {
      for (size_t i = 0; i < echo->tokens.size(); ++i) {
        const bool has_logprob = i > 0 && i - 1 < prompt.size();
        append(has_logprob ? prompt[i - 1] : echo->tokens[i], has_logprob);
      }
    }
    for (const TokenText& token : tokens) append(token, true);
    out += R"(,"logprobs":{"tokens":[)" + texts + R"(],"token_logprobs":[)" + logprobs + R"(],"top_logprobs":[)" +
           tops + R"(],"text_offset":[)" + offsets + "]},";
  }

  // The best tokens and, if it is not among them, the drawn one.
  void AppendTop(const TokenText& token, std::string& out) const {
    out += '{';
    bool is_first = true, has_drawn = false;
    const auto append = [&](const TokenText& top) {
      if (!is_first) out += ',';
      is_first = false;
      AppendJsonString(top.bytes, out);
      out += ':';
      AppendJsonFloat(top.logprob, out);
    };
    const size_t num_top = std::min(token.top.size(), static_cast<size_t>(options_.num_top_logprobs));
    for (size_t i = 0; i < num_top; ++i) {
      append(token.top[i]);
      has_drawn = has_drawn || token.top[i].token == token.token;
    }
    if (!has_drawn) append(token);
    out += '}';
  }

  const CompletionFormatOptions options_;
  const AnswerHead head_;
  std::string chunk_head_;
  std::vector<size_t> offsets_;  // per choice: bytes of the tokens so far
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeCompletionFormat(AnswerHead head, const CompletionFormatOptions& options) {
  return std::make_unique<CompletionFormat>(std::move(head), options);
}

}  // namespace millrace
