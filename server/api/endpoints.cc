// SPDX-License-Identifier: Apache-2.0
// The routes that use the model. They run on workers: parse, tokenise, submit; deltas come back on delivery threads.
#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/load/model_info.h"
#include "engine/text/tokenizer.h"
#include "server/agents/agent_catalogue.h"
#include "server/api/answer.h"
#include "server/api/api_call.h"
#include "server/api/embedding_format.h"
#include "server/api/parse_requests.h"
#include "server/pipeline/tool_calling.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

constexpr char kOwnerOfModels[] = "millrace";
constexpr char kOwnerOfAgents[] = "agent";

absl::StatusOr<std::string> ResolveModel(const ServerState& state, const std::string& asked) {
  auto name = state.ResolveModel(asked);
  if (!name.ok()) return WithErrorCode(WithErrorParam(name.status(), "model"), "model_not_found");
  return name;
}

AnswerHead MakeHead(const char* prefix, const Caller& caller, std::string model) {
  return {.id = prefix + caller.request_id, .model = std::move(model), .created = absl::ToUnixSeconds(absl::Now())};
}

CompletionFormatOptions::Echo MakeEcho(const Tokenizer& tokenizer, const Prompt& prompt,
                                       const std::vector<int32_t>& tokens) {
  CompletionFormatOptions::Echo echo;
  const auto* text = std::get_if<std::string>(&prompt);
  echo.text = text != nullptr ? *text : tokenizer.Decode(tokens, SkipSpecial::kNo);
  for (const int32_t token : tokens) {
    echo.tokens.push_back({.token = token, .bytes = std::string(tokenizer.TokenBytes(token))});
  }
  return echo;
}

// Pickers of models list agents too: `owner` tells them apart.
void AppendModelObject(const ServerState& state, const std::string& name, const char* owner, std::string& out) {
  out += R"({"id":)";
  AppendJsonString(name, out);
  out += R"(,"object":"model","created":)";
  AppendJsonInt(state.created(), out);
  out += R"(,"owned_by":)";
  AppendJsonString(owner, out);
  out += R"(,"root":)";
  AppendJsonString(state.model_names().front(), out);
  out += R"(,"parent":null)";
  if (const auto generator = state.generator()) {
    out += R"(,"max_model_len":)";
    AppendJsonInt(generator->engine().scheduler_config().max_model_tokens, out);
  }
  out += '}';
}

}  // namespace

void ApiHandler::Models(Call& call) {
  std::string body = R"({"object":"list","data":[)";
  for (const std::string& name : parts_.state.model_names()) {
    if (body.back() == '}') body += ',';
    AppendModelObject(parts_.state, name, kOwnerOfModels, body);
  }
  for (const auto& agent : parts_.agents->ListFor(call.tenant)) {
    body += ',';
    AppendModelObject(parts_.state, agent->name, kOwnerOfAgents, body);
  }
  // Codex asks for a list of OpenAI's own catalogue beside it, and takes an empty one for none.
  body += R"(],"models":[]})";
  call.Send(std::move(body));
}

void ApiHandler::Model(Call& call) {
  auto answerer = ResolveAnswerer(call, call.argument);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  std::string body;
  AppendModelObject(parts_.state, answerer->name, answerer->agent == nullptr ? kOwnerOfModels : kOwnerOfAgents, body);
  call.Send(std::move(body));
}

void ApiHandler::Chat(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto parsed = ParseChat(call.request.body);
  if (!parsed.ok()) return Refuse(call, parsed.status());
  auto answerer = ResolveAnswerer(call, parsed->request.model);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  call.request.body = {};  // a long stream should not hold it
  if (answerer->agent != nullptr) return ChatWithAgent(call, *std::move(parsed), *answerer, *std::move(generator));
  const Caller caller = MakeCaller(call, "chat");
  auto answer = std::make_shared<Answer>(
      AnswerArgs{.writer = call.writer, .stream = parsed->stream, .keep_alive_interval = options_.keep_alive_interval});
  auto generation = (*generator)->Chat(caller, parsed->request, [answer](TextDelta&& delta) {
    return answer->OnDelta(std::move(delta));
  });
  if (!generation.ok()) return RefuseWork(call, generation.status());
  const GenerationParams& params = parsed->request.params;
  AnswerParserOptions parser = ParserOptions((*generator)->engine(), parsed->request, (*generation)->prompts()[0]);
  answer->Begin(*std::move(generation), MakeChatFormat(MakeHead("chatcmpl-", caller, std::move(answerer->name)),
                                                       {.parser = std::move(parser),
                                                        .has_logprobs = params.num_logprobs >= 0,
                                                        .num_top_logprobs = std::max(0, params.num_logprobs),
                                                        .has_usage_field = parsed->stream.includes_usage}));
}

void ApiHandler::Completion(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto parsed = ParseCompletion(call.request.body);
  if (!parsed.ok()) return Refuse(call, parsed.status());
  auto model = ResolveModel(parts_.state, parsed->request.model);
  if (!model.ok()) return Refuse(call, model.status());
  call.request.body = {};
  const Caller caller = MakeCaller(call, "completion");
  const GenerationParams& params = parsed->request.params;
  auto answer = std::make_shared<Answer>(AnswerArgs{.writer = call.writer,
                                                    .stream = parsed->stream,
                                                    .keep_alive_interval = options_.keep_alive_interval,
                                                    .num_choices_to_return = params.num_choices});
  auto generation = (*generator)->Complete(caller, parsed->request, [answer](TextDelta&& delta) {
    return answer->OnDelta(std::move(delta));
  });
  if (!generation.ok()) return RefuseWork(call, generation.status());
  CompletionFormatOptions format{.has_logprobs = params.num_logprobs >= 0,
                                 .num_top_logprobs = std::max(0, params.num_logprobs),
                                 .has_usage_field = parsed->stream.includes_usage,
                                 .num_choices_per_prompt = params.num_choices,
                                 .shows_prompt_logprobs = params.num_prompt_logprobs >= 0};
  if (params.wants_echo) {
    for (size_t i = 0; i < parsed->request.prompts.size(); ++i) {
      format.echoes.push_back(
          MakeEcho((*generator)->engine().tokenizer(), parsed->request.prompts[i], (*generation)->prompts()[i]));
    }
  }
  answer->Begin(*std::move(generation), MakeCompletionFormat(MakeHead("cmpl-", caller, *std::move(model)), format));
}

void ApiHandler::Embedding(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto parsed = ParseEmbedding(call.request.body);
  if (!parsed.ok()) return Refuse(call, parsed.status());
  auto model = ResolveModel(parts_.state, parsed->request.model);
  if (!model.ok()) return Refuse(call, model.status());
  call.request.body = {};
  auto answer = std::make_shared<Answer>(AnswerArgs{.writer = call.writer, .stream = {}});
  auto generation = (*generator)->Embed(MakeCaller(call, "embedding"), parsed->request, [answer](TextDelta&& delta) {
    return answer->OnDelta(std::move(delta));
  });
  if (!generation.ok()) return RefuseWork(call, generation.status());
  answer->Begin(*std::move(generation), MakeEmbeddingFormat(*std::move(model), parsed->encoding));
}

// A refusal after parsing: the pipeline's own checks, a limit, or a full queue.
void ApiHandler::RefuseWork(Call& call, const absl::Status& status) {
  if (const std::string reason = RejectionReason(status); !reason.empty()) NoteRejection(call, reason);
  Refuse(call, status);
}

void ApiHandler::Tokenize(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto parsed = ParseTokenize(call.request.body);
  if (!parsed.ok()) return Refuse(call, parsed.status());
  absl::StatusOr<std::vector<int32_t>> tokens;
  std::string asked;
  if (const auto* chat = std::get_if<ChatRequest>(&parsed->request)) {
    asked = chat->model;
    tokens = (*generator)->RenderChat(*chat);
  } else {
    const auto& completion = std::get<CompletionRequest>(parsed->request);
    asked = completion.model;
    tokens = (*generator)->Encode(completion.prompts.front(), completion.adds_special_tokens);
  }
  if (auto model = ResolveModel(parts_.state, asked); !model.ok()) return Refuse(call, model.status());
  if (!tokens.ok()) return Refuse(call, tokens.status());
  const Engine& engine = (*generator)->engine();
  std::string body = absl::StrCat(R"({"count":)", tokens->size(), R"(,"max_model_len":)",
                                  engine.scheduler_config().max_model_tokens, R"(,"tokens":)");
  AppendJsonInts(*tokens, body);
  body += R"(,"token_strs":)";
  if (parsed->wants_token_texts) {
    body += '[';
    for (const int32_t token : *tokens) {
      if (body.back() != '[') body += ',';
      AppendJsonString(engine.tokenizer().IdToToken(token), body);
    }
    body += ']';
  } else {
    body += "null";
  }
  body += '}';
  call.Send(std::move(body));
}

void ApiHandler::Detokenize(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto parsed = ParseDetokenize(call.request.body);
  if (!parsed.ok()) return Refuse(call, parsed.status());
  if (auto model = ResolveModel(parts_.state, parsed->model); !model.ok()) return Refuse(call, model.status());
  std::string body = R"({"prompt":)";
  AppendJsonString((*generator)->engine().tokenizer().Decode(parsed->tokens, SkipSpecial::kNo), body);
  body += '}';
  call.Send(std::move(body));
}

}  // namespace millrace
