// SPDX-License-Identifier: Apache-2.0
#pragma once
// The HTTP API: routes, keys, and the way from a request's bytes to an answer. Called on io threads; what takes longer
// than microseconds runs on its worker pool.
#include <functional>
#include <memory>
#include <string>

#include "server/auth/api_keys.h"
#include "server/http/http_server.h"
#include "server/log/log.h"
#include "server/metrics/metrics.h"
#include "server/pipeline/server_state.h"
#include "server/pipeline/worker_pool.h"
#include "server/usage/usage_ledger.h"

namespace millrace {

class AgentCatalogue;
class AgentRuns;
struct Agent;
struct Answerer;
struct ParsedChat;
struct RunLimits;
class ResponseCache;
class ResponseStore;

enum class MetricsAccess : uint8_t { kNeedsKey, kPublic };

struct ApiOptions {
  std::string version;
  std::string health_note;  // lines that /health says behind its first
  absl::Duration keep_alive_interval = absl::Seconds(15);
  MetricsAccess metrics_access = MetricsAccess::kNeedsKey;
  int num_workers = 2;
  size_t max_queued_work = 2048;  // requests waiting for a worker; beyond: 429
  bool logs_requests = true;
};

// What the handler works with; all outlive it.
struct ApiParts {
  ServerState& state;
  const ApiKeys& keys;
  Metrics& metrics;
  Log& log;
  std::function<TransportStats()> transport_stats;  // may be null
  UsageLedger* usage = nullptr;                     // hears of what is refused; may be null
  AgentRuns* runs = nullptr;                        // what /v1/responses and /v1/messages start; not null
  const AgentCatalogue* agents = nullptr;           // whom a request may name instead of the model; not null
  ResponseStore* responses = nullptr;               // null: /v1/responses stores nothing
  ResponseCache* response_cache = nullptr;          // may be null
};

class ApiHandler : public HttpHandler {
 public:
  ApiHandler(ApiParts parts, ApiOptions options);
  ~ApiHandler() override;

  std::optional<HttpResponse> CheckHeaders(const HttpRequest& request) override;
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) override;
  HttpResponse TransportError(int status, const std::string& message) override;

 private:
  struct Call;  // one request on a worker
  struct Route;
  using Endpoint = void (ApiHandler::*)(Call&);

  static const Route* FindRoute(const std::string& path);
  absl::StatusOr<Identity> Authorize(const HttpRequest& request, const Route* route) const;
  void LogRefusal(const HttpRequest& request, const HttpResponse& response, const Identity& who);
  void NoteRejection(const Call& call, std::string_view reason);
  void Refuse(Call& call, const absl::Status& status);
  void RefuseWork(Call& call, const absl::Status& status);
  Caller MakeCaller(const Call& call, const char* endpoint) const;
  RunLimits LimitsFor(const Agent* agent) const;  // null: of every run
  absl::StatusOr<Answerer> ResolveAnswerer(const Call& call, const std::string& asked) const;

  void Console(Call& call);
  void Live(Call& call);
  void Ready(Call& call);
  void MetricsPage(Call& call);
  void Version(Call& call);
  void OpenApi(Call& call);
  void Models(Call& call);
  void Model(Call& call);
  void Agents(Call& call);
  void AgentByName(Call& call);
  void Chat(Call& call);
  void ChatWithAgent(Call& call, ParsedChat parsed, const Answerer& answerer, std::shared_ptr<Generator> generator);
  void Completion(Call& call);
  void Embedding(Call& call);
  void Tokenize(Call& call);
  void Detokenize(Call& call);
  void AdminUsage(Call& call);
  void AdminKeys(Call& call);
  void Responses(Call& call);
  void ResponsesTokens(Call& call);
  void StoredResponses(Call& call);
  void Messages(Call& call);
  void CountTokens(Call& call);
  void PurgeCache(Call& call);
  void ResetPrefixCache(Call& call);

  const ApiParts parts_;
  const ApiOptions options_;
  WorkerPool workers_;
  WorkerPool aside_;
};

// The OpenAPI 3.1 description of all routes.
std::string OpenApiDocument(const std::string& version);

}  // namespace millrace
