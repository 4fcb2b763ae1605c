// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a hub answers: a repository's commit and files, a file's size and checksum, its bytes. Repeats what may pass,
// follows redirects without taking the token to another host. One thread. Internal to the hub client.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/hub/hub_client.h"
#include "engine/hub/hub_http.h"

namespace millrace {

struct HubRepoInfo {
  std::string commit;
  std::vector<std::string> files;  // safe names only; others are refused
};

struct HubFileInfo {
  std::string name;
  std::string etag;  // names the blob: SHA-256 of a large file, git's SHA-1 of a small one
  uint64_t file_bytes = 0;
};

// The JSON a hub answers about a repository. InvalidArgument: no commit, no list, a name that would leave the cache.
absl::StatusOr<HubRepoInfo> ParseRepoInfo(std::string_view body);

class HubApi {
 public:
  HubApi(const HubOptions& options, std::string repo);

  absl::StatusOr<HubRepoInfo> GetRepoInfo(const std::string& revision, int max_attempts);
  absl::StatusOr<HubFileInfo> GetFileInfo(const std::string& commit, const std::string& file);

  // Bytes from `resume_bytes` on. `restart` is called before the first piece if the hub sends the whole file instead.
  struct Receiver {
    std::function<absl::Status()> restart;
    std::function<absl::Status(std::string_view)> append;
  };
  // One attempt. Unavailable: trying again, from where it broke, may help.
  absl::Status GetFile(const std::string& commit, const std::string& file, uint64_t resume_bytes,
                       const Receiver& receiver);

  // Calls `attempt` until it succeeds, fails for good or `max_attempts` are used up; waits longer each time.
  absl::Status Retry(int max_attempts, const std::function<absl::Status()>& attempt) const;
  int max_attempts() const { return options_.max_attempts; }

 private:
  enum class StopAt { kLinkedFile, kFinalAnswer };
  absl::StatusOr<HubHttpResponse> Follow(HubHttpRequest request, StopAt stop_at, const HubBodySink& sink);
  // OK for 2xx; else what a person can do about the code.
  absl::Status CheckCode(const HubHttpResponse& response, std::string_view what) const;
  std::string FileUrl(const std::string& commit, const std::string& file) const;

  const HubOptions& options_;
  const std::string repo_;
  const std::string endpoint_;
  HubHttp http_;
};

}  // namespace millrace
