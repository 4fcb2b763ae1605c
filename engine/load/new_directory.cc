// SPDX-License-Identifier: Apache-2.0
#include "engine/load/new_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

absl::Status SystemFault(const fs::path& path, int error) {
  return absl::FailedPreconditionError(absl::StrCat(path.string(), ": ", std::generic_category().message(error)));
}

absl::Status WriteAll(int fd, const fs::path& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t num_written = write(fd, bytes.data(), bytes.size());
    if (num_written < 0 && errno == EINTR) continue;
    if (num_written <= 0) return SystemFault(path, errno);
    bytes.remove_prefix(static_cast<size_t>(num_written));
  }
  return absl::OkStatus();
}

}  // namespace

NewDirectory::NewDirectory(fs::path temporary, fs::path final_path)
    : temporary_(std::move(temporary)), final_(std::move(final_path)) {}

NewDirectory::NewDirectory(NewDirectory&& other) noexcept
    : temporary_(std::exchange(other.temporary_, fs::path())), final_(std::move(other.final_)) {}

NewDirectory::~NewDirectory() {
  std::error_code error;
  if (!temporary_.empty()) fs::remove_all(temporary_, error);
}

absl::StatusOr<NewDirectory> NewDirectory::Create(const fs::path& final_path) {
  std::error_code error;
  fs::path place = fs::absolute(final_path, error).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  const bool is_taken = fs::exists(place, error) && !(fs::is_directory(place, error) && fs::is_empty(place, error));
  if (is_taken) return absl::AlreadyExistsError(absl::StrCat(place.string(), ": something is there already"));
  fs::path temporary = place;
  temporary += absl::StrCat(".partial-", getpid());
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(temporary.string(), ": ", error.message()));
  return NewDirectory(std::move(temporary), std::move(place));
}

absl::Status NewDirectory::Commit() {
  std::error_code error;
  fs::rename(temporary_, final_, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(final_.string(), ": ", error.message()));
  temporary_.clear();
  return absl::OkStatus();
}

absl::Status WriteNewFile(const fs::path& path, const std::function<absl::Status(const AppendBytes& append)>& produce) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return SystemFault(path, errno);
  absl::Status status = produce([&](std::string_view bytes) { return WriteAll(fd, path, bytes); });
  if (status.ok() && fsync(fd) != 0) status = SystemFault(path, errno);
  if (close(fd) != 0 && status.ok()) status = SystemFault(path, errno);
  return status;
}

}  // namespace millrace
