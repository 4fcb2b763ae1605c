// SPDX-License-Identifier: Apache-2.0
#pragma once
// The gRPC front door on its own port: millrace.v1.Inference and Agents, KServe v2, grpc.health.v1 and reflection. It
// has gRPC's own threads and a few workers; nothing here blocks them. Thread-safe.
//
// Not for the open internet: Debian's gRPC predates the upstream remedy against rapid resets of HTTP/2 streams.
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/auth/api_keys.h"
#include "server/http/http_server.h"
#include "server/pipeline/server_state.h"

namespace millrace {

class AgentCatalogue;
class AgentRuns;

struct GrpcLimits {
  int max_message_bytes = 32 << 20;  // of a request; beyond: ResourceExhausted
  int max_metadata_bytes = 16 << 10;
  int max_streams_per_connection = 1024;                     // HTTP/2's MAX_CONCURRENT_STREAMS
  int max_calls = 10000;                                     // of all connections together; beyond: ResourceExhausted
  int max_infer_streams = 1000;                              // likewise: open ModelStreamInfer, idle ones too
  size_t max_buffer_bytes = size_t{1} << 30;                 // gRPC's own buffers
  absl::Duration keepalive_interval = absl::Seconds(60);     // our pings, to find dead peers
  absl::Duration keepalive_timeout = absl::Seconds(20);      // unanswered: the connection closes
  absl::Duration min_ping_interval = absl::Seconds(10);      // clients that ping more often are sent away
  absl::Duration idle_timeout = absl::Minutes(30);           // connections without calls
  absl::Duration health_interval = absl::Milliseconds(500);  // how often grpc.health.v1 learns of the engine's health
};

struct GrpcServerOptions {
  std::string host = "0.0.0.0";
  int port = 8001;                // 0: the system chooses
  int num_workers = 2;            // threads that tokenise and submit
  size_t max_queued_work = 2048;  // requests waiting for a worker; beyond: ResourceExhausted
  GrpcLimits limits;
  std::optional<TlsConfig> tls;
  std::string client_ca_file;  // PEM; not empty: clients must show a certificate signed by it
  std::string version;
};

// All outlive the server.
struct GrpcParts {
  const ServerState& state;
  const ApiKeys& keys;
  RequestObserver* observer = nullptr;     // hears of refused requests; may be null
  AgentRuns* runs = nullptr;               // what millrace.v1.Agents starts; null: without that service
  const AgentCatalogue* agents = nullptr;  // not null where `runs` is not
};

class GrpcServer {
 public:
  // Listens at once, before the model is loaded: calls that need it are Unavailable until then.
  // InvalidArgument: a certificate that cannot be read; Unavailable: the port is taken.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options, GrpcParts parts);
  virtual ~GrpcServer() = default;  // Shutdown now, and wait for the last call's traces

  virtual int port() const = 0;
  virtual int num_active_calls() const = 0;
  // From now on new calls are Unavailable and health says NOT_SERVING; running ones go on.
  virtual void BeginDrain() = 0;
  // BeginDrain, wait for running calls, cancel those left at `deadline`. Blocks.
  virtual void Shutdown(absl::Time deadline) = 0;
};

}  // namespace millrace
