// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_client.h"

#include <filesystem>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/hub/hub_api.h"
#include "engine/hub/hub_cache.h"
#include "engine/hub/hub_download.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// What one call of ResolveModel works on.
class Resolver {
 public:
  Resolver(const HubOptions& options, const HubProgressCallback& on_progress, const HubModelName& name,
           const fs::path& cache_dir)
      : options_(options),
        on_progress_(on_progress),
        name_(name),
        revision_(options.revision.empty() ? "main" : options.revision),
        cache_(cache_dir, name.repo) {}

  absl::StatusOr<std::string> Run() {
    std::optional<std::string> cached = FindCached();
    if (options_.is_offline) {
      if (cached) return *std::move(cached);
      return absl::NotFoundError(absl::StrCat(name_.repo, " at ", revision_,
                                              " is not complete in the cache, and the hub may not be asked "
                                              "(HF_HUB_OFFLINE)"));
    }
    HubApi api(options_, name_.repo);
    // With a copy at hand nobody needs to wait for a network that is not there.
    absl::StatusOr<HubRepoInfo> info = api.GetRepoInfo(revision_, cached ? 1 : options_.max_attempts);
    if (cached && absl::IsUnavailable(info.status())) return *std::move(cached);
    if (!info.ok()) return info.status();
    return Fetch(api, *info);
  }

 private:
  std::optional<std::string> FindCached() const {
    const std::optional<std::string> commit = cache_.ReadRef(revision_);
    return commit ? cache_.FindComplete(*commit, name_.choice) : std::nullopt;
  }

  absl::StatusOr<std::string> Fetch(HubApi& api, const HubRepoInfo& info) {
    absl::StatusOr<std::vector<std::string>> selected = SelectFiles(info.files, name_.choice);
    if (!selected.ok()) {
      return absl::Status(selected.status().code(),
                          absl::StrCat(name_.repo, ": ", std::string(selected.status().message())));
    }
    RETURN_IF_ERROR(cache_.MakeFolders());
    std::vector<HubFileInfo> files;
    for (const std::string& file : *selected) {
      ASSIGN_OR_RETURN(HubFileInfo file_info, api.GetFileInfo(info.commit, file));
      total_bytes_ += file_info.file_bytes;
      files.push_back(std::move(file_info));
    }
    RETURN_IF_ERROR(CheckSpace(files));
    for (const HubFileInfo& file : files) {
      Report(file.name, 0);
      RETURN_IF_ERROR(DownloadBlob(api, cache_, info.commit, file, [&](uint64_t bytes) { Report(file.name, bytes); }));
      RETURN_IF_ERROR(cache_.Link(info.commit, file.name, file.etag));
      done_bytes_ += file.file_bytes;
    }
    // Only now does the revision point here: without a connection, what it points to is complete.
    RETURN_IF_ERROR(cache_.WriteRef(revision_, info.commit));
    Report("", 0);
    for (const HubFileInfo& file : files) {
      if (file.name.ends_with(".gguf")) return (cache_.snapshot(info.commit) / file.name).string();
    }
    return cache_.snapshot(info.commit).string();
  }

  absl::Status CheckSpace(const std::vector<HubFileInfo>& files) const {
    uint64_t missing_bytes = 0;
    for (const HubFileInfo& file : files) {
      std::error_code error;
      if (fs::exists(cache_.blob(file.etag), error)) continue;
      const auto partial = fs::file_size(cache_.blob(file.etag).string() + ".incomplete", error);
      missing_bytes += file.file_bytes - (error ? 0 : std::min<uint64_t>(partial, file.file_bytes));
    }
    ASSIGN_OR_RETURN(const uint64_t free_bytes, cache_.FreeBytes());
    if (missing_bytes <= free_bytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat(name_.repo, " needs ", missing_bytes >> 20, " MiB more, but ",
                                                     cache_.snapshot("").string(), " has ", free_bytes >> 20,
                                                     " MiB free; see --download-dir"));
  }

  void Report(std::string_view file, uint64_t file_bytes) const {
    if (on_progress_) on_progress_({file, done_bytes_ + file_bytes, total_bytes_});
  }

  const HubOptions& options_;
  const HubProgressCallback& on_progress_;
  const HubModelName& name_;
  const std::string revision_;
  const HubCache cache_;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::string> ResolveModel(std::string_view name, const HubOptions& options,
                                         const HubProgressCallback& on_progress) {
  std::error_code error;
  if (fs::exists(fs::path(name), error)) return std::string(name);
  absl::StatusOr<HubModelName> parsed = ParseModelName(name);
  // A path, clearly: nobody meant the hub.
  const bool is_path = name.starts_with('/') || name.starts_with('.') || name.starts_with('~');
  if (is_path) return absl::NotFoundError(absl::StrCat("there is no file or directory ", std::string(name)));
  if (!parsed.ok()) return parsed.status();
  if (!options.revision.empty()) RETURN_IF_ERROR(CheckRevision(options.revision));
  fs::path cache_dir = options.cache_dir;
  if (cache_dir.empty()) {
    ASSIGN_OR_RETURN(cache_dir, DefaultHubCacheDir());
  }
  return Resolver(options, on_progress, *parsed, cache_dir).Run();
}

}  // namespace millrace
