// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/sandbox/unique_fd.h"

namespace millrace {

// The one folder in which a sandboxed program may write; removed with all that it left there. Everything in it is
// hostile once the program has run: links are never followed, and neither depth nor permissions stop the removal.
class WorkFolder {
 public:
  // A new folder below `scratch_folder`, closed to others.
  static absl::StatusOr<std::unique_ptr<WorkFolder>> Make(const std::string& scratch_folder);
  ~WorkFolder();

  // REQUIRES: nothing untrusted has run yet. InvalidArgument for a name that is not one plain file name.
  absl::Status AddFile(const std::string& name, std::string_view content);
  absl::Status GiveTo(uid_t owner);

  // False as soon as the files count more than this, or cannot be counted. Links are not followed.
  bool IsWithin(int64_t max_bytes, int64_t max_files) const;

  const std::string& path() const { return path_; }
  int fd() const { return folder_.get(); }

 private:
  WorkFolder(std::string path, UniqueFd folder) : path_(std::move(path)), folder_(std::move(folder)) {}

  const std::string path_;
  const UniqueFd folder_;
};

}  // namespace millrace
