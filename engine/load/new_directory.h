// SPDX-License-Identifier: Apache-2.0
#pragma once
// A directory that appears whole or not at all: filled under a temporary name beside its place, then renamed. One
// thread.
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

class NewDirectory {
 public:
  // AlreadyExists: something lies at `final_path`. FailedPrecondition: the system's word.
  static absl::StatusOr<NewDirectory> Create(const std::filesystem::path& final_path);
  NewDirectory(NewDirectory&& other) noexcept;
  NewDirectory& operator=(NewDirectory&&) = delete;
  ~NewDirectory();  // removes what was written, unless Commit succeeded

  const std::filesystem::path& path() const { return temporary_; }
  absl::Status Commit();

 private:
  NewDirectory(std::filesystem::path temporary, std::filesystem::path final_path);
  std::filesystem::path temporary_;  // empty: committed or moved from
  std::filesystem::path final_;
};

// Writes a new file piece by piece and forces it to the disk: `produce` calls `append` for each piece.
using AppendBytes = std::function<absl::Status(std::string_view bytes)>;
absl::Status WriteNewFile(const std::filesystem::path& path,
                          const std::function<absl::Status(const AppendBytes& append)>& produce);

}  // namespace millrace
