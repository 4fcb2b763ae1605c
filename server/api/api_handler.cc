// SPDX-License-Identifier: Apache-2.0
#include "server/api/api_handler.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/api/api_call.h"
#include "server/api/cache_control.h"
#include "server/api/rate_headers.h"
#include "server/caching/response_cache.h"
#include "server/console/console.h"
#include "server/messages/message_error.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

template <typename Route>
concept ConstructsWithoutAccess = requires { Route{"/", "GET", nullptr, Route::Place::kIo}; };

// `wanted`: one method, or several: "GET, DELETE". HEAD asks for what GET would say.
bool IsMethod(const std::string& method, const char* wanted) {
  for (const absl::string_view one : absl::StrSplit(wanted, ", ")) {
    if (method == one || (method == "HEAD" && one == "GET")) return true;
  }
  return false;
}

// In the shape that the route's clients know.
HttpResponse Refusal(const HttpRequest& request, const ApiError& error) {
  const bool is_anthropic = request.path == "/v1/messages" || absl::StartsWith(request.path, "/v1/messages/");
  return is_anthropic ? MessageErrorResponse(error, request.id) : ErrorResponse(error);
}

HttpResponse WrongMethod(const HttpRequest& request, const char* allowed) {
  HttpResponse response = Refusal(request, ApiError{.http_status = 405,
                                                    .message = absl::StrCat("use ", allowed, " for ", request.path),
                                                    .type = "invalid_request_error",
                                                    .code = "method_not_allowed"});
  response.headers.push_back({"allow", allowed});
  return response;
}

HttpResponse UnknownRoute(const HttpRequest& request) {
  return Refusal(request, ApiError{.http_status = 404,
                                   .message = absl::StrCat("unknown URL: ", request.method.substr(0, 32), " ",
                                                           request.path.substr(0, 200)),
                                   .type = "invalid_request_error",
                                   .code = "unknown_url"});
}

}  // namespace

ApiHandler::ApiHandler(ApiParts parts, ApiOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      workers_(std::max(1, options_.num_workers), options_.max_queued_work),
      aside_(/*num_threads=*/1, /*max_queued=*/64) {}

ApiHandler::~ApiHandler() = default;

const ApiHandler::Route* ApiHandler::FindRoute(const std::string& path) {
  using Place = Route::Place;
  static_assert(!ConstructsWithoutAccess<Route>);
  static constexpr Route kRoutes[] = {
      {"/", "GET", &ApiHandler::Console, Place::kIo, Access::kProbe},
      {"/console.css", "GET", &ApiHandler::Console, Place::kIo, Access::kProbe},
      {"/console.js", "GET", &ApiHandler::Console, Place::kIo, Access::kProbe},
      {"/livez", "GET", &ApiHandler::Live, Place::kIo, Access::kProbe},
      {"/readyz", "GET", &ApiHandler::Ready, Place::kIo, Access::kProbe},
      {"/health", "GET", &ApiHandler::Ready, Place::kIo, Access::kProbe},
      {"/ping", "GET", &ApiHandler::Ready, Place::kIo, Access::kProbe},
      {"/metrics", "GET", &ApiHandler::MetricsPage, Place::kAside, Access::kMetrics},
      {"/version", "GET", &ApiHandler::Version, Place::kIo, Access::kAnyKey},
      {"/openapi.json", "GET", &ApiHandler::OpenApi, Place::kIo, Access::kAnyKey},
      {"/v1/models", "GET", &ApiHandler::Models, Place::kIo, Access::kInfer},
      {"/v1/models/", "GET", &ApiHandler::Model, Place::kIo, Access::kInfer},
      {"/v1/agents", "GET", &ApiHandler::Agents, Place::kIo, Access::kInfer},
      {"/v1/agents/", "GET", &ApiHandler::AgentByName, Place::kIo, Access::kInfer},
      {"/v1/chat/completions", "POST", &ApiHandler::Chat, Place::kWorker, Access::kInfer},
      {"/v1/completions", "POST", &ApiHandler::Completion, Place::kWorker, Access::kInfer},
      {"/v1/embeddings", "POST", &ApiHandler::Embedding, Place::kWorker, Access::kInfer},
      {"/v1/responses", "POST", &ApiHandler::Responses, Place::kWorker, Access::kInfer},
      {"/v1/responses/input_tokens", "POST", &ApiHandler::ResponsesTokens, Place::kWorker, Access::kInfer},
      {"/v1/responses/", "GET, DELETE, POST", &ApiHandler::StoredResponses, Place::kWorker, Access::kInfer},
      {"/v1/messages", "POST", &ApiHandler::Messages, Place::kWorker, Access::kInfer},
      {"/v1/messages/count_tokens", "POST", &ApiHandler::CountTokens, Place::kWorker, Access::kInfer},
      {"/tokenize", "POST", &ApiHandler::Tokenize, Place::kWorker, Access::kInfer},
      {"/detokenize", "POST", &ApiHandler::Detokenize, Place::kWorker, Access::kInfer},
      {"/admin/usage", "GET", &ApiHandler::AdminUsage, Place::kAside, Access::kAdmin},
      {"/admin/keys", "GET", &ApiHandler::AdminKeys, Place::kAside, Access::kAdmin},
      {"/admin/cache/purge", "POST", &ApiHandler::PurgeCache, Place::kWorker, Access::kAdmin},
      {"/admin/prefix-cache/reset", "POST", &ApiHandler::ResetPrefixCache, Place::kWorker, Access::kAdmin},
  };
  for (const Route& route : kRoutes) {
    const std::string_view prefix = route.path;
    const bool takes_argument = prefix.size() > 1 && prefix.back() == '/';
    if (path == prefix ||
        (takes_argument && path.size() > prefix.size() && path.compare(0, prefix.size(), prefix) == 0)) {
      return &route;
    }
  }
  return nullptr;
}

// An unknown path asks for any key: it tells nothing to those without one.
absl::StatusOr<Identity> ApiHandler::Authorize(const HttpRequest& request, const Route* route) const {
  Access access = route == nullptr ? Access::kAnyKey : route->whom.access;
  if (access == Access::kMetrics && options_.metrics_access == MetricsAccess::kPublic) access = Access::kProbe;
  return parts_.keys.Authorize(request.Header("authorization"), request.Header("x-api-key"), access);
}

// Refuses before the body is read.
std::optional<HttpResponse> ApiHandler::CheckHeaders(const HttpRequest& request) {
  const Route* route = FindRoute(request.path);
  auto identity = Authorize(request, route);
  std::optional<HttpResponse> refusal;
  if (!identity.ok()) {
    refusal = Refusal(request, ToApiError(identity.status()));
  } else if (route == nullptr) {
    refusal = UnknownRoute(request);
  } else if (!IsMethod(request.method, route->method)) {
    refusal = WrongMethod(request, route->method);
  }
  if (!refusal) return refusal;
  if (identity.ok() && identity->quota != nullptr) AddRateHeaders(identity->quota->state(), refusal->headers);
  LogRefusal(request, *refusal, identity.ok() ? *identity : Identity{});
  return refusal;
}

void ApiHandler::Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
  const Route* route = FindRoute(request.path);
  auto identity = Authorize(request, route);
  if (!identity.ok()) return writer->Send(Refusal(request, ToApiError(identity.status())));
  if (route == nullptr) return writer->Send(UnknownRoute(request));
  auto call = std::make_shared<Call>();
  call->tenant = std::move(identity->tenant);
  call->key_name = std::move(identity->key_name);
  call->quota = std::move(identity->quota);
  call->writer = WithRateHeaders(std::move(writer), call->quota);
  call->argument = request.path.substr(std::min(request.path.size(), std::string_view(route->path).size()));
  call->request = std::move(request);
  if (route->place == Route::Place::kIo) return (this->*route->endpoint)(*call);
  WorkerPool& pool = route->place == Route::Place::kAside ? aside_ : workers_;
  const bool is_taken = pool.Post([this, route, call] {
    if (!call->writer->is_closed()) (this->*route->endpoint)(*call);
  });
  if (!is_taken) {
    NoteRejection(*call, "workers_busy");
    Refuse(*call, absl::ResourceExhaustedError("too many requests wait to be read"));
  }
}

HttpResponse ApiHandler::TransportError(int status, const std::string& message) {
  const char* code = status == 413   ? "body_too_large"
                     : status == 431 ? "headers_too_large"
                     : status == 408 ? "request_timeout"
                     : status == 503 ? "overloaded"
                                     : "bad_request";
  // There is no request yet to tell of, only what was wrong with its bytes.
  if (options_.logs_requests) {
    parts_.log.Info("request refused", {{"status", int64_t{status}}, {"code", code}, {"reason", message}});
  }
  return ErrorResponse(ApiError{.http_status = status,
                                .message = message,
                                .type = status == 503 ? "service_unavailable" : "invalid_request_error",
                                .code = code});
}

void ApiHandler::LogRefusal(const HttpRequest& request, const HttpResponse& response, const Identity& who) {
  if (!options_.logs_requests) return;
  parts_.log.Info("request refused", {{"request_id", request.id},
                                      {"method", std::string_view(request.method).substr(0, 32)},
                                      {"path", std::string_view(request.path).substr(0, 200)},
                                      {"status", int64_t{response.status}},
                                      {"tenant", who.tenant.name},
                                      {"key", who.key_name},
                                      {"remote", request.remote}});
}

void ApiHandler::Refuse(Call& call, const absl::Status& status) {
  HttpResponse response = Refusal(call.request, ToApiError(status));
  LogRefusal(call.request, response, {.tenant = call.tenant, .key_name = call.key_name, .roles = {}, .quota = nullptr});
  call.writer->Send(std::move(response));
}

void ApiHandler::NoteRejection(const Call& call, std::string_view reason) {
  parts_.metrics.OnRejected(call.tenant.name, reason);
  if (parts_.usage != nullptr) parts_.usage->OnRejected(call.tenant.name);
}

// ---- the small routes -------------------------------------------------------------------------------------------

void ApiHandler::Live(Call& call) {
  const bool is_alive = parts_.state.is_alive();
  call.writer->Send({.status = is_alive ? 200 : 503,
                     .content_type = "text/plain",
                     .body = is_alive ? "ok\n" : "the engine does not answer\n"});
}

void ApiHandler::Ready(Call& call) {
  std::string reason = "ok\n";
  if (!parts_.state.is_alive()) {
    reason = "the engine does not answer\n";
  } else if (parts_.state.is_draining()) {
    reason = "shutting down\n";
  } else if (!parts_.state.is_ready()) {
    reason = "loading\n";
  }
  if (call.request.path == "/health") reason += options_.health_note;
  call.writer->Send({.status = parts_.state.is_ready() ? 200 : 503, .content_type = "text/plain", .body = reason});
}

void ApiHandler::MetricsPage(Call& call) {
  const std::shared_ptr<Generator> generator = parts_.state.generator();
  const TransportStats transport = parts_.transport_stats ? parts_.transport_stats() : TransportStats{};
  if (parts_.response_cache != nullptr) parts_.metrics.FollowCache(parts_.response_cache->stats());
  call.writer->Send({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                     .body = parts_.metrics.Scrape(generator ? &generator->engine() : nullptr, transport)});
}

void ApiHandler::Console(Call& call) { call.writer->Send(ConsoleResponse(call.request.path)); }

void ApiHandler::Version(Call& call) {
  std::string body = R"({"version":)";
  AppendJsonString(options_.version, body);
  body += '}';
  call.Send(std::move(body));
}

void ApiHandler::OpenApi(Call& call) { call.Send(OpenApiDocument(options_.version)); }

Caller ApiHandler::MakeCaller(const Call& call, const char* endpoint) const {
  Caller caller{.request_id = call.request.id,
                .endpoint = endpoint,
                .remote = call.request.remote,
                .tenant = call.tenant,
                .key_name = call.key_name,
                .quota = call.quota,
                .received = call.request.received};
  for (const HttpHeader& header : call.request.headers) {
    if (absl::EqualsIgnoreCase(header.name, "cache-control")) ApplyCacheControl(header.value, caller.cache);
  }
  return caller;
}

}  // namespace millrace
