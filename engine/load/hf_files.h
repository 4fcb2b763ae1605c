// SPDX-License-Identifier: Apache-2.0
#pragma once
// The safetensors files of a Hugging Face directory: one, or shards named by an index. Loading thread.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/load/mapped_file.h"
#include "engine/load/model_info.h"
#include "engine/load/safetensors.h"

namespace millrace {

struct HfFiles {
  std::vector<std::shared_ptr<MappedFile>> files;
  TensorMap tensors;  // of all files
};

// Names of the shards in an index's bytes, sorted. InvalidArgument: no index, or a name that leaves the directory.
absl::StatusOr<std::vector<std::string>> ParseShardIndex(std::string_view index_json);

// Maps the files and checks their headers. NotFound: no weights, with what lies there instead. InvalidArgument names
// the file, the tensor and the fault. A tied embedding that was saved as lm_head.weight gets its own name too.
absl::StatusOr<HfFiles> OpenHfFiles(const std::string& dir, const ModelInfo& info);

// Paths of the weight files. NotFound as above.
absl::StatusOr<std::vector<std::string>> HfWeightPaths(const std::string& dir);

// Identity of weights for caches: a hash over the files' names, sizes and data; of files above 64 MiB over their first
// MiB and 4096 samples of 4 KiB.
absl::StatusOr<uint64_t> FingerprintFiles(const std::vector<std::string>& paths);

}  // namespace millrace
