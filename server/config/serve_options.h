// SPDX-License-Identifier: Apache-2.0
#pragma once
// Everything `millrace serve` can be told, with its defaults. Plain data; filled by the command line and config file.
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/run.h"
#include "engine/engine.h"
#include "engine/hub/hub_client.h"
#include "server/agents/tool_set.h"
#include "server/http/http_server.h"

namespace millrace {

struct ResponseCacheOptions {
  std::string store = "memory";   // off, memory, redis://...
  std::string url_file;           // holds a redis:// URL, which may have a password; goes before `store`
  int64_t max_bytes = 256 << 20;  // of the store in memory
  double ttl_seconds = 3600;
};

struct ServeOptions {
  std::string model;                            // directory, .gguf file, or org/name on a hub
  std::vector<std::string> served_model_names;  // empty: the model as given
  EngineOptions engine;
  HubOptions hub;
  HttpServerOptions http;
  bool is_max_connections_given = false;   // else http.limits.max_connections is a wish
  std::string certificate_file, key_file;  // both or none
  int grpc_port = 0;                       // 0: no gRPC
  std::vector<std::string> api_keys;
  std::string api_key_file;
  bool has_public_metrics = false;
  ResponseCacheOptions response_cache;
  bool logs_requests = true;
  std::string log_level = "info";
  std::string log_file;  // empty: standard error
  int max_logprobs = 20;
  double keep_alive_seconds = 15;  // 0: never
  double drain_seconds = 30;       // how long running streams may take after SIGTERM
  double step_seconds = 60;        // a step longer than this is stuck
  double load_seconds = 600;       // loading that makes no progress for longer than this is stuck
  int num_workers = 2;             // threads that parse, template and tokenise
  ToolOptions tools;               // that the server runs itself; its tool servers come from the next
  std::vector<std::string> mcp_config_files;
  RunLimits run_limits;       // of every agent run
  std::string agents_file;    // defines agents; empty: there are none
  int max_runs = 256;         // at once; beyond: 429
  std::string data_dir;       // of what survives a restart: stored responses; empty: they are kept in memory
  double response_days = 30;  // how long a response of /v1/responses can be asked for
  int64_t response_store_bytes = int64_t{1} << 30;
  bool checks_only = false;  // --check-config
};

// What clients may call the model; the first is what we call it.
std::vector<std::string> ModelNames(const ServeOptions& options);

// What the flags alone cannot say: both halves of TLS, names that are not empty, ...
absl::Status CheckServeOptions(const ServeOptions& options);
// Reads the small files that serving would read: keys, certificate and private key, agents, chat template. The status
// says what is wrong with which of them.
absl::Status CheckServeFiles(const ServeOptions& options);

// The environment, read in this file and nowhere else: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
// REQUESTS_CA_BUNDLE, SSL_CERT_FILE. What is already set stays.
void ApplyEnvironment(HubOptions& hub);
// The tool servers of the files, with what their configuration takes from the environment. As ReadMcpConfig.
absl::StatusOr<std::vector<McpServerOptions>> ReadToolServers(const ServeOptions& options);

}  // namespace millrace
