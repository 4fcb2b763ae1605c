// SPDX-License-Identifier: Apache-2.0
#include "engine/load/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

std::string SystemWord(int error) { return std::generic_category().message(error); }

}  // namespace

absl::StatusOr<std::shared_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::NotFoundError(absl::StrCat(path, ": ", SystemWord(errno)));
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
    close(fd);
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file with content"));
  }
  const size_t num_bytes = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, num_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  if (data == MAP_FAILED) return absl::FailedPreconditionError(absl::StrCat(path, ": ", SystemWord(error)));
  return std::shared_ptr<MappedFile>(new MappedFile(static_cast<const char*>(data), num_bytes));
}

MappedFile::~MappedFile() { munmap(const_cast<char*>(data_), num_bytes_); }

void MappedFile::DropPages() const { madvise(const_cast<char*>(data_), num_bytes_, MADV_DONTNEED); }

}  // namespace millrace
