// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_cache.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "engine/text/template_json.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 64 << 20;

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

absl::Status FileError(const fs::path& path, std::string_view what, int error) {
  const std::string message =
      absl::StrCat(path.string(), ": ", std::string(what), ": ", std::generic_category().message(error));
  return error == ENOSPC ? absl::ResourceExhaustedError(message) : absl::FailedPreconditionError(message);
}

// A name beside `path` that no other thread of any process uses.
fs::path Beside(const fs::path& path) { return path.string() + absl::StrCat(".tmp", getpid(), "-", gettid()); }

std::optional<std::string> ReadSmallFile(const fs::path& path, size_t max_bytes) {
  std::error_code error;
  const auto file_bytes = fs::file_size(path, error);
  if (error || file_bytes > max_bytes) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(file_bytes), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) return std::nullopt;
  return text;
}

// Whether all shards of a model.safetensors.index.json are there.
bool HasAllShards(const fs::path& dir, const fs::path& index) {
  const std::optional<std::string> text = ReadSmallFile(index, kMaxIndexBytes);
  if (!text) return false;
  const auto json = ParseJsonValue(*text);
  const TemplateValue* map = json.ok() && json->is_dict() ? json->as_dict().Find("weight_map") : nullptr;
  if (map == nullptr || !map->is_dict()) return false;
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->as_dict().entries()) {
    if (!shard.is_string() || !IsSafeFileName(shard.text())) return false;
    shards.emplace(shard.text());
  }
  std::error_code error;
  return std::all_of(shards.begin(), shards.end(),
                     [&](const std::string& shard) { return fs::is_regular_file(dir / shard, error); });
}

}  // namespace

absl::StatusOr<HubModelName> ParseModelName(std::string_view name) {
  HubModelName parsed;
  const size_t colon = name.find(':');
  parsed.repo = std::string(name.substr(0, colon));
  if (colon != name.npos) parsed.choice = std::string(name.substr(colon + 1));
  const std::string& repo = parsed.repo;
  const size_t slash = repo.find('/');
  const bool has_parts = slash != repo.npos && slash > 0 && slash + 1 < repo.size();
  const bool is_plain = !repo.empty() && has_parts && repo.size() <= 96 &&
                        std::count(repo.begin(), repo.end(), '/') <= 1 &&
                        std::all_of(repo.begin(), repo.end(), [](char c) { return IsNameChar(c) || c == '/'; }) &&
                        repo.find("..") == repo.npos && repo.find("--") == repo.npos && repo[0] != '.' &&
                        repo[0] != '-' && (slash == repo.npos || (repo[slash + 1] != '.' && repo[slash + 1] != '-'));
  const bool is_choice_plain =
      parsed.choice.size() <= 200 && std::all_of(parsed.choice.begin(), parsed.choice.end(), IsNameChar);
  if (is_plain && is_choice_plain) return parsed;
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(name.substr(0, 200)), "' is neither a file or directory nor a hub's org/name"));
}

absl::Status CheckRevision(std::string_view revision) {
  bool is_fine = !revision.empty() && revision.size() <= 200 && revision.front() != '/' && revision.back() != '/';
  is_fine = is_fine && std::all_of(revision.begin(), revision.end(), [](char c) { return IsNameChar(c) || c == '/'; });
  is_fine = is_fine && revision.find("..") == revision.npos && revision.find("//") == revision.npos &&
            revision.front() != '.' && revision.find("/.") == revision.npos;
  if (is_fine) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(revision.substr(0, 200)), "' is no branch, tag or commit"));
}

bool IsSafeFileName(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '/' || name.back() == '/') return false;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '\\' && c != ':';
  });
}

bool IsSafeEtag(std::string_view etag) {
  return !etag.empty() && etag.size() <= 128 && etag[0] != '.' && std::all_of(etag.begin(), etag.end(), IsNameChar);
}

bool IsCommitId(std::string_view text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::StatusOr<HubFileLock> HubFileLock::Acquire(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return FileError(path, "cannot be opened", errno);
  // The same lock as Hugging Face's tools take. It goes with its process, so waiting cannot last longer than the
  // download another process is at.
  while (flock(descriptor, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    const int fault = errno;
    close(descriptor);
    return FileError(path, "cannot be locked", fault);
  }
  return HubFileLock(descriptor);
}

HubFileLock::~HubFileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

HubCache::HubCache(fs::path cache_dir, std::string_view repo) : cache_dir_(std::move(cache_dir)), folder_("models--") {
  for (const char c : repo) folder_ += c == '/' ? std::string("--") : std::string(1, c);
  root_ = cache_dir_ / folder_;
}

fs::path HubCache::lock(std::string_view etag) const {
  return cache_dir_ / ".locks" / folder_ / (std::string(etag) + ".lock");
}

absl::Status HubCache::MakeFolders() const {
  for (const char* name : {"blobs", "refs", "snapshots"}) {
    std::error_code error;
    fs::create_directories(root_ / name, error);
    if (error) return FileError(root_ / name, "cannot be made", error.value());
  }
  return absl::OkStatus();
}

std::optional<std::string> HubCache::ReadRef(std::string_view revision) const {
  if (IsCommitId(revision)) return std::string(revision);
  std::optional<std::string> commit = ReadSmallFile(root_ / "refs" / revision, 100);
  if (!commit) return std::nullopt;
  while (!commit->empty() && commit->back() == '\n') commit->pop_back();
  return IsCommitId(*commit) ? commit : std::nullopt;
}

absl::Status HubCache::WriteRef(std::string_view revision, std::string_view commit) const {
  if (revision == commit) return absl::OkStatus();
  const fs::path path = root_ / "refs" / revision;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  const fs::path fresh = Beside(path);
  std::ofstream(fresh, std::ios::binary) << commit;
  fs::rename(fresh, path, error);
  return error ? FileError(path, "cannot be written", error.value()) : absl::OkStatus();
}

absl::Status HubCache::Link(std::string_view commit, std::string_view file, std::string_view etag) const {
  const fs::path path = snapshot(commit) / file;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) return FileError(path.parent_path(), "cannot be made", error.value());
  const fs::path target = fs::path(blob(etag)).lexically_relative(path.parent_path());
  if (fs::read_symlink(path, error) == target) return absl::OkStatus();
  const fs::path fresh = Beside(path);
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, path, error);
  return error ? FileError(path, "cannot be linked", error.value()) : absl::OkStatus();
}

std::optional<std::string> HubCache::FindComplete(std::string_view commit, std::string_view choice) const {
  const fs::path dir = snapshot(commit);
  std::error_code error;
  std::vector<std::string> files;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    // A link whose blob is missing does not count.
    std::error_code broken;
    if (fs::is_regular_file(it->path(), broken)) files.push_back(it->path().filename().string());
  }
  const auto selected = SelectFiles(files, choice);
  if (!selected.ok()) return std::nullopt;
  for (const std::string& file : *selected) {
    if (file.ends_with(".gguf")) return (dir / file).string();
  }
  const auto has = [&](std::string_view name) { return std::find(files.begin(), files.end(), name) != files.end(); };
  if (!has("config.json")) return std::nullopt;
  if (has("model.safetensors.index.json") && !HasAllShards(dir, dir / "model.safetensors.index.json")) {
    return std::nullopt;
  }
  return dir.string();
}

absl::StatusOr<uint64_t> HubCache::FreeBytes() const {
  std::error_code error;
  const fs::space_info space = fs::space(root_, error);
  if (error) return FileError(root_, "free space is not known", error.value());
  return static_cast<uint64_t>(space.available);
}

absl::StatusOr<fs::path> DefaultHubCacheDir() {
  passwd entry{};
  passwd* found = nullptr;
  char buffer[4096];
  if (getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr) {
    return absl::FailedPreconditionError("no home directory for the model cache; set HF_HOME or --download-dir");
  }
  return fs::path(found->pw_dir) / ".cache" / "huggingface" / "hub";
}

}  // namespace millrace
