// SPDX-License-Identifier: Apache-2.0
#include "engine/load/hf_weights.h"

#include <simdjson.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/assemble.h"
#include "engine/load/float_bits.h"
#include "engine/load/safetensors.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 256u << 20;
constexpr size_t kMaxShards = 10000;

// File names of the shards, sorted; one name when there is no index.
absl::StatusOr<std::vector<std::string>> ShardNames(const fs::path& dir) {
  const fs::path index_path = dir / "model.safetensors.index.json";
  std::error_code error;
  if (!fs::exists(index_path, error)) return std::vector<std::string>{"model.safetensors"};
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> index, MappedFile::Open(index_path.string()));
  const auto fault = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(index_path.string(), ": ", what));
  };
  if (index->bytes().size() > kMaxIndexBytes) return fault("too large");
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::dom::object map;
  simdjson::error_code json_error = parser.allocate(std::max<size_t>(index->bytes().size(), 64), 8);
  if (json_error == simdjson::SUCCESS) json_error = parser.parse(simdjson::padded_string(index->bytes())).get(root);
  if (json_error == simdjson::SUCCESS) json_error = root["weight_map"].get(map);
  if (json_error != simdjson::SUCCESS) return fault(simdjson::error_message(json_error));
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) {
    std::string_view name;
    if (file.get(name) != simdjson::SUCCESS) return fault("weight_map holds something other than file names");
    if (name.find('/') != std::string_view::npos || name.empty() || name[0] == '.')
      return fault("a file name leaves the directory");
    names.insert(std::string(name));
    if (names.size() > kMaxShards) return fault("too many shards");
  }
  return std::vector<std::string>(names.begin(), names.end());
}

class HfTensors final : public TensorSource {
 public:
  static absl::StatusOr<std::unique_ptr<HfTensors>> Open(const std::string& dir) {
    auto tensors = std::make_unique<HfTensors>();
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ShardNames(dir));
    for (const std::string& name : names) {
      const std::string path = (fs::path(dir) / name).string();
      ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
      absl::StatusOr<TensorMap> parsed = ParseSafetensors(file->bytes());
      if (!parsed.ok()) {
        return absl::Status(parsed.status().code(), absl::StrCat(path, ": ", parsed.status().message()));
      }
      tensors->tensors_.merge(*parsed);
      tensors->files_.push_back(std::move(file));
    }
    return tensors;
  }

  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    ASSIGN_OR_RETURN(const TensorView view, Find(name, {n, k}));
    return MatrixRows{
        .n = n, .k = k, .read = [view, k](int64_t row, float* out) { ReadFloats(view, row * k, k, out); }};
  }

  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    ASSIGN_OR_RETURN(const TensorView view, Find(name, {n}));
    std::vector<float> values(static_cast<size_t>(n));
    ReadFloats(view, 0, n, values.data());
    return values;
  }

  void Release() override {
    for (const auto& file : files_) {
      // Read-only file pages come back from disk if they are needed again.
      madvise(const_cast<char*>(file->bytes().data()), file->bytes().size(), MADV_DONTNEED);
    }
  }

 private:
  absl::StatusOr<TensorView> Find(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    const TensorView& view = found->second;
    if (view.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(view.shape, ", "),
                                                     "], the config asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    if (view.dtype != "F32" && view.dtype != "F16" && view.dtype != "BF16") {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is ", view.dtype, "; F32, F16 or BF16 expected"));
    }
    return view;
  }

  static void ReadFloats(const TensorView& view, int64_t first, int64_t count, float* out) {
    if (view.dtype == "F32") {
      std::memcpy(out, static_cast<const char*>(view.data) + first * 4, static_cast<size_t>(count) * 4);
      return;
    }
    const char* data = static_cast<const char*>(view.data) + first * 2;
    const bool is_bf16 = view.dtype == "BF16";
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, data + 2 * i, sizeof(bits));
      out[i] = is_bf16 ? FromBFloat16(bits) : FromFloat16(bits);
    }
  }

  TensorMap tensors_;
  std::vector<std::shared_ptr<MappedFile>> files_;
};

// FNV-1a, 64 bits.
void Mix(uint64_t& hash, std::string_view bytes) {
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
}

}  // namespace

absl::StatusOr<ModelWeights> LoadHfWeights(const ModelInfo& info, const LoadOptions& options, Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HfTensors> tensors, HfTensors::Open(info.source));
  return AssembleWeights(info, options, *tensors, device);
}

absl::StatusOr<uint64_t> FingerprintHfWeights(const std::string& dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ShardNames(dir));
  uint64_t hash = 0xcbf29ce484222325u;
  constexpr size_t kSampleBytes = 4096, kNumSamples = 64;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open((fs::path(dir) / name).string()));
    const std::string_view bytes = file->bytes();
    Mix(hash, absl::StrCat(name, ":", bytes.size(), ";"));
    Mix(hash, bytes.substr(0, size_t{64} << 10));
    const size_t step = std::max(bytes.size() / kNumSamples, kSampleBytes);
    for (size_t at = 0; at < bytes.size(); at += step) Mix(hash, bytes.substr(at, kSampleBytes));
  }
  return hash;
}

}  // namespace millrace
