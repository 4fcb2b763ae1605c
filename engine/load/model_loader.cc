// SPDX-License-Identifier: Apache-2.0
// ReadModelInfo and LoadWeights: choose the reader by what the path is.
#include <filesystem>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/load/assemble.h"
#include "engine/load/dummy_weights.h"
#include "engine/load/hf_config.h"
#include "engine/load/hf_files.h"
#include "engine/load/hf_weights.h"
#include "engine/load/mapped_file.h"
#include "engine/load/model_weights.h"
#include "engine/load/tensor_source.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

absl::Status Explain(const absl::Status& status, const fs::path& path) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
}

}  // namespace

absl::StatusOr<ModelInfo> ReadModelInfo(const std::string& path, const LoadOptions& options) {
  std::error_code error;
  const fs::path config_path = fs::path(path) / "config.json";
  if (!fs::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such model directory"));
  }
  auto config = MappedFile::Open(config_path.string());
  if (!config.ok()) return config.status();
  absl::StatusOr<ModelInfo> info = ParseModelConfig((*config)->bytes());
  if (!info.ok()) return Explain(info.status(), config_path);
  const fs::path generation_path = fs::path(path) / "generation_config.json";
  if (fs::exists(generation_path, error)) {
    ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> generation, MappedFile::Open(generation_path.string()));
    if (absl::Status status = ParseGenerationConfig(generation->bytes(), *info); !status.ok()) {
      return Explain(status, generation_path);
    }
  }
  info->source = path;
  const fs::path cleaned = fs::path(path).lexically_normal();
  info->name = (cleaned.has_filename() ? cleaned : cleaned.parent_path()).filename().string();
  if (options.load_format != "dummy") {
    ASSIGN_OR_RETURN(const std::vector<std::string> paths, HfWeightPaths(path));
    ASSIGN_OR_RETURN(info->weights_fingerprint, FingerprintFiles(paths));
  }
  return info;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(const ModelInfo& info, const LoadOptions& options) {
  if (options.load_format == "dummy") return MakeDummyTensors(options.dummy_seed);
  return OpenHfTensors(info);
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelInfo& info, const LoadOptions& options, Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> tensors, OpenTensors(info, options));
  return AssembleWeights(info, options, *tensors, device);
}

}  // namespace millrace
