// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <fstream>
#include <iterator>
#include <mutex>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/grpc/agents_service.h"
#include "server/grpc/grpc_backend.h"
#include "server/grpc/health_reporter.h"
#include "server/grpc/inference_service.h"
#include "server/grpc/kserve_service.h"

namespace millrace {
namespace {

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || text.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  // gRPC itself takes any text and fails at the first handshake.
  if (!absl::StrContains(text, "-----BEGIN ")) return absl::InvalidArgumentError(absl::StrCat(path, ": is not PEM"));
  return text;
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const GrpcServerOptions& options) {
  if (!options.tls) return grpc::InsecureServerCredentials();
  auto certificate = ReadPem(options.tls->certificate_file);
  if (!certificate.ok()) return certificate.status();
  auto key = ReadPem(options.tls->key_file);
  if (!key.ok()) return key.status();
  const bool checks_clients = !options.client_ca_file.empty();
  grpc::SslServerCredentialsOptions ssl(checks_clients ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                       : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  ssl.pem_key_cert_pairs.push_back({*std::move(key), *std::move(certificate)});
  if (checks_clients) {
    auto authority = ReadPem(options.client_ca_file);
    if (!authority.ok()) return authority.status();
    ssl.pem_root_certs = *std::move(authority);
  }
  return grpc::SslServerCredentials(ssl);
}

void ApplyLimits(const GrpcLimits& limits, grpc::ServerBuilder& builder) {
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  builder.SetMaxReceiveMessageSize(limits.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, limits.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(limits.keepalive_interval));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(limits.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             milliseconds(limits.min_ping_interval));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 3);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, milliseconds(limits.idle_timeout));
  // A second server on the port must fail, not share it.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetResourceQuota(grpc::ResourceQuota("millrace").Resize(limits.max_buffer_bytes));
}

void EnablePlugins() {
  static absl::once_flag once;  // gRPC keeps plugins per process
  absl::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

class GrpcServerImpl final : public GrpcServer {
 public:
  GrpcServerImpl(const GrpcServerOptions& options, const GrpcParts& parts)
      : options_(options),
        workers_(options.num_workers, options.max_queued_work),
        backend_{parts.state, parts.keys, workers_, options.version, parts.observer},
        gate_(options.limits.max_calls),
        stream_gate_(options.limits.max_infer_streams),
        inference_(backend_, gate_),
        kserve_(backend_, gate_, stream_gate_) {
    if (parts.runs != nullptr) agents_ = std::make_unique<AgentsService>(backend_, gate_, *parts.runs, *parts.agents);
  }
  ~GrpcServerImpl() override {
    Shutdown(absl::InfinitePast());
    // What workers and delivery threads still hold of calls refers to the gates and the backend.
    workers_.Stop();
    gate_.AwaitEmpty();
    stream_gate_.AwaitEmpty();
  }

  absl::Status Listen() {
    auto credentials = MakeCredentials(options_);
    if (!credentials.ok()) return credentials.status();
    EnablePlugins();
    grpc::ServerBuilder builder;
    const bool is_ipv6 = absl::StrContains(options_.host, ":") && options_.host.front() != '[';
    const std::string address = absl::StrCat(is_ipv6 ? "[" : "", options_.host, is_ipv6 ? "]:" : ":", options_.port);
    builder.AddListeningPort(address, *credentials, &port_);
    ApplyLimits(options_.limits, builder);
    builder.RegisterService(&inference_);
    builder.RegisterService(&kserve_);
    if (agents_ != nullptr) builder.RegisterService(agents_.get());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    health_ = std::make_unique<HealthReporter>(
        server_->GetHealthCheckService(), [this] { return backend_.state.is_ready(); },
        options_.limits.health_interval);
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  int num_active_calls() const override { return gate_.num_calls(); }

  void BeginDrain() override {
    gate_.Close();
    stream_gate_.Close();
    if (health_ != nullptr) health_->Stop();
  }

  void Shutdown(absl::Time deadline) override {
    BeginDrain();
    absl::MutexLock lock(&shutdown_mu_);
    if (server_ == nullptr) return;
    // Connections are told to go away only once nothing runs on them any more.
    server_->Shutdown(absl::ToChronoTime(std::max(deadline, absl::UnixEpoch())));
    server_->Wait();
    health_.reset();
    server_.reset();
  }

 private:
  const GrpcServerOptions options_;
  WorkerPool workers_;
  const GrpcBackend backend_;
  CallGate gate_;
  CallGate stream_gate_;
  InferenceService inference_;
  KserveService kserve_;
  std::unique_ptr<AgentsService> agents_;
  int port_ = 0;
  absl::Mutex shutdown_mu_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HealthReporter> health_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options, GrpcParts parts) {
  auto server = std::make_unique<GrpcServerImpl>(options, parts);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace millrace
