// SPDX-License-Identifier: Apache-2.0
#include "engine/load/hf_files.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 256u << 20;
constexpr size_t kMaxShards = 10000;
constexpr size_t kMaxDepth = 8;

// FNV-1a's step on words of 64 bits, the high half folded back so that every bit of a word reaches all of the hash.
void Mix(uint64_t& hash, std::string_view bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min(sizeof(word), bytes.size() - at));
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
}

absl::Status NoWeights(const fs::path& dir) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".bin" || entry.path().extension() == ".pt" || entry.path().extension() == ".pth") {
      return absl::NotFoundError(absl::StrCat(dir.string(), ": holds ", name,
                                              ", but no model.safetensors; convert the weights to safetensors"));
    }
  }
  return absl::NotFoundError(
      absl::StrCat(dir.string(), ": holds neither model.safetensors nor model.safetensors.index.json"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseShardIndex(std::string_view index_json) {
  if (index_json.size() > kMaxIndexBytes) return absl::InvalidArgumentError("too large");
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::dom::object map;
  simdjson::error_code error = parser.allocate(std::max<size_t>(index_json.size(), 64), kMaxDepth);
  if (error == simdjson::SUCCESS) error = parser.parse(simdjson::padded_string(index_json)).get(root);
  if (error == simdjson::SUCCESS) error = root["weight_map"].get(map);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat("no weight_map: ", simdjson::error_message(error)));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) {
    std::string_view name;
    if (file.get(name) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError("weight_map holds something other than file names");
    }
    if (name.empty() || name[0] == '.' || name.find('/') != std::string_view::npos ||
        name.find('\0') != std::string_view::npos) {
      return absl::InvalidArgumentError("weight_map: a file name leaves the directory");
    }
    names.insert(std::string(name));
    if (names.size() > kMaxShards) return absl::InvalidArgumentError("weight_map: too many files");
  }
  if (names.empty()) return absl::InvalidArgumentError("weight_map is empty");
  return std::vector<std::string>(names.begin(), names.end());
}

absl::StatusOr<std::vector<std::string>> HfWeightPaths(const std::string& dir) {
  const fs::path index_path = fs::path(dir) / "model.safetensors.index.json";
  const fs::path single_path = fs::path(dir) / "model.safetensors";
  std::error_code error;
  if (!fs::exists(index_path, error)) {
    if (!fs::exists(single_path, error)) return NoWeights(dir);
    return std::vector<std::string>{single_path.string()};
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> index, MappedFile::Open(index_path.string()));
  absl::StatusOr<std::vector<std::string>> names = ParseShardIndex(index->bytes());
  if (!names.ok()) {
    return absl::Status(names.status().code(), absl::StrCat(index_path.string(), ": ", names.status().message()));
  }
  for (std::string& name : *names) name = (fs::path(dir) / name).string();
  return names;
}

absl::StatusOr<HfFiles> OpenHfFiles(const std::string& dir, const ModelInfo& info) {
  HfFiles all;
  ASSIGN_OR_RETURN(const std::vector<std::string> paths, HfWeightPaths(dir));
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
    absl::StatusOr<TensorMap> parsed = ParseSafetensors(file->bytes());
    if (!parsed.ok()) {
      return absl::Status(parsed.status().code(), absl::StrCat(path, ": ", parsed.status().message()));
    }
    all.tensors.merge(*parsed);
    if (!parsed->empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor '", parsed->begin()->first, "' is in another file too"));
    }
    all.files.push_back(std::move(file));
  }
  const auto head = all.tensors.find("lm_head.weight");
  if (info.has_tied_embeddings && head != all.tensors.end()) {
    const TensorView shared = head->second;  // the map may move its entries below
    all.tensors.try_emplace("model.embed_tokens.weight", shared);
  }
  return all;
}

absl::StatusOr<uint64_t> FingerprintFiles(const std::vector<std::string>& paths) {
  constexpr size_t kWholeBytes = 64u << 20, kHeaderBytes = 1u << 20, kSampleBytes = 4096, kNumSamples = 4096;
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(path));
    const std::string_view bytes = file->bytes();
    Mix(hash, absl::StrCat(fs::path(path).filename().string(), ":", bytes.size(), ";"));
    if (bytes.size() <= kWholeBytes) {
      Mix(hash, bytes);
      continue;
    }
    Mix(hash, bytes.substr(0, kHeaderBytes));
    const size_t step = std::max(bytes.size() / kNumSamples, kSampleBytes);
    for (size_t at = 0; at < bytes.size(); at += step) Mix(hash, bytes.substr(at, kSampleBytes));
  }
  return hash;
}

}  // namespace millrace
