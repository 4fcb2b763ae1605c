// SPDX-License-Identifier: Apache-2.0
#include "engine/load/quantize_checkpoint.h"

#include <simdjson.h>

#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/float_tensor.h"
#include "engine/load/gguf_model.h"
#include "engine/load/hf_config.h"
#include "engine/load/hf_files.h"
#include "engine/load/hf_weights.h"
#include "engine/load/new_directory.h"
#include "engine/load/stored_int.h"
#include "engine/load/weight_plan.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxSideFileBytes = 256u << 20;

// A tensor of the output: copied, or part of a matrix that is quantised when its turn comes.
struct OutputTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  size_t num_bytes = 0;
};

// A matrix to be quantised (two tensors) or a tensor to be copied.
struct OutputItem {
  std::string name;  // of a copied tensor with its suffix, of a matrix without
  int64_t n = 0;     // 0: copied
  int64_t k = 0;
  WeightKind kind;
};

void AddMatrix(const LinearSpec& spec, const WeightKind& kind, std::vector<OutputItem>& items) {
  for (const LinearSpec::Part& part : spec.parts) {
    items.push_back({.name = part.name, .n = part.n, .k = spec.k, .kind = kind});
    if (spec.has_bias) items.push_back({.name = part.name + ".bias"});
  }
}

std::vector<OutputItem> ListItems(const ModelInfo& info, const WeightFormats& formats) {
  std::vector<OutputItem> items = {{.name = "model.embed_tokens.weight"}, {.name = "model.norm.weight"}};
  // A tied head is quantised from the embedding when the copy is loaded.
  if (!info.has_tied_embeddings) AddMatrix(HeadSpecOf(info), formats.lm_head, items);
  for (int32_t i = 0; i < info.num_layers; ++i) {
    const LayerSpec spec = LayerSpecOf(info, i);
    for (const std::string& name : {spec.attn_norm, spec.mlp_norm, spec.q_norm, spec.k_norm}) {
      if (!name.empty()) items.push_back({.name = name});
    }
    if (!spec.router.parts.empty()) items.push_back({.name = spec.router.parts[0].name + ".weight"});
    for (const LinearSpec* linear : spec.Linears()) AddMatrix(*linear, formats.linear, items);
  }
  return items;
}

std::vector<OutputTensor> TensorsOf(const OutputItem& item, const TensorMap& input) {
  if (item.n == 0) {
    const TensorView& view = input.at(item.name);
    return {{item.name, view.dtype, view.shape, view.num_bytes}};
  }
  const bool is_int8 = item.kind.format == WeightFormat::kInt8;
  const int64_t values = is_int8 ? item.k : item.k / 2;
  const int64_t groups = item.kind.GroupFor(item.k) > 0 ? item.k / item.kind.GroupFor(item.k) : 1;
  return {
      {item.name + kStoredValuesSuffix, is_int8 ? "I8" : "U8", {item.n, values}, static_cast<size_t>(item.n * values)},
      {item.name + kStoredScalesSuffix, "F32", {item.n, groups}, static_cast<size_t>(item.n * groups) * sizeof(float)}};
}

// The header with its length prefix; names need no escaping, they are those of LayerSpec.
std::string Header(const std::vector<OutputItem>& items, const TensorMap& input) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  size_t offset = 0;
  for (const OutputItem& item : items) {
    for (const OutputTensor& tensor : TensorsOf(item, input)) {
      absl::StrAppend(&json, ",\"", tensor.name, R"(":{"dtype":")", tensor.dtype, R"(","shape":[)",
                      absl::StrJoin(tensor.shape, ","), R"(],"data_offsets":[)", offset, ",", offset + tensor.num_bytes,
                      "]}");
      offset += tensor.num_bytes;
    }
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t num_bytes = json.size();
  return std::string(reinterpret_cast<const char*>(&num_bytes), sizeof(num_bytes)) + json;
}

template <typename T>
std::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

absl::Status WriteItem(const OutputItem& item, const TensorMap& input, TensorSource& source,
                       const AppendBytes& append) {
  if (item.n == 0) {
    const TensorView& view = input.at(item.name);
    return append({static_cast<const char*>(view.data), view.num_bytes});
  }
  ASSIGN_OR_RETURN(const MatrixRows rows, source.Matrix(item.name + ".weight", item.n, item.k));
  const absl::StatusOr<std::unique_ptr<BuiltWeight>> built = BuildWeight(rows, item.kind);
  if (!built.ok()) {
    return absl::Status(built.status().code(), absl::StrCat(item.name, ".weight: ", built.status().message()));
  }
  RETURN_IF_ERROR(append(BytesOf((*built)->values)));
  return append(BytesOf((*built)->scales));
}

// The config with our quantization_config in front; its other fields keep their order.
absl::StatusOr<std::string> QuantizedConfig(const fs::path& path, const std::string& quantization) {
  ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(path.string()));
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(simdjson::padded_string(file->bytes())).get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  }
  std::string rest = simdjson::minify(object);
  rest.erase(0, 1);
  const bool is_int8 = quantization == "int8";
  return absl::StrCat(R"({"quantization_config":{"quant_method":"millrace","bits":)", is_int8 ? 8 : 4,
                      R"(,"group_size":)",
                      is_int8                  ? -1
                      : quantization == "int4" ? 128
                                               : 32,
                      R"(,"sym":true})", rest == "}" ? "" : ",", rest, "\n");
}

absl::Status CopySideFiles(const fs::path& from, const fs::path& to) {
  static const std::set<std::string> kWeights = {".safetensors", ".bin",  ".pt", ".pth",
                                                 ".gguf",        ".onnx", ".h5", ".msgpack"};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(from, error)) {
    const fs::path& path = entry.path();
    const std::string name = path.filename().string();
    if (name == "additional_chat_templates" && fs::is_directory(path, error)) {
      fs::copy(path, to / name, fs::copy_options::recursive, error);
    } else if (fs::is_regular_file(path, error) && !kWeights.contains(path.extension().string()) &&
               name != "config.json" && name != "model.safetensors.index.json" && name[0] != '.' &&
               fs::file_size(path, error) <= kMaxSideFileBytes) {
      fs::copy_file(path, to / name, error);  // follows the links of a hub cache
    }
    if (error) return absl::FailedPreconditionError(absl::StrCat(path.string(), ": ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QuantizeCheckpointResult> QuantizeCheckpoint(const std::string& input_dir, const std::string& output_dir,
                                                            const QuantizeCheckpointOptions& options) {
  if (IsGgufPath(input_dir)) {
    return absl::UnimplementedError(
        absl::StrCat(input_dir, ": only Hugging Face directories can be quantised to a copy"));
  }
  if (options.quantization.empty())
    return absl::InvalidArgumentError("--quantization is not one of int8, int4, int4-g32");
  const LoadOptions load = {.load_format = "safetensors", .quantization = options.quantization};
  ASSIGN_OR_RETURN(const ModelInfo info, ReadModelInfo(input_dir, load));
  ASSIGN_OR_RETURN(const WeightFormats formats, ChooseWeightFormats(info, load));
  ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenHfTensors(info));
  RETURN_IF_ERROR(CheckTensors(info, *source));
  ASSIGN_OR_RETURN(const HfFiles input, OpenHfFiles(input_dir, info));
  const fs::path config_path = fs::path(input_dir) / "config.json";
  ASSIGN_OR_RETURN(const std::string config, QuantizedConfig(config_path, options.quantization));

  ASSIGN_OR_RETURN(NewDirectory output, NewDirectory::Create(output_dir));
  RETURN_IF_ERROR(CopySideFiles(input_dir, output.path()));
  RETURN_IF_ERROR(
      WriteNewFile(output.path() / "config.json", [&](const AppendBytes& append) { return append(config); }));
  const std::vector<OutputItem> items = ListItems(info, formats);
  QuantizeCheckpointResult result;
  for (const auto& file : input.files) result.input_bytes += file->bytes().size();
  RETURN_IF_ERROR(WriteNewFile(output.path() / "model.safetensors", [&](const AppendBytes& append) {
    const AppendBytes counted = [&](std::string_view bytes) {
      result.output_bytes += bytes.size();
      return append(bytes);
    };
    RETURN_IF_ERROR(counted(Header(items, input.tensors)));
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(WriteItem(items[i], input.tensors, *source, counted));
      source->Release();
      const double fraction = static_cast<double>(i + 1) / static_cast<double>(items.size());
      if (options.on_progress) options.on_progress("quantising", fraction);
    }
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(output.Commit());
  return result;
}

}  // namespace millrace
