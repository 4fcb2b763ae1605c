// SPDX-License-Identifier: Apache-2.0
#include "server/cli/answer_source.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/api/answer.h"
#include "server/cli/http_client.h"
#include "server/load_model.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

class RemoteSource : public AnswerSource {
 public:
  RemoteSource(ClientOptions options, std::string model) : options_(std::move(options)), model_(std::move(model)) {}

  absl::Status Chat(const std::vector<ChatLine>& lines, const OnText& on_text, const IsStopped& is_stopped) override {
    std::string body = Begin();
    body += R"(,"messages":[)";
    for (size_t i = 0; i < lines.size(); ++i) {
      body += i > 0 ? R"(,{"role":)" : R"({"role":)";
      AppendJsonString(lines[i].role, body);
      body += R"(,"content":)";
      AppendJsonString(lines[i].text, body);
      body += '}';
    }
    body += "]}";
    return Stream("/v1/chat/completions", std::move(body), on_text, is_stopped);
  }

  absl::Status Complete(const std::string& prompt, const OnText& on_text, const IsStopped& is_stopped) override {
    std::string body = Begin();
    body += R"(,"prompt":)";
    AppendJsonString(prompt, body);
    body += '}';
    return Stream("/v1/completions", std::move(body), on_text, is_stopped);
  }

 private:
  std::string Begin() const {
    std::string body = R"({"stream":true,"model":)";
    AppendJsonString(model_, body);
    if (options_.temperature) absl::StrAppend(&body, R"(,"temperature":)", *options_.temperature);
    if (options_.top_p) absl::StrAppend(&body, R"(,"top_p":)", *options_.top_p);
    if (options_.seed) absl::StrAppend(&body, R"(,"seed":)", *options_.seed);
    if (options_.max_tokens > 0) absl::StrAppend(&body, R"(,"max_tokens":)", options_.max_tokens);
    return body;
  }

  absl::Status Stream(const char* path, std::string body, const OnText& on_text, const IsStopped& is_stopped) const {
    std::string error;
    SseReader reader([&](std::string_view data) {
      if (data == "[DONE]") return;
      const StreamChunk chunk = ParseStreamChunk(data);
      if (!chunk.error.empty()) error = chunk.error;
      if (!chunk.text.empty()) on_text(chunk.text);
    });
    auto reply = CallHttp({.url = options_.url + path,
                           .api_key = options_.api_key,
                           .body = std::move(body),
                           .on_bytes =
                               [&](std::string_view bytes) {
                                 reader.Push(bytes);
                                 return true;
                               },
                           .is_stopped = is_stopped});
    if (!reply.ok()) return reply.status();
    if (reply->status != 200 && reply->status != 0) {
      return absl::UnavailableError(
          absl::StrCat("the server answers ", reply->status, ": ", ErrorMessage(reply->body)));
    }
    return error.empty() ? absl::OkStatus() : absl::InternalError(error);
  }

  const ClientOptions options_;
  const std::string model_;
};

// What the delivery thread hands to the main thread.
struct Inbox {
  absl::Mutex mu;
  std::string text ABSL_GUARDED_BY(mu);
  FinishReason finish ABSL_GUARDED_BY(mu) = FinishReason::kNone;
};

class LocalSource : public AnswerSource {
 public:
  LocalSource(ClientOptions options, std::unique_ptr<Engine> engine)
      : options_(std::move(options)),
        engine_(std::move(engine)),
        generator_(Generator::Create(*engine_, nullptr, Generator::Options{})) {}

  absl::Status Chat(const std::vector<ChatLine>& lines, const OnText& on_text, const IsStopped& is_stopped) override {
    ChatRequest request{.params = Params()};
    for (const ChatLine& line : lines)
      request.conversation.messages.push_back({.role = line.role, .content = line.text});
    auto inbox = std::make_shared<Inbox>();
    return Await(generator_->Chat({.received = absl::Now()}, request, SinkInto(inbox)), *inbox, on_text, is_stopped);
  }

  absl::Status Complete(const std::string& prompt, const OnText& on_text, const IsStopped& is_stopped) override {
    CompletionRequest request{.prompts = {prompt}, .params = Params()};
    auto inbox = std::make_shared<Inbox>();
    return Await(generator_->Complete({.received = absl::Now()}, request, SinkInto(inbox)), *inbox, on_text,
                 is_stopped);
  }

 private:
  GenerationParams Params() const {
    GenerationParams params{.temperature = options_.temperature, .top_p = options_.top_p, .seed = options_.seed};
    if (options_.max_tokens > 0) params.max_tokens = options_.max_tokens;
    return params;
  }

  static DeltaSink SinkInto(std::shared_ptr<Inbox> inbox) {
    return [inbox = std::move(inbox)](TextDelta&& delta) {
      absl::MutexLock lock(&inbox->mu);
      inbox->text += delta.text;
      inbox->finish = delta.finish;
      return true;
    };
  }

  static absl::Status Await(absl::StatusOr<std::unique_ptr<Generation>> generation, Inbox& inbox, const OnText& on_text,
                            const IsStopped& is_stopped) {
    if (!generation.ok()) return generation.status();
    const auto has_news = [&inbox]() ABSL_SHARED_LOCKS_REQUIRED(inbox.mu) {
      return !inbox.text.empty() || inbox.finish != FinishReason::kNone;
    };
    while (true) {
      std::string text;
      FinishReason finish = FinishReason::kNone;
      {
        absl::MutexLock lock(&inbox.mu);
        inbox.mu.AwaitWithTimeout(absl::Condition(&has_news), absl::Milliseconds(100));
        text.swap(inbox.text);
        finish = inbox.finish;
      }
      if (!text.empty()) on_text(text);
      if (finish != FinishReason::kNone) return FinishStatus(finish);
      if (is_stopped()) return absl::OkStatus();
    }
  }

  const ClientOptions options_;
  const std::unique_ptr<Engine> engine_;
  const std::unique_ptr<Generator> generator_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AnswerSource>> MakeRemoteSource(const ClientOptions& given) {
  ClientOptions options = given;
  while (absl::EndsWith(options.url, "/")) options.url.pop_back();
  if (absl::EndsWith(options.url, "/v1")) options.url.resize(options.url.size() - 3);
  std::string model = options.model;
  if (model.empty()) {
    auto first = FirstModel(options.url, options.api_key);
    if (!first.ok()) return first.status();
    model = *std::move(first);
  }
  return std::make_unique<RemoteSource>(std::move(options), std::move(model));
}

absl::StatusOr<std::unique_ptr<AnswerSource>> MakeLocalSource(const ServeOptions& serve, const ClientOptions& options) {
  if (serve.model.empty()) return absl::InvalidArgumentError("name a MODEL to load, or a server with --url");
  auto engine = LoadModel(serve.model, serve.hub, serve.engine, nullptr);
  if (!engine.ok()) return engine.status();
  return std::make_unique<LocalSource>(options, *std::move(engine));
}

}  // namespace millrace
