// SPDX-License-Identifier: Apache-2.0
#include "server/config/serve_options.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_template.h"
#include "server/agents/agent_file.h"
#include "server/auth/api_keys.h"
#include "server/open_answer_store.h"

namespace millrace {
namespace {

void ReadVariable(const char* name, std::string& out) {
  const char* value = std::getenv(name);
  if (out.empty() && value != nullptr) out = value;
}

}  // namespace

absl::Status CheckServeOptions(const ServeOptions& options) {
  if (options.model.empty()) return absl::InvalidArgumentError("no model given: millrace serve MODEL");
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("--ssl-certfile and --ssl-keyfile are given together or not at all");
  }
  for (const std::string& name : options.served_model_names) {
    if (name.empty()) return absl::InvalidArgumentError("--served-model-name must not be empty");
  }
  if (options.grpc_port != 0 && options.grpc_port == options.http.port) {
    return absl::InvalidArgumentError(absl::StrCat("--port and --grpc-port are both ", options.grpc_port));
  }
  if (absl::Status status = CheckToolOptions(options.tools); !status.ok()) return status;
  if (options.response_cache.url_file.empty()) {
    if (absl::Status status = CheckResponseCache(options.response_cache); !status.ok()) return status;
  }
  const SchedulerConfig& scheduler = options.engine.scheduler;
  if (scheduler.max_step_tokens < scheduler.max_sequences) {
    return absl::InvalidArgumentError(absl::StrCat("--max-num-batched-tokens (", scheduler.max_step_tokens,
                                                   ") is less than --max-num-seqs (", scheduler.max_sequences, ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckServeFiles(const ServeOptions& options) {
  ApiKeys keys;
  for (const std::string& key : options.api_keys) {
    if (absl::Status status = keys.AddKey(key); !status.ok()) return status;
  }
  if (!options.api_key_file.empty()) {
    if (absl::Status status = keys.AddFile(options.api_key_file); !status.ok()) return status;
  }
  if (!options.certificate_file.empty()) {
    absl::Status status = CheckTls({options.certificate_file, options.key_file});
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckResponseCache(options.response_cache); !status.ok()) return status;
  if (absl::Status status = ReadToolServers(options).status(); !status.ok()) return status;
  if (!options.agents_file.empty()) {
    // Whether the tools are there shows when they are made.
    auto agents = ReadAgents(options.agents_file, {.model_names = ModelNames(options), .limits = options.run_limits});
    if (!agents.ok()) return agents.status();
  }
  if (options.engine.chat_template.empty()) return absl::OkStatus();
  // Its own tokens and other files are only here if the model is.
  const std::string model = std::filesystem::exists(options.model) ? options.model : "/nonexistent";
  return LoadChatTemplate(model, options.engine.chat_template).status();
}

std::vector<std::string> ModelNames(const ServeOptions& options) {
  if (!options.served_model_names.empty()) return options.served_model_names;
  return {options.model};
}

void ApplyEnvironment(HubOptions& hub) {
  ReadVariable("HF_ENDPOINT", hub.endpoint);
  ReadVariable("HF_TOKEN", hub.token);
  // As Hugging Face's Python tools take them: requests reads the first, httpx the second.
  ReadVariable("REQUESTS_CA_BUNDLE", hub.ca_file);
  ReadVariable("SSL_CERT_FILE", hub.ca_file);
  ReadVariable("HF_HUB_CACHE", hub.cache_dir);
  std::string home, offline;
  ReadVariable("HF_HOME", home);
  if (hub.cache_dir.empty() && !home.empty()) hub.cache_dir = home + "/hub";
  ReadVariable("HF_HUB_OFFLINE", offline);
  if (offline == "1" || offline == "true" || offline == "yes" || offline == "on") hub.is_offline = true;
}

absl::StatusOr<std::vector<McpServerOptions>> ReadToolServers(const ServeOptions& options) {
  return ReadMcpConfig(options.mcp_config_files, [](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace millrace
