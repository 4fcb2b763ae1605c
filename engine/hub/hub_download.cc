// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

absl::Status FileError(const fs::path& path, const char* what, int error) {
  const std::string message = absl::StrCat(path.string(), ": ", what, ": ", std::generic_category().message(error));
  return error == ENOSPC ? absl::ResourceExhaustedError(message) : absl::FailedPreconditionError(message);
}

// The .incomplete file of a blob, written at its end.
class PartialFile {
 public:
  explicit PartialFile(fs::path path) : path_(std::move(path)) {}
  ~PartialFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  absl::Status Open() {
    descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) return FileError(path_, "cannot be opened", errno);
    const off_t end = lseek(descriptor_, 0, SEEK_END);
    if (end < 0) return FileError(path_, "cannot be read", errno);
    num_bytes_ = static_cast<uint64_t>(end);
    return absl::OkStatus();
  }

  absl::Status Append(std::string_view piece) {
    while (!piece.empty()) {
      const ssize_t written = write(descriptor_, piece.data(), piece.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileError(path_, "cannot be written", errno);
      piece.remove_prefix(static_cast<size_t>(written));
      num_bytes_ += static_cast<uint64_t>(written);
    }
    return absl::OkStatus();
  }

  absl::Status Restart() {
    num_bytes_ = 0;
    if (ftruncate(descriptor_, 0) != 0 || lseek(descriptor_, 0, SEEK_SET) != 0) {
      return FileError(path_, "cannot be emptied", errno);
    }
    return absl::OkStatus();
  }

  absl::Status Flush() {
    return fsync(descriptor_) == 0 ? absl::OkStatus() : FileError(path_, "cannot be written", errno);
  }

  uint64_t num_bytes() const { return num_bytes_; }
  const fs::path& path() const { return path_; }

 private:
  const fs::path path_;
  int descriptor_ = -1;
  uint64_t num_bytes_ = 0;
};

std::string Hex(const unsigned char* bytes, size_t count) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out += kHex[bytes[i] >> 4];
    out += kHex[bytes[i] & 15];
  }
  return out;
}

// The checksum that an etag of this length is: SHA-256 of the bytes, or SHA-1 of git's header and the bytes. Empty for
// other etags, which cannot be checked.
absl::StatusOr<std::string> Checksum(const fs::path& path, const std::string& etag, uint64_t file_bytes) {
  const bool is_sha256 = etag.size() == 64;
  const bool is_hex = etag.find_first_not_of("0123456789abcdef") == etag.npos;
  if (!is_hex || (!is_sha256 && etag.size() != 40)) return std::string();
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  MILLRACE_CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), is_sha256 ? EVP_sha256() : EVP_sha1(), nullptr),
                 "OpenSSL must know SHA-256 and SHA-1");
  if (!is_sha256) {
    const std::string header = absl::StrCat("blob ", file_bytes);
    EVP_DigestUpdate(context.get(), header.c_str(), header.size() + 1);
  }
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FileError(path, "cannot be read", errno);
  std::vector<char> buffer(1 << 20);
  ssize_t count = 0;
  while ((count = read(descriptor, buffer.data(), buffer.size())) > 0 || (count < 0 && errno == EINTR)) {
    if (count > 0) EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(count));
  }
  const int fault = errno;
  close(descriptor);
  if (count < 0) return FileError(path, "cannot be read", fault);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  EVP_DigestFinal_ex(context.get(), digest, &digest_bytes);
  return Hex(digest, digest_bytes);
}

// Fetches what is missing, attempt by attempt.
absl::Status Fill(HubApi& api, const std::string& commit, const HubFileInfo& file, PartialFile& partial,
                  const HubBytesCallback& on_bytes) {
  const HubApi::Receiver receiver = {
      [&] { return partial.Restart(); },
      [&](std::string_view piece) -> absl::Status {
        if (partial.num_bytes() + piece.size() > file.file_bytes) {
          return absl::InvalidArgumentError(
              absl::StrCat(file.name, ": the hub sends more than the ", file.file_bytes, " bytes it announced"));
        }
        RETURN_IF_ERROR(partial.Append(piece));
        on_bytes(partial.num_bytes());
        return absl::OkStatus();
      }};
  if (partial.num_bytes() > file.file_bytes) RETURN_IF_ERROR(partial.Restart());
  // As long as an attempt brings bytes, the next one counts as the first.
  uint64_t before = 0;
  do {
    before = partial.num_bytes();
    const absl::Status status = api.Retry(api.max_attempts(), [&]() -> absl::Status {
      if (partial.num_bytes() == file.file_bytes) return absl::OkStatus();
      const uint64_t begin = partial.num_bytes();
      RETURN_IF_ERROR(api.GetFile(commit, file.name, begin, receiver));
      if (partial.num_bytes() == file.file_bytes) return absl::OkStatus();
      return absl::UnavailableError(
          absl::StrCat(file.name, ": broke off after ", partial.num_bytes(), " of ", file.file_bytes, " bytes"));
    });
    if (status.ok()) return status;
    if (!absl::IsUnavailable(status) || partial.num_bytes() <= before) return status;
  } while (true);
}

}  // namespace

absl::Status DownloadBlob(HubApi& api, const HubCache& cache, const std::string& commit, const HubFileInfo& file,
                          const HubBytesCallback& on_bytes) {
  const fs::path blob = cache.blob(file.etag);
  std::error_code error;
  const auto is_there = [&] {
    return fs::is_regular_file(blob, error) && fs::file_size(blob, error) == file.file_bytes && !error;
  };
  if (is_there()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const HubFileLock lock, HubFileLock::Acquire(cache.lock(file.etag)));
  if (is_there()) return absl::OkStatus();  // another process was faster
  PartialFile partial(blob.string() + ".incomplete");
  RETURN_IF_ERROR(partial.Open());
  std::string found;
  for (int attempt = 0; attempt < 2; ++attempt) {
    // What an earlier run left may be damaged: a wrong checksum is given one fresh start.
    if (attempt > 0) RETURN_IF_ERROR(partial.Restart());
    RETURN_IF_ERROR(Fill(api, commit, file, partial, on_bytes));
    RETURN_IF_ERROR(partial.Flush());
    ASSIGN_OR_RETURN(found, Checksum(partial.path(), file.etag, file.file_bytes));
    if (!found.empty() && found != file.etag) continue;
    fs::rename(partial.path(), blob, error);
    if (error) return FileError(blob, "cannot be renamed", error.value());
    return absl::OkStatus();
  }
  fs::remove(partial.path(), error);
  return absl::DataLossError(
      absl::StrCat(file.name, ": its checksum is ", found, ", the hub says ", file.etag, "; fetched twice"));
}

}  // namespace millrace
