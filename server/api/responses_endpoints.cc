// SPDX-License-Identifier: Apache-2.0
// The routes of OpenAI's Responses API. They run on workers; an answer is made by an agent run, on its own thread.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "agent/offer_tools.h"
#include "engine/load/model_info.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/api/api_call.h"
#include "server/api/run_stream.h"
#include "server/responses/response_run.h"
#include "server/responses/responses_request.h"
#include "server/responses/select_tools.h"
#include "server/storage/response_store.h"
#include "server/wire/api_error.h"
#include "server/wire/json_object.h"

namespace millrace {
namespace {

using nlohmann::json;

constexpr size_t kMaxIdBytes = 256;

ItemSource SourceOf(ResponseStore* store, const std::string& tenant) {
  if (store == nullptr) return {};
  return {.history = [store, tenant](const std::string& id) -> absl::StatusOr<std::vector<std::string>> {
            auto chain = store->Chain(tenant, id, absl::Now());
            if (!chain.ok()) return chain.status();
            return HistoryItems(*chain);
          },
          .item = [store, tenant](const std::string& id) -> absl::StatusOr<std::string> {
            auto response = store->FindItem(tenant, id, absl::Now());
            if (!response.ok()) return response.status();
            return FindItem(*response, id);
          }};
}

struct ListQuestion {
  int32_t limit = 20;
  bool is_ascending = false;
  std::string after;
};

absl::StatusOr<ListQuestion> ParseListQuestion(const std::string& query) {
  ListQuestion question;
  for (const absl::string_view part : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(part, absl::MaxSplits('=', 1));
    const std::string value = PercentDecode(pair.second);
    if (pair.first == "limit" &&
        (!absl::SimpleAtoi(value, &question.limit) || question.limit < 1 || question.limit > 100)) {
      return ParamError("limit", "'limit' must be between 1 and 100");
    }
    if (pair.first == "order" && value != "asc" && value != "desc") {
      return ParamError("order", "'order' must be 'asc' or 'desc'");
    }
    if (pair.first == "order") question.is_ascending = value == "asc";
    if (pair.first == "after") question.after = value;
  }
  return question;
}

std::string IdOf(const json& item) {
  const auto id = item.find("id");
  return id != item.end() && id->is_string() ? id->get<std::string>() : "";
}

std::string ItemList(const json& items, const ListQuestion& question) {
  std::vector<const json*> shown;
  for (const json& item : items) shown.push_back(&item);
  if (!question.is_ascending) std::reverse(shown.begin(), shown.end());
  if (!question.after.empty()) {
    const auto is_it = [&question](const json* item) { return IdOf(*item) == question.after; };
    const auto found = std::find_if(shown.begin(), shown.end(), is_it);
    shown.erase(shown.begin(), found == shown.end() ? found : found + 1);
  }
  const bool has_more = shown.size() > static_cast<size_t>(question.limit);
  if (has_more) shown.resize(static_cast<size_t>(question.limit));
  std::string data = "[";
  for (const json* item : shown) {
    if (data.size() > 1) data += ',';
    data += item->dump(-1, ' ', false, json::error_handler_t::replace);
  }
  std::string out;
  JsonObject(out)
      .Text("object", "list")
      .Raw("data", data + "]")
      .Text("first_id", shown.empty() ? "" : IdOf(*shown.front()))
      .Text("last_id", shown.empty() ? "" : IdOf(*shown.back()))
      .Bool("has_more", has_more)
      .End();
  return out;
}

RunLimits Tightened(RunLimits limits, const ResponsesRequest& request) {
  limits.max_output_tokens = TighterLimit(limits.max_output_tokens, request.chat.params.max_tokens.value_or(0));
  if (request.max_tool_calls) limits.max_tool_calls = std::min(limits.max_tool_calls, *request.max_tool_calls);
  return limits;
}

}  // namespace

void ApiHandler::Responses(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto request = ParseResponses(call.request.body, SourceOf(parts_.responses, call.tenant.name));
  if (!request.ok()) return Refuse(call, request.status());
  auto answerer = ResolveAnswerer(call, request->chat.model);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  const Agent* agent = answerer->agent.get();
  auto selected = SelectTools(parts_.runs->tools(), *request, agent);
  if (!selected.ok()) return Refuse(call, selected.status());
  if (agent != nullptr) ApplyAgent(*agent, request->chat);
  call.request.body = {};  // a long run should not hold it

  const ModelInfo& info = (*generator)->engine().model();
  const GenerationParams& params = request->chat.params;
  StreamOptions stream;
  stream.keep_alive_interval = options_.keep_alive_interval;
  auto out = std::make_shared<RunStream>(call.writer, std::move(stream));
  const std::string id = "resp_" + RandomId();
  const bool is_stored = request->is_stored && parts_.responses != nullptr;
  AgentRunArgs args{.generator = *std::move(generator),
                    .caller = MakeCaller(call, "responses"),
                    .params = params,
                    .request = {.tools = selected->tools,
                                .required_tools = RequiredTools(*request, *selected),
                                .calls = request->chat.calls_once ? CallsPerTurn::kOne : CallsPerTurn::kAny,
                                .limits = Tightened(LimitsFor(agent), *request)}};
  auto run = std::make_shared<ResponseRun>(
      ResponseRunArgs{.out = out,
                      .mode = request->mode,
                      .events = {.id = id,
                                 .model = std::move(answerer->name),
                                 .created = absl::ToUnixSeconds(absl::Now()),
                                 .temperature = params.temperature.value_or(info.default_temperature.value_or(1.0f)),
                                 .top_p = params.top_p.value_or(info.default_top_p.value_or(1.0f)),
                                 .echo = std::move(request->echo),
                                 .shows_encrypted_reasoning = request->shows_encrypted_reasoning,
                                 .shows_code_outputs = request->shows_code_outputs,
                                 .listings = std::move(selected->listings),
                                 .look =
                                     [looks = std::move(selected->looks)](std::string_view name) {
                                       const auto found = looks.find(name);
                                       return found != looks.end() ? found->second : CallLook{.label = kOwnToolServer};
                                     }},
                      .store = is_stored ? parts_.responses : nullptr,
                      .tenant = call.tenant.name,
                      .stored = {.id = id,
                                 .previous_id = std::move(request->previous_response_id),
                                 .input = std::move(request->input)},
                      .item_ids = std::move(request->item_ids)});
  args.request.conversation = std::move(request->chat.conversation);
  args.sink = [run](RunEvent&& event) { run->OnEvent(event); };
  args.on_done = [run](RunResult&& result) { run->OnDone(result); };
  auto cancellation = parts_.runs->Start(std::move(args));
  if (!cancellation.ok()) return RefuseWork(call, cancellation.status());
  out->CancelOnClose(*std::move(cancellation));
}

// How long the prompt would be, for clients that count before they ask.
void ApiHandler::ResponsesTokens(Call& call) {
  auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  auto request = ParseResponses(call.request.body, SourceOf(parts_.responses, call.tenant.name));
  if (!request.ok()) return Refuse(call, request.status());
  auto answerer = ResolveAnswerer(call, request->chat.model);
  if (!answerer.ok()) return Refuse(call, answerer.status());
  auto selected = SelectTools(parts_.runs->tools(), *request, answerer->agent.get());
  if (!selected.ok()) return Refuse(call, selected.status());
  if (answerer->agent != nullptr) ApplyAgent(*answerer->agent, request->chat);
  if (absl::Status status = OfferTools(selected->tools, request->chat.conversation); !status.ok()) {
    return Refuse(call, status);
  }
  auto tokens = (*generator)->RenderChat(request->chat);
  if (!tokens.ok()) return Refuse(call, tokens.status());
  std::string body;
  JsonObject(body)
      .Text("object", "response.input_tokens")
      .Int("input_tokens", static_cast<int64_t>(tokens->size()))
      .End();
  call.Send(std::move(body));
}

// GET and DELETE of {id}, GET of {id}/input_items, POST of {id}/cancel.
void ApiHandler::StoredResponses(Call& call) {
  const size_t slash = std::min(call.argument.find('/'), call.argument.size());
  const std::string id = call.argument.substr(0, std::min(slash, kMaxIdBytes));
  const std::string tail = call.argument.substr(slash);
  const bool is_get = call.request.method == "GET" || call.request.method == "HEAD";
  const bool is_known = (tail.empty() && (is_get || call.request.method == "DELETE")) ||
                        (tail == "/input_items" && is_get) || (tail == "/cancel" && call.request.method == "POST");
  if (!is_known) {
    return Refuse(call, WithErrorCode(absl::NotFoundError(absl::StrCat("unknown URL: ", call.request.method, " ",
                                                                       call.request.path.substr(0, 200))),
                                      "unknown_url"));
  }
  if (parts_.responses == nullptr) return Refuse(call, absl::NotFoundError("this server stores no responses"));
  if (call.request.method == "DELETE") {
    absl::Status status = parts_.responses->Delete(call.tenant.name, id, absl::Now());
    if (!status.ok()) return Refuse(call, status);
    std::string body;
    JsonObject(body).Text("id", id).Text("object", "response").Bool("deleted", true).End();
    return call.Send(std::move(body));
  }
  auto found = parts_.responses->Get(call.tenant.name, id, absl::Now());
  if (!found.ok()) return Refuse(call, found.status());
  if (tail == "/cancel") {
    return Refuse(call, absl::InvalidArgumentError("only responses in the background can be cancelled"));
  }
  if (tail.empty()) {
    if (absl::StrContains("&" + call.request.query, "&stream=true")) {
      return Refuse(call,
                    ParamError("stream", "only responses in the background can be streamed again", kUnsupportedValue));
    }
    return call.Send(std::move(found->body));
  }
  auto question = ParseListQuestion(call.request.query);
  if (!question.ok()) return Refuse(call, question.status());
  const json items = json::parse(found->input, nullptr, /*allow_exceptions=*/false);
  if (!items.is_array()) return Refuse(call, absl::DataLossError("the stored response cannot be read"));
  call.Send(ItemList(items, *question));
}

}  // namespace millrace
