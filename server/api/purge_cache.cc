// SPDX-License-Identifier: Apache-2.0
// POST /admin/cache/purge: takes a tenant's, a model's or all answers out of the response cache.
#include <nlohmann/json.hpp>

#include "server/api/api_call.h"
#include "server/api/parse_common.h"
#include "server/caching/response_cache.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

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

}  // namespace millrace
