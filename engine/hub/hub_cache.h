// SPDX-License-Identifier: Apache-2.0
#pragma once
// The cache on disk, laid out as Hugging Face's tools do: models--org--name with blobs/ (files by checksum), refs/
// (names of commits) and snapshots/ (a directory of links per commit). Any thread and process; what is seen under its
// final name is complete. Internal to the hub client.
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

// org/name[:choice] taken apart.
struct HubModelName {
  std::string repo;    // "org/name"
  std::string choice;  // of a GGUF file; may be empty
};

// NotFound unless it is letters, digits and ._- around one slash, without ".." and "--", at most 96 characters.
absl::StatusOr<HubModelName> ParseModelName(std::string_view name);
// A branch, tag or commit that cannot leave the cache's refs/ folder.
absl::Status CheckRevision(std::string_view revision);
// A file name of a repository that cannot leave its snapshot's folder.
bool IsSafeFileName(std::string_view name);
// A checksum that may name a blob.
bool IsSafeEtag(std::string_view etag);
bool IsCommitId(std::string_view text);  // 40 hexadecimal digits

// Of the files of a repository, those we can use: weights in safetensors, else one GGUF file (`choice` picks it), and
// the small files that belong to them. NotFound: no weights, or no such choice.
absl::StatusOr<std::vector<std::string>> SelectFiles(const std::vector<std::string>& files, std::string_view choice);

// A file held under an exclusive lock, across processes too, for as long as it lives.
class HubFileLock {
 public:
  static absl::StatusOr<HubFileLock> Acquire(const std::filesystem::path& path);  // waits
  HubFileLock(HubFileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  HubFileLock& operator=(HubFileLock&&) = delete;
  ~HubFileLock();

 private:
  explicit HubFileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

class HubCache {
 public:
  HubCache(std::filesystem::path cache_dir, std::string_view repo);

  std::filesystem::path blob(std::string_view etag) const { return root_ / "blobs" / etag; }
  std::filesystem::path snapshot(std::string_view commit) const { return root_ / "snapshots" / commit; }
  std::filesystem::path lock(std::string_view etag) const;

  absl::Status MakeFolders() const;
  // The commit a revision was last seen at; nothing when it never was.
  std::optional<std::string> ReadRef(std::string_view revision) const;
  absl::Status WriteRef(std::string_view revision, std::string_view commit) const;
  // Links the file of a snapshot to its blob, replacing what was there.
  absl::Status Link(std::string_view commit, std::string_view file, std::string_view etag) const;
  // The model's path in a snapshot, if all that loading needs is there.
  std::optional<std::string> FindComplete(std::string_view commit, std::string_view choice) const;
  absl::StatusOr<uint64_t> FreeBytes() const;

 private:
  std::filesystem::path cache_dir_;
  std::string folder_;
  std::filesystem::path root_;
};

// ~/.cache/huggingface/hub of the user that runs us, by the password file.
absl::StatusOr<std::filesystem::path> DefaultHubCacheDir();

}  // namespace millrace
