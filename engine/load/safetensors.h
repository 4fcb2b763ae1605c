// SPDX-License-Identifier: Apache-2.0
#pragma once
// A .safetensors file, mapped into memory and checked: header limits, dtypes, shapes, offsets. Immutable after
// opening, any thread. Views stay valid while the file object lives.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace millrace {

// A whole file mapped read-only.
class MappedFile {
 public:
  // NotFound or FailedPrecondition with the path and the system's word.
  static absl::StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {data_, num_bytes_}; }

 private:
  MappedFile(const char* data, size_t num_bytes) : data_(data), num_bytes_(num_bytes) {}
  const char* data_;
  size_t num_bytes_;
};

struct TensorView {
  std::string dtype;  // as spelled in the file: F32, F16, BF16, I32, I64, U8, I8, ...
  std::vector<int64_t> shape;
  const void* data = nullptr;
  size_t num_bytes = 0;
};

using TensorMap = absl::flat_hash_map<std::string, TensorView>;

// Bytes of one element of a safetensors dtype; 0 for an unknown one.
size_t SafetensorsDTypeBytes(std::string_view dtype);

// The tensors of a file's bytes; views point into `bytes`. InvalidArgument names the tensor and the fault.
absl::StatusOr<TensorMap> ParseSafetensors(std::string_view bytes);

}  // namespace millrace
