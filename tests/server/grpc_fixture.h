// SPDX-License-Identifier: Apache-2.0
#pragma once
// A gRPC server over the echo engine on a port of its own, and channels to it. Test thread only.
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "proto/kserve/v2/inference.grpc.pb.h"
#include "proto/millrace/v1/inference.grpc.pb.h"
#include "server/grpc/grpc_server.h"
#include "tests/server/echo_engine.h"

namespace millrace {

// Keeps what it hears of refusals; can hold the delivery thread at a first token.
class RecordingObserver : public RequestObserver {
 public:
  struct Refusal {
    Caller caller;
    absl::Status status;
  };
  void OnPrefilled(const Caller&, int32_t, int32_t) override {}
  void OnGenerated(const Caller&, int32_t) override {}
  void OnFirstToken(const Caller&, absl::Duration) override {
    if (hold_ == nullptr) return;
    has_first_token.Notify();
    hold_->WaitForNotification();
  }
  void OnInterTokenLatency(absl::Duration) override {}
  void OnFinished(const RequestRecord&) override {}
  void OnRejected(const Caller& caller, const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    refusals_.push_back({caller, status});
  }
  // The next first token waits for `hold`. Before any request.
  void HoldAtFirstToken(absl::Notification* hold) { hold_ = hold; }
  std::vector<Refusal> TakeRefusals() {
    absl::MutexLock lock(&mu_);
    return std::exchange(refusals_, {});
  }
  absl::Notification has_first_token;

 private:
  absl::Notification* hold_ = nullptr;
  absl::Mutex mu_;
  std::vector<Refusal> refusals_ ABSL_GUARDED_BY(mu_);
};

struct GrpcFixture {
  explicit GrpcFixture(GrpcServerOptions options = {}, const std::string& key = "",
                       const SchedulerConfig& config = EchoEngine::DefaultConfig())
      : engine(config) {
    if (!key.empty()) REQUIRE(keys.AddKey(key).ok());
    options.host = "127.0.0.1";
    options.port = 0;
    options.version = "1.2.3";
    options.limits.health_interval = absl::Milliseconds(10);
    generator = Generator::Create(engine, &observer, {});
    state.SetGenerator(generator);
    state.SetHealth(EngineHealth::kReady);
    server = GrpcServer::Start(options, {.state = state, .keys = keys, .observer = &observer}).value();
    channel = Connect(grpc::InsecureChannelCredentials());
    inference = v1::Inference::NewStub(channel);
    kserve = inference::GRPCInferenceService::NewStub(channel);
  }
  ~GrpcFixture() { server.reset(); }

  std::shared_ptr<grpc::Channel> Connect(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);            // or a client that does not read buffers megabytes
    return grpc::CreateCustomChannel("localhost:" + std::to_string(server->port()), credentials, arguments);
  }

  ApiKeys keys;
  RecordingObserver observer;
  EchoEngine engine;
  std::shared_ptr<Generator> generator;
  ServerState state{{"echo", "parrot"}};
  std::unique_ptr<GrpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<inference::GRPCInferenceService::Stub> kserve;
};

// A context that cannot hang a test.
struct Context : grpc::ClientContext {
  explicit Context(absl::Duration timeout = absl::Seconds(30)) {
    set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
};

}  // namespace millrace
