// SPDX-License-Identifier: Apache-2.0
#include "agent/sandbox/work_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using Folder = std::unique_ptr<DIR, CloseFolder>;

Folder OpenFolder(int parent, const char* name) {
  UniqueFd fd(openat(parent, name, kFolderFlags));
  if (fd.get() < 0) return nullptr;
  Folder folder(fdopendir(fd.get()));
  if (folder != nullptr) fd.Release();
  return folder;
}

// The next entry that is neither "." nor ".."; null at the end.
const char* NextName(DIR* folder) {
  while (const dirent* entry = readdir(folder)) {  // NOLINT(concurrency-mt-unsafe): the stream is this thread's
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return entry->d_name;
  }
  return nullptr;
}

bool IsFolder(int parent, const char* name) {
  struct stat info;
  return fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
}

struct Tally {
  int64_t bytes_left;
  int64_t files_left;
};

constexpr int kMaxCountedDepth = 32;

bool Count(DIR* folder, int depth, Tally& tally) {
  while (const char* name = NextName(folder)) {
    struct stat info;
    if (fstatat(dirfd(folder), name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;  // gone meanwhile
    tally.bytes_left -= info.st_blocks * 512;
    if (--tally.files_left < 0 || tally.bytes_left < 0) return false;
    if (!S_ISDIR(info.st_mode)) continue;
    if (depth >= kMaxCountedDepth) return false;
    const Folder inner = OpenFolder(dirfd(folder), name);
    if (inner == nullptr && !IsFolder(dirfd(folder), name)) continue;  // gone meanwhile
    if (inner == nullptr) return false;
    if (!Count(inner.get(), depth + 1, tally)) return false;
  }
  return true;
}

// Empties `root`/name by removing what is no folder and moving each folder up into the root under a new name: so a tree
// of any depth goes with two descriptors and no recursion.
void Flatten(int root, const char* name, uint64_t& next_name) {
  fchmodat(root, name, 0700, 0);  // a folder, seen with links not followed, and nobody is left to change that
  const Folder folder = OpenFolder(root, name);
  if (folder == nullptr) return;
  const int inside = dirfd(folder.get());
  if (inside < 0) return;
  std::vector<std::string> names;
  while (const char* entry = NextName(folder.get())) names.emplace_back(entry);
  for (const std::string& entry : names) {
    if (!IsFolder(inside, entry.c_str())) {
      unlinkat(inside, entry.c_str(), 0);
      continue;
    }
    fchmodat(inside, entry.c_str(), 0700, 0);
    // A name that is taken by a folder with something in it: the next one is tried.
    while (renameat(inside, entry.c_str(), root, absl::StrCat("moved-", next_name++).c_str()) != 0 &&
           (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR)) {
    }
  }
}

void RemoveContents(int root) {
  uint64_t next_name = 0;
  while (true) {
    const Folder folder = OpenFolder(root, ".");
    if (folder == nullptr) return;
    std::vector<std::string> names;
    while (const char* name = NextName(folder.get())) names.emplace_back(name);
    bool is_progress = false;
    for (const std::string& name : names) {
      if (IsFolder(root, name.c_str())) {
        Flatten(root, name.c_str(), next_name);
        is_progress = unlinkat(root, name.c_str(), AT_REMOVEDIR) == 0 || is_progress;
      } else {
        is_progress = unlinkat(root, name.c_str(), 0) == 0 || is_progress;
      }
    }
    if (!is_progress) return;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkFolder>> WorkFolder::Make(const std::string& scratch_folder) {
  std::string path = absl::StrCat(scratch_folder, "/millrace-tool-XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("no work folder for a tool in ", scratch_folder));
  }
  UniqueFd folder(open(path.c_str(), kFolderFlags));
  if (folder.get() < 0) {
    const int error = errno;
    rmdir(path.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot open ", path));
  }
  return std::unique_ptr<WorkFolder>(new WorkFolder(std::move(path), std::move(folder)));
}

WorkFolder::~WorkFolder() {
  fchmod(folder_.get(), 0700);
  RemoveContents(folder_.get());
  rmdir(path_.c_str());
}

absl::Status WorkFolder::AddFile(const std::string& name, std::string_view content) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos || name.find('\0') != name.npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' is no file name"));
  }
  const UniqueFd file(openat(folder_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (file.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", path_, "/", name));
  while (!content.empty()) {
    const ssize_t written = write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path_, "/", name));
    content.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WorkFolder::GiveTo(uid_t owner) {
  if (fchown(folder_.get(), owner, owner) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot give ", path_, " to uid ", owner));
  }
  return absl::OkStatus();
}

bool WorkFolder::IsWithin(int64_t max_bytes, int64_t max_files) const {
  const Folder folder = OpenFolder(folder_.get(), ".");
  Tally tally{.bytes_left = max_bytes, .files_left = max_files};
  return folder != nullptr && Count(folder.get(), 0, tally);
}

}  // namespace millrace
