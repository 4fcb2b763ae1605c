// SPDX-License-Identifier: Apache-2.0
// What administrators have forgotten. POST /admin/cache/purge: a tenant's, a model's or all answers in the response
// cache. POST /admin/prefix-cache/reset: a tenant's or all KV pages that no request uses.
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "server/api/api_call.h"
#include "server/api/parse_common.h"
#include "server/caching/response_cache.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

// How long a worker waits for the step under way.
constexpr absl::Duration kResetTime = absl::Seconds(10);

absl::StatusOr<PurgeScope> ParsePurge(std::string_view body) {
  PurgeScope scope;
  if (body.empty()) return scope;
  const auto document = ParseBody(body);
  if (!document.ok()) return document.status();
  JsonFields fields(*document);
  const auto read = [&fields](const char* name, std::optional<std::string>& out) {
    if (fields.Find(name) == nullptr) return;
    fields.Read(name, out.emplace());
  };
  read("tenant", scope.tenant);
  read("model", scope.model);
  if (!fields.status().ok()) return fields.status();
  return scope;
}

}  // namespace

void ApiHandler::PurgeCache(Call& call) {
  if (parts_.response_cache == nullptr) {
    return Refuse(call, WithErrorCode(absl::NotFoundError("there is no response cache"), "no_response_cache"));
  }
  auto scope = ParsePurge(call.request.body);
  if (!scope.ok()) return Refuse(call, scope.status());
  const auto num_purged = parts_.response_cache->Purge(*scope);
  if (!num_purged.ok()) return Refuse(call, num_purged.status());
  std::string body = R"({"purged":)";
  AppendJsonInt(*num_purged, body);
  body += '}';
  call.Send(std::move(body));
}

void ApiHandler::ResetPrefixCache(Call& call) {
  const auto generator = parts_.state.Admit();
  if (!generator.ok()) return Refuse(call, generator.status());
  const auto scope = ParsePurge(call.request.body);
  if (!scope.ok()) return Refuse(call, scope.status());
  if (scope->model) {
    if (auto model = parts_.state.ResolveModel(*scope->model); !model.ok()) return Refuse(call, model.status());
  }
  std::optional<uint64_t> salt;
  if (scope->tenant) salt = TenantSalt(*scope->tenant);
  const auto num_pages = (*generator)->engine().ResetPrefixCache(salt, kResetTime);
  if (!num_pages.ok()) return Refuse(call, num_pages.status());
  std::string body = R"({"freed_pages":)";
  AppendJsonInt(*num_pages, body);
  body += '}';
  call.Send(std::move(body));
}

}  // namespace millrace
