// SPDX-License-Identifier: Apache-2.0
// ReadModelInfo, OpenTensors and LoadWeights: choose the reader by what the path is.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/assemble.h"
#include "engine/load/dummy_weights.h"
#include "engine/load/gguf_model.h"
#include "engine/load/gguf_weights.h"
#include "engine/load/hf_config.h"
#include "engine/load/hf_files.h"
#include "engine/load/hf_weights.h"
#include "engine/load/mapped_file.h"
#include "engine/load/model_weights.h"
#include "engine/load/part_tensors.h"
#include "engine/load/tensor_source.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

absl::Status Explain(const absl::Status& status, const fs::path& path) {
  return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
}

absl::Status CheckLoadFormat(const std::string& path, const LoadOptions& options) {
  const std::string& format = options.load_format;
  if (format != "auto" && format != "safetensors" && format != "gguf" && format != "dummy") {
    return absl::InvalidArgumentError(
        absl::StrCat("--load-format ", format, " is not one of auto, safetensors, gguf, dummy"));
  }
  const bool is_gguf = IsGgufPath(path);
  if ((format == "gguf" && !is_gguf) || (format == "safetensors" && is_gguf)) {
    return absl::InvalidArgumentError(absl::StrCat("--load-format ", format, " does not fit ", path,
                                                   is_gguf ? ", a GGUF file" : ", which is no .gguf file"));
  }
  return absl::OkStatus();
}

// Why there is no config.json: a wrong path, or a directory of GGUF files.
absl::Status NoConfig(const fs::path& dir) {
  std::error_code error;
  if (!fs::is_directory(dir, error)) {
    return absl::NotFoundError(absl::StrCat(dir.string(), ": no such model directory or .gguf file"));
  }
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    if (IsGgufPath(entry.path().string()) && files.size() < 8) files.push_back(entry.path().filename().string());
  }
  return absl::NotFoundError(absl::StrCat(
      dir.string(), ": no config.json here",
      files.empty() ? std::string() : absl::StrCat("; name one of its GGUF files: ", absl::StrJoin(files, ", "))));
}

// The directory's or the file's name.
std::string NameOf(const std::string& path) {
  const fs::path cleaned = fs::path(path).lexically_normal();
  if (IsGgufPath(path)) return cleaned.stem().string();
  return (cleaned.has_filename() ? cleaned : cleaned.parent_path()).filename().string();
}

std::string WeightsName(const ModelInfo& info) {
  switch (info.quantization.method) {
    case CheckpointQuantization::Method::kNone:
      return info.dtype_name;
    case CheckpointQuantization::Method::kGptq:
      return absl::StrCat("GPTQ int", info.quantization.bits);
    case CheckpointQuantization::Method::kAwq:
      return absl::StrCat("AWQ int", info.quantization.bits);
    case CheckpointQuantization::Method::kMillrace:
      return absl::StrCat("int", info.quantization.bits);
  }
  return "";
}

absl::StatusOr<ModelInfo> ReadHfInfo(const fs::path& dir) {
  std::error_code error;
  const fs::path config_path = dir / "config.json", generation_path = dir / "generation_config.json";
  if (!fs::exists(config_path, error)) return NoConfig(dir);
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> config, MappedFile::Open(config_path.string()));
  absl::StatusOr<ModelInfo> info = ParseModelConfig(config->bytes());
  if (!info.ok()) return Explain(info.status(), config_path);
  info->weights_name = WeightsName(*info);
  if (!fs::exists(generation_path, error)) return info;
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> generation, MappedFile::Open(generation_path.string()));
  if (absl::Status status = ParseGenerationConfig(generation->bytes(), *info); !status.ok()) {
    return Explain(status, generation_path);
  }
  return info;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenWhole(const ModelInfo& info, const LoadOptions& options) {
  if (options.load_format == "dummy") return MakeDummyTensors(options.dummy_seed);
  if (IsGgufPath(info.source)) return OpenGgufTensors(info.source);
  return OpenHfTensors(info);
}

}  // namespace

absl::StatusOr<ModelInfo> ReadModelInfo(const std::string& path, const LoadOptions& options) {
  RETURN_IF_ERROR(CheckLoadFormat(path, options));
  absl::StatusOr<ModelInfo> info = IsGgufPath(path) ? ReadGgufModelInfo(path) : ReadHfInfo(path);
  if (!info.ok()) return info;
  info->source = path;
  info->name = NameOf(path);
  if (options.load_format == "dummy") {
    info->weights_name = "random";
    return info;
  }
  std::vector<std::string> weight_paths = {path};
  if (!IsGgufPath(path)) {
    ASSIGN_OR_RETURN(weight_paths, HfWeightPaths(path));
  }
  ASSIGN_OR_RETURN(info->weights_fingerprint, FingerprintFiles(weight_paths));
  return info;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(const ModelInfo& info, const LoadOptions& options) {
  if (info.part.num_ranks == 1) return OpenWhole(info, options);
  ASSIGN_OR_RETURN(std::unique_ptr<TensorSource> whole, OpenWhole(info, options));
  return MakePartTensors(std::move(whole), info);
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelInfo& info, const LoadOptions& options, Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> tensors, OpenTensors(info, options));
  return AssembleWeights(info, options, *tensors, device);
}

}  // namespace millrace
