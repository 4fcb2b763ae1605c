// SPDX-License-Identifier: Apache-2.0
// Keys, roles and limits at the gRPC door, and prefix reuse, which never crosses tenants.
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>

#include <catch2/catch.hpp>
#include <set>
#include <thread>

#include "absl/strings/numbers.h"
#include "tests/server/grpc_fixture.h"

namespace millrace {
namespace {

struct Outcome {
  grpc::Status status;
  int32_t num_cached_tokens = -1;
};

Outcome Generate(GrpcFixture& fixture, Context& context, const std::string& key, int32_t max_tokens) {
  context.AddMetadata("authorization", "Bearer " + key);
  v1::GenerateRequest request;
  request.set_text(std::string(64, 'p'));
  request.mutable_sampling()->set_max_tokens(max_tokens);
  auto reader = fixture.inference->Generate(&context, request);
  Outcome outcome;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_usage()) outcome.num_cached_tokens = response.usage().cached_tokens();
  }
  outcome.status = reader->Finish();
  return outcome;
}

std::string Trailing(const Context& context, const std::string& name) {
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(name);
  return found == metadata.end() ? "-" : std::string(found->second.data(), found->second.size());
}

// Calls any method with an empty message (or none at all).
grpc::StatusCode CallAny(GrpcFixture& fixture, const std::string& method, const std::string& key) {
  grpc::GenericStub stub(fixture.channel);
  grpc::CompletionQueue queue;
  Context context;
  if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    REQUIRE(queue.Next(&tag, &ok));
    return ok;
  };
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  next();
  grpc::Slice slice("");
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  next();
  grpc::ByteBuffer answer;
  do {
    call->Read(&answer, nullptr);
  } while (next());
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  return status.error_code();
}

TEST_CASE("gRPC: every method but the probes wants a key with the role infer", "[grpc][limits]") {
  GrpcFixture fixture;
  REQUIRE(fixture.keys.AddText("- {key: right}\n- {key: scraper, roles: [metrics, admin]}\n", "keys").ok());
  const std::set<std::string> open = {"ServerLive", "ServerReady", "ModelReady"};
  int num_methods = 0;
  for (const auto* service : {v1::GenerateRequest::descriptor()->file()->service(0),
                              inference::ModelInferRequest::descriptor()->file()->service(0)}) {
    for (int i = 0; i < service->method_count(); ++i, ++num_methods) {
      const std::string method = "/" + service->full_name() + "/" + service->method(i)->name();
      INFO(method);
      const bool is_open = open.contains(service->method(i)->name());
      CHECK((CallAny(fixture, method, "") == grpc::StatusCode::UNAUTHENTICATED) == !is_open);
      CHECK((CallAny(fixture, method, "wrong") == grpc::StatusCode::UNAUTHENTICATED) == !is_open);
      CHECK((CallAny(fixture, method, "scraper") == grpc::StatusCode::PERMISSION_DENIED) == !is_open);
      const grpc::StatusCode code = CallAny(fixture, method, "right");
      CHECK((code != grpc::StatusCode::UNAUTHENTICATED && code != grpc::StatusCode::PERMISSION_DENIED));
    }
  }
  CHECK(num_methods >= 12);
}

TEST_CASE("gRPC: a refusal by a limit says when to come back", "[grpc][limits]") {
  GrpcFixture fixture;
  REQUIRE(fixture.keys
              .AddText("- {key: k, tenant: acme, tokens_per_minute: 100}\n"
                       "- {key: unused, tokens_per_minute: 100}\n",
                       "keys")
              .ok());
  Context first, second, third;
  CHECK(Generate(fixture, first, "k", 36).status.ok());
  const Outcome refused = Generate(fixture, second, "k", 36);
  CHECK(refused.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(refused.status.error_message().find("tokens per minute: limit 100") != std::string::npos);
  CHECK(Trailing(second, "millrace-code") == "rate_limit_exceeded");
  int seconds = 0, milliseconds = 0;
  REQUIRE(absl::SimpleAtoi(Trailing(second, "retry-after"), &seconds));
  REQUIRE(absl::SimpleAtoi(Trailing(second, "grpc-retry-pushback-ms"), &milliseconds));
  CHECK((seconds >= 1 && seconds <= 60));
  CHECK((milliseconds > 0 && milliseconds <= seconds * 1000));
  CHECK(Generate(fixture, third, "unused", 90).status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("gRPC: a cancelled call gives its place back", "[grpc][limits]") {
  GrpcFixture fixture;
  REQUIRE(fixture.keys.AddText("- {key: k, concurrent_requests: 1}\n", "keys").ok());
  fixture.engine.SetPaused(true);
  Context running;
  running.AddMetadata("authorization", "Bearer k");
  v1::GenerateRequest request;
  request.set_text("abc");
  auto reader = fixture.inference->Generate(&running, request);
  const auto quota = fixture.keys.Authorize("", "k", Access::kInfer)->quota;
  const auto await = [&quota](bool is_free) {
    const absl::Time limit = absl::Now() + absl::Seconds(20);
    while (quota->Check().ok() != is_free && absl::Now() < limit) std::this_thread::yield();
    return quota->Check().ok() == is_free;
  };
  REQUIRE(await(false));
  Context second;
  CHECK(Generate(fixture, second, "k", 4).status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  running.TryCancel();
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  CHECK_FALSE(reader->Finish().ok());
  fixture.engine.SetPaused(false);
  CHECK(await(true));
}

TEST_CASE("gRPC: keys of one tenant share prefixes, other tenants' are computed anew", "[grpc][limits]") {
  GrpcFixture fixture;
  REQUIRE(fixture.keys.AddText("a1 a\na2 a\nb1 b\nnobody\n", "keys").ok());
  const auto num_cached = [&fixture](const std::string& key) {
    Context context;
    return Generate(fixture, context, key, 2).num_cached_tokens;
  };
  CHECK(num_cached("a1") == 0);
  CHECK(num_cached("a2") > 0);
  CHECK(num_cached("b1") == 0);
  CHECK(num_cached("nobody") == 0);
  CHECK(num_cached("b1") > 0);
}

}  // namespace
}  // namespace millrace
