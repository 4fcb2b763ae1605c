// SPDX-License-Identifier: Apache-2.0
#include "engine/load/gguf_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "engine/load/float_bits.h"
#include "engine/load/float_tensor.h"
#include "engine/load/gguf.h"
#include "engine/load/mapped_file.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kBlock = 32;        // values of a block of Q8_0 and Q4_0
constexpr int64_t kQ8Bytes = 2 + 32;  // float16 scale, 32 int8
constexpr int64_t kQ4Bytes = 2 + 16;  // float16 scale, value i in the low and i + 16 in the high nibble of byte i
constexpr int64_t kChunkRows = 16;

struct NamePair {
  absl::string_view hf, gguf;
};

constexpr NamePair kLayerNames[] = {
    {"input_layernorm.", "attn_norm."},
    {"post_attention_layernorm.", "ffn_norm."},
    {"self_attn.q_proj.", "attn_q."},
    {"self_attn.k_proj.", "attn_k."},
    {"self_attn.v_proj.", "attn_v."},
    {"self_attn.o_proj.", "attn_output."},
    {"self_attn.q_norm.", "attn_q_norm."},
    {"self_attn.k_norm.", "attn_k_norm."},
    {"mlp.gate_proj.", "ffn_gate."},
    {"mlp.up_proj.", "ffn_up."},
    {"mlp.down_proj.", "ffn_down."},
    {"mlp.gate.", "ffn_gate_inp."},
    {"block_sparse_moe.gate.", "ffn_gate_inp."},
};

// All experts of a layer are one tensor; Mixtral's names, then Qwen's.
constexpr NamePair kExpertNames[] = {
    {"w1.", "ffn_gate_exps."},        {"w3.", "ffn_up_exps."},      {"w2.", "ffn_down_exps."},
    {"gate_proj.", "ffn_gate_exps."}, {"up_proj.", "ffn_up_exps."}, {"down_proj.", "ffn_down_exps."},
};

// The number after "experts." of a name inside a layer; nothing for what is no expert's.
std::optional<int64_t> ConsumeExpert(absl::string_view& rest) {
  absl::string_view name = rest;
  int64_t expert = 0;
  if (!absl::ConsumePrefix(&name, "mlp.experts.") && !absl::ConsumePrefix(&name, "block_sparse_moe.experts.")) {
    return std::nullopt;
  }
  const absl::string_view number = name.substr(0, name.find('.'));
  if (!absl::SimpleAtoi(number, &expert) || expert < 0 || number.size() == name.size()) return std::nullopt;
  rest = name.substr(number.size() + 1);
  return expert;
}

struct GgufName {
  std::string tensor;             // empty: GGUF has no counterpart
  std::optional<int64_t> expert;  // its part of the tensor
};

GgufName GgufNameOf(const std::string& hf_name) {
  if (hf_name == "model.embed_tokens.weight") return {.tensor = "token_embd.weight", .expert = {}};
  if (hf_name == "model.norm.weight") return {.tensor = "output_norm.weight", .expert = {}};
  if (hf_name == "lm_head.weight") return {.tensor = "output.weight", .expert = {}};
  absl::string_view rest = hf_name;
  if (!absl::ConsumePrefix(&rest, "model.layers.")) return {};
  const absl::string_view layer = rest.substr(0, rest.find('.'));
  rest.remove_prefix(std::min(layer.size() + 1, rest.size()));
  const std::optional<int64_t> expert = ConsumeExpert(rest);
  for (const NamePair& pair : expert.has_value() ? absl::Span<const NamePair>(kExpertNames) : kLayerNames) {
    if (!absl::ConsumePrefix(&rest, pair.hf)) continue;
    return {.tensor = absl::StrCat("blk.", layer, ".", pair.gguf, rest), .expert = expert};
  }
  return {};
}

std::optional<DType> FloatTypeOf(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return DType::kF32;
    case GgmlType::kF16:
      return DType::kF16;
    case GgmlType::kBF16:
      return DType::kBF16;
    case GgmlType::kQ4_0:
    case GgmlType::kQ8_0:
      return std::nullopt;
  }
  return std::nullopt;
}

float BlockScale(const uint8_t* block) {
  uint16_t bits;
  std::memcpy(&bits, block, sizeof(bits));
  return FromFloat16(bits);
}

int Q4At(const uint8_t* block, int64_t i) { return i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4; }

void ReadQuantizedRow(const GgufTensor& tensor, int64_t row, int64_t k, float* out) {
  const bool is_q8 = tensor.type == GgmlType::kQ8_0;
  const int64_t block_bytes = is_q8 ? kQ8Bytes : kQ4Bytes;
  const uint8_t* block = static_cast<const uint8_t*>(tensor.data) + row * (k / kBlock) * block_bytes;
  for (int64_t first = 0; first < k; first += kBlock, block += block_bytes) {
    const float scale = BlockScale(block);
    for (int64_t i = 0; i < kBlock; ++i) {
      const int q = is_q8 ? static_cast<int8_t>(block[2 + i]) : Q4At(block, i) - 8;
      out[first + i] = static_cast<float>(q) * scale;
    }
  }
}

// Splits the blocks of rows [begin, end) into our values and scales; false when a scale is not finite.
bool SplitBlocks(const GgufTensor& tensor, int64_t begin, int64_t end, BuiltWeight& built) {
  const bool is_q8 = tensor.type == GgmlType::kQ8_0;
  const int64_t block_bytes = is_q8 ? kQ8Bytes : kQ4Bytes, value_bytes = is_q8 ? kBlock : kBlock / 2;
  const int64_t blocks_a_row = built.source.k / kBlock;
  bool are_finite = true;
  for (int64_t index = begin * blocks_a_row; index < end * blocks_a_row; ++index) {
    const uint8_t* block = static_cast<const uint8_t*>(tensor.data) + index * block_bytes;
    const float scale = BlockScale(block);
    are_finite &= std::isfinite(scale);
    built.scales[static_cast<size_t>(index)] = scale;
    uint8_t* out = built.values.data() + index * value_bytes;
    if (is_q8) {
      std::memcpy(out, block + 2, kBlock);
      // -128 has no place in symmetric int8; the kernels' sums are exact only without it.
      for (int64_t i = 0; i < kBlock; ++i) out[i] = out[i] == 0x80 ? 0x81 : out[i];
      continue;
    }
    for (int64_t i = 0; i < kBlock; i += 2) {
      out[i / 2] = static_cast<uint8_t>(Q4At(block, i) | Q4At(block, i + 1) << 4);
    }
  }
  return are_finite;
}

class GgufTensors final : public TensorSource {
 public:
  GgufTensors(std::shared_ptr<MappedFile> mapped, GgufFile file) : mapped_(std::move(mapped)), file_(std::move(file)) {}

  bool Has(const std::string& name) const override { return file_.tensors.contains(GgufTensorName(name)); }

  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    ASSIGN_OR_RETURN(const GgufTensor tensor, Find(name, {n, k}));
    if (const std::optional<DType> dtype = FloatTypeOf(tensor.type)) return FloatRows(tensor.data, *dtype, n, k);
    return MatrixRows{.n = n,
                      .k = k,
                      .read = [tensor, k](int64_t row, float* out) { ReadQuantizedRow(tensor, row, k, out); },
                      .stored = {}};
  }

  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    ASSIGN_OR_RETURN(const GgufTensor tensor, Find(name, {n}));
    if (const std::optional<DType> dtype = FloatTypeOf(tensor.type)) return FloatVector(tensor.data, *dtype, n);
    return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor ", GgufTensorName(name), " is ",
                                                   std::string(GgmlTypeName(tensor.type)), "; floats expected"));
  }

  absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& name, int64_t n, int64_t k) override {
    ASSIGN_OR_RETURN(const GgufTensor tensor, Find(name + ".weight", {n, k}));
    if (FloatTypeOf(tensor.type).has_value()) return std::nullopt;
    const WeightFormat format = tensor.type == GgmlType::kQ8_0 ? WeightFormat::kInt8 : WeightFormat::kInt4;
    return StoredForm{.kind = {.format = format, .group_size = kBlock}};
  }

  absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& name, int64_t n, int64_t k) override {
    ASSIGN_OR_RETURN(const GgufTensor tensor, Find(name + ".weight", {n, k}));
    auto built = std::make_unique<BuiltWeight>();
    const bool is_q8 = tensor.type == GgmlType::kQ8_0;
    built->source = {.format = is_q8 ? WeightFormat::kInt8 : WeightFormat::kInt4, .n = n, .k = k, .group_size = kBlock};
    built->values.resize(static_cast<size_t>(is_q8 ? n * k : n * k / 2));
    built->scales.resize(static_cast<size_t>(n * k / kBlock));
    std::atomic<bool> are_finite{true};
    ForEachChunk(n, kChunkRows, [&](int64_t begin, int64_t end) {
      if (!SplitBlocks(tensor, begin, end, *built)) are_finite = false;
    });
    if (!are_finite) return absl::InvalidArgumentError("a scale is not finite");
    built->PointSource();
    return built;
  }

  void Release() override { mapped_->DropPages(); }

 private:
  // One expert's part where the tensor holds all of them.
  absl::StatusOr<GgufTensor> Find(const std::string& hf_name, std::vector<int64_t> shape) const {
    const GgufName name = GgufNameOf(hf_name);
    const auto found = file_.tensors.find(name.tensor);
    if (found == file_.tensors.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF: tensor ", name.tensor.empty() ? hf_name : name.tensor, " is missing"));
    }
    GgufTensor tensor = found->second;
    const bool is_stack = name.expert.has_value();
    const int64_t num_stacked = is_stack ? tensor.shape.front() : 1;
    if (is_stack) shape.insert(shape.begin(), std::max(num_stacked, *name.expert + 1));
    if (tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor ", name.tensor, " has shape [",
                                                     absl::StrJoin(tensor.shape, ", "), "], the metadata asks for [",
                                                     absl::StrJoin(shape, ", "), "]"));
    }
    if (!is_stack) return tensor;
    tensor.num_bytes /= static_cast<size_t>(num_stacked);
    tensor.data = static_cast<const char*>(tensor.data) + static_cast<size_t>(*name.expert) * tensor.num_bytes;
    tensor.shape.erase(tensor.shape.begin());
    return tensor;
  }

  const std::shared_ptr<MappedFile> mapped_;
  const GgufFile file_;
};

}  // namespace

std::string GgufTensorName(const std::string& hf_name) { return GgufNameOf(hf_name).tensor; }

absl::StatusOr<std::unique_ptr<TensorSource>> OpenGgufTensors(const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> mapped, MappedFile::Open(path));
  absl::StatusOr<GgufFile> file = ParseGguf(mapped->bytes());
  if (!file.ok()) return absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message()));
  return std::make_unique<GgufTensors>(std::move(mapped), *std::move(file));
}

}  // namespace millrace
