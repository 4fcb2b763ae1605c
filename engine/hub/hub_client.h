// SPDX-License-Identifier: Apache-2.0
#pragma once
// Models by name: org/name is fetched from a Hugging Face-compatible hub over HTTPS into the usual cache, from where it
// is used again, by us and by Hugging Face's own tools. Blocks for as long as it takes; any thread, and any number of
// processes may resolve the same model at once (files are locked one by one). Reads no environment
// but the usual proxy variables, which libcurl takes by itself.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {

struct HubOptions {
  std::string endpoint;     // HF_ENDPOINT; empty: the public hub
  std::string token;        // HF_TOKEN or --hf-token; sent to the endpoint's own host only, never logged
  std::string cache_dir;    // --download-dir, HF_HUB_CACHE or HF_HOME/hub; empty: ~/.cache/huggingface/hub
  std::string ca_file;      // REQUESTS_CA_BUNDLE or SSL_CERT_FILE: PEM of the authorities to trust; empty: the system's
  std::string revision;     // --revision: branch, tag or commit; empty: main
  bool is_offline = false;  // HF_HUB_OFFLINE: only what is in the cache
  int max_attempts = 5;     // of each request, for faults that may pass
  absl::Duration retry_delay = absl::Seconds(1);     // before the second attempt, then doubled
  absl::Duration stall_timeout = absl::Seconds(30);  // without a byte; also the limit to connect
};

struct HubProgress {
  std::string_view file;    // being fetched
  uint64_t done_bytes = 0;  // of all files together, what was there before included
  uint64_t total_bytes = 0;
};
using HubProgressCallback = std::function<void(const HubProgress&)>;

// The local directory (or .gguf file) of a model. A path that exists is returned as it is. Else `name` is org/name,
// with :file.gguf or :Q8_0 behind it to choose among GGUF files; of a repository with safetensors their directory is
// returned, else the path of one GGUF file. Without a connection a complete copy in the cache is used.
// NotFound: no such path, model, revision or file. Unauthenticated, PermissionDenied: what to do about it.
// FailedPrecondition: the hub's certificate is not trusted. Unavailable: the hub cannot be reached and the cache has no
// copy. DataLoss: a checksum is wrong, twice. ResourceExhausted: the disk is too full. InvalidArgument: a name, or an
// answer of the hub that makes no sense.
absl::StatusOr<std::string> ResolveModel(std::string_view name, const HubOptions& options,
                                         const HubProgressCallback& on_progress = nullptr);

}  // namespace millrace
