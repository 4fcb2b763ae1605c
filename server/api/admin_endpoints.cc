// SPDX-License-Identifier: Apache-2.0
// What administrators ask: who has used how much, and which keys there are.
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "server/api/api_call.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

using Column = std::pair<const char*, int64_t UsageCounts::*>;
constexpr std::array kColumns = {Column{"completed", &UsageCounts::num_completed},
                                 Column{"cancelled", &UsageCounts::num_cancelled},
                                 Column{"failed", &UsageCounts::num_failed},
                                 Column{"rejected", &UsageCounts::num_rejected},
                                 Column{"prompt_tokens", &UsageCounts::num_prompt_tokens},
                                 Column{"cached_tokens", &UsageCounts::num_cached_tokens},
                                 Column{"generated_tokens", &UsageCounts::num_generated_tokens}};

std::string TimeText(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone()); }

// A member that another follows.
void AppendText(const char* name, std::string_view text, std::string& out) {
  absl::StrAppend(&out, "\"", name, "\":");
  AppendJsonString(text, out);
  out += ',';
}

void AppendCounts(const UsageCounts& counts, std::string& out) {
  for (const auto& [name, member] : kColumns) absl::StrAppend(&out, "\"", name, "\":", counts.*member, ",");
  out.pop_back();
}

std::string UsageJson(const UsageLedger& ledger, const std::string& model) {
  std::string out = R"({"object":"usage",)";
  AppendText("since", TimeText(ledger.since()), out);
  out += R"("data":[)";
  for (const TenantUsage& usage : ledger.Report()) {
    if (out.back() == '}') out += ',';
    out += '{';
    AppendText("tenant", usage.tenant, out);
    AppendText("model", model, out);
    AppendCounts(usage.total, out);
    out += R"(,"days":[)";
    for (const UsageDay& day : usage.days) {
      if (out.back() == '}') out += ',';
      out += '{';
      AppendText("day", absl::FormatCivilTime(day.day), out);
      AppendCounts(day.counts, out);
      out += '}';
    }
    out += "]}";
  }
  return out + "]}";
}

// A row per tenant and day. The model's name is the operator's own and may hold anything.
std::string UsageCsv(const UsageLedger& ledger, const std::string& model) {
  std::string out = "tenant,model,day";
  for (const auto& [name, member] : kColumns) absl::StrAppend(&out, ",", name);
  out += "\r\n";
  const std::string quoted = absl::StrCat("\"", absl::StrReplaceAll(model, {{"\"", "\"\""}}), "\"");
  for (const TenantUsage& usage : ledger.Report()) {
    for (const UsageDay& day : usage.days) {
      absl::StrAppend(&out, usage.tenant, ",", quoted, ",", absl::FormatCivilTime(day.day));
      for (const auto& [name, member] : kColumns) absl::StrAppend(&out, ",", day.counts.*member);
      out += "\r\n";
    }
  }
  return out;
}

void AppendLimits(const RateLimits& limits, std::string& out) {
  const auto append = [&out](const char* name, int64_t limit) {
    absl::StrAppend(&out, "\"", name, "\":", limit > 0 ? absl::StrCat(limit) : "null", ",");
  };
  append("requests_per_minute", limits.requests_per_minute);
  append("tokens_per_minute", limits.tokens_per_minute);
  append("concurrent_requests", limits.concurrent_requests);
  out.pop_back();
}

void AppendKey(const KeyInfo& key, std::string& out) {
  out += '{';
  AppendText("name", key.name, out);
  AppendText("tenant", key.tenant.empty() ? "anonymous" : key.tenant, out);
  out += R"("roles":[)";
  for (const auto& [name, has_role] :
       {std::pair{"infer", key.roles.infer}, {"metrics", key.roles.metrics}, {"admin", key.roles.admin}}) {
    if (has_role) absl::StrAppend(&out, out.back() == '[' ? "" : ",", "\"", name, "\"");
  }
  out += R"(],"expires":)";
  AppendJsonStringOrNull(key.expires == absl::InfiniteFuture() ? "" : TimeText(key.expires), out);
  out += R"(,"limits":{)";
  AppendLimits(key.limits, out);
  out += R"(},"tenant_limits":{)";
  AppendLimits(key.tenant_limits, out);
  const auto append_rest = [&out](const char* name, const BucketState& bucket) {
    absl::StrAppend(&out, "\"", name, "\":", bucket.limit > 0 ? absl::StrCat(bucket.remaining) : "null");
  };
  out += R"(},"remaining":{)";
  append_rest("requests", key.state.requests);
  out += ',';
  append_rest("tokens", key.state.tokens);
  out += "}}";
}

}  // namespace

void ApiHandler::AdminUsage(Call& call) {
  const std::string& query = call.request.query;
  const bool is_csv = query == "format=csv";
  if (!is_csv && !query.empty() && query != "format=json") {
    return Refuse(call, ParamError("format", "format is json or csv, and there are no other parameters"));
  }
  if (parts_.usage == nullptr) return Refuse(call, absl::NotFoundError("nobody counts"));
  const std::string& model = parts_.state.model_names().front();
  if (!is_csv) return call.Send(UsageJson(*parts_.usage, model));
  call.writer->Send({.content_type = "text/csv; charset=utf-8", .body = UsageCsv(*parts_.usage, model)});
}

void ApiHandler::AdminKeys(Call& call) {
  std::string body = R"({"object":"list","data":[)";
  for (const KeyInfo& key : parts_.keys.List()) {
    if (body.back() == '}') body += ',';
    AppendKey(key, body);
  }
  call.Send(body + "]}");
}

}  // namespace millrace
