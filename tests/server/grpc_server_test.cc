// SPDX-License-Identifier: Apache-2.0
// The door itself: keys, TLS, limits, health, reflection, draining; and the bundled model behind it.
#include <grpcpp/generic/generic_stub.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/server/grpc_fixture.h"
#include "tests/server/test_certificate.h"

namespace millrace {
namespace {

v1::GenerateRequest MakeRequest(const std::string& text, int32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  return request;
}

grpc::Status Run(v1::Inference::Stub& stub, grpc::ClientContext* context, const v1::GenerateRequest& request,
                 std::string* text = nullptr) {
  auto reader = stub.Generate(context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (text != nullptr) *text += response.text();
  }
  return reader->Finish();
}

// gRPC's own health service, called by name: its generated stubs are not installed. The message is one byte pair
// (field 1, the state): 0 unknown, 1 serving, 2 not serving.
int HealthOf(GrpcFixture& fixture, const std::string& service) {
  Context context;
  grpc::ByteBuffer response;
  std::string request;
  if (!service.empty()) request = std::string("\x0a") + static_cast<char>(service.size()) + service;
  const grpc::Slice slice(request);
  const grpc::ByteBuffer bytes(&slice, 1);
  grpc::GenericStub stub(fixture.channel);
  absl::Notification done;
  grpc::Status status;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &bytes, &response, [&](grpc::Status result) {
    status = std::move(result);
    done.Notify();
  });
  done.WaitForNotification();
  if (!status.ok()) return -static_cast<int>(status.error_code());
  std::vector<grpc::Slice> slices;
  (void)response.Dump(&slices);
  std::string text;
  for (const grpc::Slice& part : slices) text.append(reinterpret_cast<const char*>(part.begin()), part.size());
  return text.size() == 2 ? text[1] : 0;
}

bool WaitForHealth(GrpcFixture& fixture, const std::string& service, int wanted) {
  const absl::Time limit = absl::Now() + absl::Seconds(20);
  while (absl::Now() < limit) {
    if (HealthOf(fixture, service) == wanted) return true;
  }
  return false;
}

TEST_CASE("GrpcServer: grpc.health.v1 follows the engine's health", "[grpc]") {
  GrpcFixture fixture;
  for (const char* service : {"", "millrace.v1.Inference", "inference.GRPCInferenceService"}) {
    INFO(service);
    fixture.state.SetHealth(EngineHealth::kReady);
    CHECK(WaitForHealth(fixture, service, 1));
    fixture.state.SetHealth(EngineHealth::kStuck);
    CHECK(WaitForHealth(fixture, service, 2));
  }
  CHECK(HealthOf(fixture, "nobody") == -static_cast<int>(grpc::StatusCode::NOT_FOUND));
}

TEST_CASE("GrpcServer: keys are asked for where something is done, not where health is", "[grpc]") {
  GrpcFixture fixture({}, "secret");
  Context none, wrong, right;
  CHECK(Run(*fixture.inference, &none, MakeRequest("a", 1)).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  wrong.AddMetadata("authorization", "Bearer guess");
  CHECK(Run(*fixture.inference, &wrong, MakeRequest("a", 1)).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  right.AddMetadata("authorization", "Bearer secret");
  CHECK(Run(*fixture.inference, &right, MakeRequest("a", 1)).ok());

  Context tokenize, embed, models, infer, stream, metadata, live;
  v1::TokenizeResponse tokens;
  v1::EmbedResponse embeddings;
  v1::EmbedRequest input;
  input.add_inputs()->set_text("a");
  v1::ListModelsResponse list;
  inference::ModelInferResponse answer;
  inference::ServerMetadataResponse about;
  inference::ServerLiveResponse is_live;
  CHECK(fixture.inference->Tokenize(&tokenize, {}, &tokens).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(fixture.inference->Embed(&embed, input, &embeddings).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(fixture.inference->ListModels(&models, {}, &list).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(list.models().empty());
  CHECK(fixture.kserve->ModelInfer(&infer, {}, &answer).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(fixture.kserve->ServerMetadata(&metadata, {}, &about).error_code() == grpc::StatusCode::UNAUTHENTICATED);
  auto bidi = fixture.kserve->ModelStreamInfer(&stream);
  CHECK(bidi->Finish().error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(fixture.kserve->ServerLive(&live, {}, &is_live).ok());
  CHECK(WaitForHealth(fixture, "", 1));
}

TEST_CASE("GrpcServer: messages and calls are limited", "[grpc]") {
  GrpcServerOptions options;
  options.limits.max_message_bytes = 10000;
  options.limits.max_calls = 1;
  GrpcFixture fixture(options);
  Context large, first, second, third;
  CHECK(Run(*fixture.inference, &large, MakeRequest(std::string(20000, 'x'), 1)).error_code() ==
        grpc::StatusCode::RESOURCE_EXHAUSTED);
  fixture.engine.SetPaused(true);
  auto reader = fixture.inference->Generate(&first, MakeRequest("a", 1));
  while (fixture.server->num_active_calls() == 0) absl::SleepFor(absl::Milliseconds(1));
  CHECK(Run(*fixture.inference, &second, MakeRequest("a", 1)).error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  fixture.engine.SetPaused(false);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  CHECK(reader->Finish().ok());
  while (fixture.server->num_active_calls() != 0) absl::SleepFor(absl::Milliseconds(1));
  CHECK(Run(*fixture.inference, &third, MakeRequest("a", 1)).ok());
}

TEST_CASE("GrpcServer: open streams are limited, busy or idle", "[grpc]") {
  GrpcServerOptions options;
  options.limits.max_infer_streams = 1;
  GrpcFixture fixture(options);
  inference::ModelInferRequest unknown;
  unknown.set_model_name("nobody");
  inference::ModelStreamInferResponse response;
  Context first;
  auto idle = fixture.kserve->ModelStreamInfer(&first);
  REQUIRE(idle->Write(unknown));
  REQUIRE(idle->Read(&response));  // refused, so the stream is open, and now idle
  CHECK(fixture.server->num_active_calls() == 0);
  Context second;
  CHECK(fixture.kserve->ModelStreamInfer(&second)->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  REQUIRE(idle->WritesDone());
  CHECK(idle->Finish().ok());
  // The place is free once gRPC has let go of the stream.
  grpc::Status status;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    Context context;
    auto stream = fixture.kserve->ModelStreamInfer(&context);
    stream->WritesDone();
    status = stream->Finish();
    if (status.ok()) break;
  }
  CHECK(status.ok());
}

TEST_CASE("GrpcServer: it waits for threads that still hold a call before it goes", "[grpc]") {
  absl::Notification may_go_on, is_gone;
  GrpcFixture fixture;
  fixture.observer.HoldAtFirstToken(&may_go_on);
  Context context;
  auto reader = fixture.inference->Generate(&context, MakeRequest("abc", 5));
  fixture.observer.has_first_token.WaitForNotification();
  std::thread destroyer([&] {
    fixture.server.reset();
    is_gone.Notify();
  });
  CHECK_FALSE(is_gone.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  may_go_on.Notify();
  destroyer.join();
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  CHECK_FALSE(reader->Finish().ok());
}

TEST_CASE("GrpcServer: every refusal is told with its caller", "[grpc]") {
  GrpcServerOptions options;
  options.limits.max_infer_streams = 0;
  GrpcFixture fixture(options, "secret");
  // The one refusal since the last look.
  const auto refused = [&fixture] {
    auto refusals = fixture.observer.TakeRefusals();
    REQUIRE(refusals.size() == 1);
    CHECK_FALSE(refusals[0].caller.request_id.empty());
    CHECK_FALSE(refusals[0].caller.remote.empty());
    return refusals[0].caller.endpoint + " " + absl::StatusCodeToString(refusals[0].status.code());
  };
  const auto open = [](Context& context) { context.AddMetadata("authorization", "Bearer secret"); };
  Context no_key, bad_value, empty, embed, infer, stream, loading, fine;
  Run(*fixture.inference, &no_key, MakeRequest("a", 1));
  CHECK(refused() == "grpc.generate UNAUTHENTICATED");
  open(bad_value);
  Run(*fixture.inference, &bad_value, MakeRequest("a", -1));
  CHECK(refused() == "grpc.generate INVALID_ARGUMENT");
  open(empty);
  Run(*fixture.inference, &empty, MakeRequest("", 1));  // found by the worker
  CHECK(refused() == "grpc.generate INVALID_ARGUMENT");
  open(embed);
  v1::EmbedResponse embeddings;
  fixture.inference->Embed(&embed, {}, &embeddings);
  CHECK(refused() == "grpc.embed INVALID_ARGUMENT");
  open(infer);
  inference::ModelInferResponse answer;
  fixture.kserve->ModelInfer(&infer, {}, &answer);
  CHECK(refused() == "grpc.infer INVALID_ARGUMENT");
  open(stream);
  fixture.kserve->ModelStreamInfer(&stream)->Finish();
  CHECK(refused() == "grpc.stream_infer RESOURCE_EXHAUSTED");
  fixture.state.SetGenerator(nullptr);
  open(loading);
  Run(*fixture.inference, &loading, MakeRequest("a", 1));
  CHECK(refused() == "grpc.generate UNAVAILABLE");
  fixture.state.SetGenerator(fixture.generator);
  open(fine);
  CHECK(Run(*fixture.inference, &fine, MakeRequest("a", 1)).ok());
  CHECK(fixture.observer.TakeRefusals().empty());
}

TEST_CASE("GrpcServer: while the model loads and while draining, calls are Unavailable", "[grpc]") {
  GrpcFixture fixture;
  fixture.state.SetGenerator(nullptr);
  Context loading, running, late;
  CHECK(Run(*fixture.inference, &loading, MakeRequest("a", 1)).error_code() == grpc::StatusCode::UNAVAILABLE);
  fixture.state.SetGenerator(fixture.generator);
  while (fixture.server->num_active_calls() != 0) absl::SleepFor(absl::Milliseconds(1));

  fixture.engine.SetPaused(true);
  auto reader = fixture.inference->Generate(&running, MakeRequest("abc", 6));
  while (fixture.server->num_active_calls() == 0) absl::SleepFor(absl::Milliseconds(1));
  fixture.server->BeginDrain();
  CHECK(Run(*fixture.inference, &late, MakeRequest("a", 1)).error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(WaitForHealth(fixture, "", 2));
  std::thread shutdown([&fixture] { fixture.server->Shutdown(absl::Now() + absl::Seconds(30)); });
  fixture.engine.SetPaused(false);
  v1::GenerateResponse response;
  std::string text;
  while (reader->Read(&response)) text += response.text();
  CHECK(reader->Finish().ok());
  CHECK(text == "abcabc");
  shutdown.join();
  // A delivery thread may hold on to the last call for a moment.
  while (fixture.server->num_active_calls() != 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_CASE("GrpcServer: what still runs at the drain's deadline is cancelled", "[grpc]") {
  GrpcFixture fixture;
  fixture.engine.SetPaused(true);
  Context context;
  auto reader = fixture.inference->Generate(&context, MakeRequest("abc", 2000));
  while (fixture.server->num_active_calls() == 0) absl::SleepFor(absl::Milliseconds(1));
  fixture.server->Shutdown(absl::Now() + absl::Milliseconds(50));
  fixture.engine.SetPaused(false);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  CHECK_FALSE(reader->Finish().ok());
  CHECK(fixture.engine.WaitIdle());
}

TEST_CASE("GrpcServer: a taken port and an unreadable certificate are named", "[grpc]") {
  GrpcFixture fixture;
  GrpcServerOptions options;
  options.host = "127.0.0.1";
  options.port = fixture.server->port();
  const GrpcParts parts{.state = fixture.state, .keys = fixture.keys};
  CHECK(absl::IsUnavailable(GrpcServer::Start(options, parts).status()));
  options.port = 0;
  options.tls = TlsConfig{.certificate_file = "/nowhere/cert.pem", .key_file = "/nowhere/key.pem"};
  const absl::Status status = GrpcServer::Start(options, parts).status();
  CHECK(absl::IsInvalidArgument(status));
  CHECK(std::string(status.message()).find("/nowhere/cert.pem") != std::string::npos);
}

TEST_CASE("GrpcServer: TLS, with and without certificates of clients", "[grpc]") {
  const auto folder = std::filesystem::temp_directory_path() / ("millrace_grpc_tls_" + std::to_string(getpid()));
  const TestCertificate certificate(folder);
  GrpcServerOptions options;
  options.tls = TlsConfig{.certificate_file = certificate.certificate_file, .key_file = certificate.key_file};
  std::stringstream key;
  key << std::ifstream(certificate.key_file).rdbuf();
  grpc::SslCredentialsOptions ssl{.pem_root_certs = certificate.certificate_text()};
  grpc::SslCredentialsOptions with_key{certificate.certificate_text(), key.str(), certificate.certificate_text()};
  {
    GrpcFixture fixture(options);
    Context secure, plain(absl::Seconds(2));
    auto stub = v1::Inference::NewStub(fixture.Connect(grpc::SslCredentials(ssl)));
    std::string text;
    CHECK(Run(*stub, &secure, MakeRequest("abc", 6), &text).ok());
    CHECK(text == "abcabc");
    CHECK_FALSE(Run(*fixture.inference, &plain, MakeRequest("abc", 6)).ok());
  }
  options.client_ca_file = certificate.certificate_file;
  GrpcFixture fixture(options);
  Context stranger(absl::Seconds(2)), known;
  auto stub = v1::Inference::NewStub(fixture.Connect(grpc::SslCredentials(ssl)));
  CHECK_FALSE(Run(*stub, &stranger, MakeRequest("abc", 1)).ok());
  auto known_stub = v1::Inference::NewStub(fixture.Connect(grpc::SslCredentials(with_key)));
  CHECK(Run(*known_stub, &known, MakeRequest("abc", 1)).ok());
  std::filesystem::remove_all(folder);
}

TEST_CASE("GrpcServer: the bundled model answers, alone and in a crowd alike", "[grpc]") {
  const std::filesystem::path model = std::filesystem::path(MILLRACE_SOURCE_DIR) / "models" / "millrace-tiny";
  if (!std::filesystem::exists(model / "model.safetensors")) {
    WARN("[SKIPPED] no bundled model");
    return;
  }
  EngineOptions engine_options;
  engine_options.model_dir = model;
  engine_options.num_threads = 1;
  engine_options.kv_cache_bytes = 64 << 20;
  engine_options.max_model_tokens = 512;
  auto engine = Engine::Create(engine_options);
  INFO(engine.status().ToString());
  REQUIRE(engine.ok());
  ApiKeys keys;
  ServerState state({"tiny"});
  std::shared_ptr<Generator> generator = Generator::Create(**engine, nullptr, {});
  state.SetGenerator(generator);
  state.SetHealth(EngineHealth::kReady);
  GrpcServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  auto server = GrpcServer::Start(options, {.state = state, .keys = keys}).value();
  auto channel = grpc::CreateChannel("localhost:" + std::to_string(server->port()), grpc::InsecureChannelCredentials());
  auto stub = v1::Inference::NewStub(channel);
  const auto chat = [&stub](uint64_t seed) {
    v1::ChatRequest request;
    auto* message = request.add_messages();
    message->set_role("user");
    message->set_content("What is 12 + 30?");
    request.mutable_sampling()->set_seed(seed);
    request.mutable_sampling()->set_temperature(0.8f);
    request.mutable_sampling()->set_max_tokens(24);
    Context context;
    auto reader = stub->Chat(&context, request);
    v1::ChatResponse response;
    std::string text;
    while (reader->Read(&response)) text += response.content();
    return reader->Finish().ok() ? text : std::string("failed");
  };
  std::vector<std::string> solo, crowd(6);
  for (uint64_t seed = 0; seed < crowd.size(); ++seed) solo.push_back(chat(seed));
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < crowd.size(); ++seed) {
    threads.emplace_back([&, seed] { crowd[seed] = chat(seed); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(solo == crowd);
  CHECK_FALSE(solo.front().empty());
  server.reset();
  state.SetGenerator(nullptr);
  generator.reset();
}

}  // namespace
}  // namespace millrace
