// SPDX-License-Identifier: Apache-2.0
#pragma once
// A whole file mapped read-only. Immutable after opening, any thread; views stay valid while the object lives.
// REQUIRES: nobody shortens the file meanwhile.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace millrace {

class MappedFile {
 public:
  // NotFound or FailedPrecondition with the path and the system's word.
  static absl::StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {data_, num_bytes_}; }
  // The pages read so far leave this process; they come back from the file if they are needed again.
  void DropPages() const;

 private:
  MappedFile(const char* data, size_t num_bytes) : data_(data), num_bytes_(num_bytes) {}
  const char* data_;
  size_t num_bytes_;
};

}  // namespace millrace
