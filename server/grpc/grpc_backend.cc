// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/grpc_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/cache_control.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

std::string_view Metadata(const grpc::CallbackServerContext& context, const char* name) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(name);
  return found == metadata.end() ? std::string_view() : std::string_view(found->second.data(), found->second.size());
}

// Metadata values are printable ASCII; anything else would make gRPC refuse the whole answer.
std::string MetadataValue(std::string_view text) {
  std::string value(text.substr(0, 200));
  for (char& c : value) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return value;
}

}  // namespace

absl::Status CallGate::Enter() {
  absl::MutexLock lock(&mu_);
  if (is_closed_) return absl::UnavailableError("the server is shutting down");
  if (num_calls_ >= max_calls_) return absl::ResourceExhaustedError(absl::StrCat(num_calls_, " calls are under way"));
  ++num_calls_;
  return absl::OkStatus();
}

void CallGate::Leave() {
  absl::MutexLock lock(&mu_);
  --num_calls_;
}

void CallGate::Close() {
  absl::MutexLock lock(&mu_);
  is_closed_ = true;
}

void CallGate::AwaitEmpty() const {
  const auto is_empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return num_calls_ == 0; };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&is_empty));
}

int CallGate::num_calls() const {
  absl::MutexLock lock(&mu_);
  return num_calls_;
}

Caller MakeCaller(grpc::CallbackServerContext* context, std::string_view endpoint) {
  Caller caller;
  const std::string_view id = Metadata(*context, "x-request-id");
  caller.request_id = IsValidRequestId(id) ? std::string(id) : RandomId();
  context->AddInitialMetadata("x-request-id", caller.request_id);
  caller.endpoint = std::string(endpoint);
  caller.remote = context->peer();
  caller.received = absl::Now();
  // gRPC gives clients without a deadline one that is centuries away.
  const absl::Time deadline = absl::FromChrono(context->deadline());
  if (deadline < caller.received + absl::Hours(24 * 365)) caller.deadline = deadline;
  ApplyCacheControl(Metadata(*context, "cache-control"), caller.cache);
  return caller;
}

absl::Status Authorize(const grpc::CallbackServerContext& context, const ApiKeys& api_keys, Access access,
                       Caller& caller) {
  auto identity = api_keys.Authorize(Metadata(context, "authorization"), Metadata(context, "x-api-key"), access);
  if (!identity.ok()) return identity.status();
  caller.tenant = std::move(identity->tenant);
  caller.key_name = std::move(identity->key_name);
  caller.quota = std::move(identity->quota);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ResolveModel(const ServerState& state, const std::string& asked) {
  auto name = state.ResolveModel(asked);
  if (!name.ok()) return WithErrorCode(WithErrorParam(name.status(), "model"), "model_not_found");
  return name;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // Both enumerations are Google's canonical codes, number by number.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

grpc::Status ToGrpcStatus(const absl::Status& status, grpc::CallbackServerContext* context) {
  if (status.ok()) return grpc::Status::OK;
  const ApiError error = ToApiError(status);
  if (!error.param.empty()) context->AddTrailingMetadata("millrace-param", MetadataValue(error.param));
  if (!error.code.empty()) context->AddTrailingMetadata("millrace-code", MetadataValue(error.code));
  if (absl::IsResourceExhausted(status)) {
    // Seconds as in HTTP, and the milliseconds that gRPC's own retries wait for.
    const absl::Duration wait = RetryAfter(status);
    context->AddTrailingMetadata("retry-after", absl::StrCat(absl::ToInt64Seconds(absl::Ceil(wait, absl::Seconds(1)))));
    context->AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(wait)));
  }
  return ToGrpcStatus(status);
}

void AddCacheMetadata(const CacheReport& report, grpc::CallbackServerContext* context) {
  if (report.outcome == CacheOutcome::kNone) return;
  context->AddTrailingMetadata("millrace-cache", std::string(CacheOutcomeName(report.outcome)));
  if (report.outcome == CacheOutcome::kHit) {
    context->AddTrailingMetadata("age", absl::StrCat(absl::ToInt64Seconds(report.age)));
  }
}

void NoteRefusal(const GrpcBackend& backend, const Caller& caller, const absl::Status& status) {
  if (backend.observer != nullptr) backend.observer->OnRejected(caller, status);
}

}  // namespace millrace
