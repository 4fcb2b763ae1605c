// SPDX-License-Identifier: Apache-2.0
#include "engine/load/packed_int4.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/float_tensor.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};   // which of eight outputs lies at nibble i
constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // its inverse
constexpr int64_t kChunkOutputs = 64;

uint32_t Word(const TensorView& view, int64_t index) {
  uint32_t word;
  std::memcpy(&word, static_cast<const char*>(view.data) + index * 4, sizeof(word));
  return word;
}

int32_t GroupOf(const PackedInt4& packed, int64_t input) {
  if (packed.group_of_input == nullptr) return static_cast<int32_t>(input / packed.group_size);
  int32_t group;
  std::memcpy(&group, static_cast<const char*>(packed.group_of_input) + input * 4, sizeof(group));
  return group;
}

int ValueAt(const PackedInt4& packed, int64_t output, int64_t input) {
  if (packed.is_awq) {
    return static_cast<int>(Word(packed.qweight, input * (packed.n / 8) + output / 8) >> (4 * kAwqNibble[output % 8])) &
           15;
  }
  return static_cast<int>(Word(packed.qweight, input / 8 * packed.n + output) >> (4 * (input % 8))) & 15;
}

int ZeroAt(const PackedInt4& packed, int64_t output, int64_t group) {
  const uint32_t word = Word(packed.qzeros, group * (packed.n / 8) + output / 8);
  const int nibble = static_cast<int>(output % 8);
  return (static_cast<int>(word >> (4 * (packed.is_awq ? kAwqNibble[nibble] : nibble))) + packed.zero_offset) & 15;
}

float ScaleAt(const PackedInt4& packed, int64_t output, int64_t group) {
  float scale;
  ReadFloats(packed.scales.data, *FloatDType(packed.scales.dtype), group * packed.n + output, 1, &scale);
  return scale;
}

absl::StatusOr<TensorView> FindShaped(const TensorMap& tensors, const std::string& name,
                                      const std::vector<int64_t>& shape, bool is_float) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
  const TensorView& view = found->second;
  if (view.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(view.shape, ", "),
                                                   "], the config asks for [", absl::StrJoin(shape, ", "), "]"));
  }
  if (is_float ? !FloatDType(view.dtype).has_value() : view.dtype != "I32") {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " is ", view.dtype, "; ", is_float ? "F16, BF16 or F32" : "I32", " expected"));
  }
  return view;
}

// Reads g_idx; keeps it only when it says something else than k / group_size.
absl::Status ReadGroups(const TensorMap& tensors, PackedInt4& packed) {
  const std::string name = packed.name + ".g_idx";
  if (packed.is_awq || !tensors.contains(name)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const TensorView view, FindShaped(tensors, name, {packed.k}, false));
  packed.group_of_input = view.data;
  bool is_plain = true;
  for (int64_t input = 0; input < packed.k; ++input) {
    const int32_t group = GroupOf(packed, input);
    if (group < 0 || group >= packed.num_groups()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": group ", group, " of input ", input,
                                                     " is outside [0, ", packed.num_groups(), ")"));
    }
    is_plain &= group == input / packed.group_size;
  }
  if (is_plain) packed.group_of_input = nullptr;
  return absl::OkStatus();
}

// Words (r, c) of GPTQ hold eight inputs of one output in rising nibbles: byte for byte our own layout.
void UnpackGptqRows(const PackedInt4& packed, int64_t begin, int64_t end, uint8_t* out) {
  const int64_t row_bytes = packed.k / 2;
  for (int64_t r = 0; r < packed.k / 8; ++r) {
    for (int64_t output = begin; output < end; ++output) {
      const uint32_t word = Word(packed.qweight, r * packed.n + output);
      std::memcpy(out + output * row_bytes + r * 4, &word, sizeof(word));
    }
  }
}

// REQUIRES: begin and end are multiples of 8.
void UnpackAwqRows(const PackedInt4& packed, int64_t begin, int64_t end, uint8_t* out) {
  const int64_t row_bytes = packed.k / 2, words = packed.n / 8;
  for (int64_t input = 0; input < packed.k; input += 2) {
    for (int64_t block = begin / 8; block < end / 8; ++block) {
      const uint32_t even = Word(packed.qweight, input * words + block);
      const uint32_t odd = Word(packed.qweight, (input + 1) * words + block);
      for (int i = 0; i < 8; ++i) {
        const uint32_t low = (even >> (4 * i)) & 15, high = (odd >> (4 * i)) & 15;
        out[(block * 8 + kAwqOrder[i]) * row_bytes + input / 2] = static_cast<uint8_t>(low | high << 4);
      }
    }
  }
}

}  // namespace

absl::StatusOr<PackedInt4> FindPackedInt4(const TensorMap& tensors, const CheckpointQuantization& quantization,
                                          const std::string& name, int64_t n, int64_t k) {
  PackedInt4 packed{.name = name, .n = n, .k = k};
  packed.is_awq = quantization.method == CheckpointQuantization::Method::kAwq;
  packed.group_size = quantization.group_size <= 0 ? k : quantization.group_size;
  packed.zero_offset = packed.is_awq || quantization.has_true_zeros ? 0 : 1;
  if (quantization.bits != 4) {
    return absl::UnimplementedError(absl::StrCat(name, ": ", quantization.bits, "-bit weights; 4 bits are supported"));
  }
  if (n % 8 != 0 || k % 8 != 0 || k % packed.group_size != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": a matrix of [", n, ", ", k, "] cannot be stored in groups of ", packed.group_size));
  }
  const std::vector<int64_t> shape = packed.is_awq ? std::vector<int64_t>{k, n / 8} : std::vector<int64_t>{k / 8, n};
  ASSIGN_OR_RETURN(packed.qweight, FindShaped(tensors, name + ".qweight", shape, false));
  ASSIGN_OR_RETURN(packed.qzeros, FindShaped(tensors, name + ".qzeros", {packed.num_groups(), n / 8}, false));
  ASSIGN_OR_RETURN(packed.scales, FindShaped(tensors, name + ".scales", {packed.num_groups(), n}, true));
  RETURN_IF_ERROR(ReadGroups(tensors, packed));
  return packed;
}

StoredForm FormOfPackedInt4(const PackedInt4& packed) {
  const StoredForm anew = {.kind = {.format = WeightFormat::kInt8}, .is_exact = false};
  if (packed.group_of_input != nullptr) return anew;
  for (const int group : {128, 64, 32}) {
    if (packed.group_size % group == 0) return {.kind = {.format = WeightFormat::kInt4, .group_size = group}};
  }
  return anew;
}

absl::StatusOr<std::unique_ptr<BuiltWeight>> UnpackInt4(const PackedInt4& packed) {
  const StoredForm form = FormOfPackedInt4(packed);
  const int64_t group = form.kind.group_size;
  MILLRACE_CHECK(form.is_exact && group > 0, "only a matrix whose form is exact can be unpacked");
  const int64_t groups_a_row = packed.k / group;
  auto built = std::make_unique<BuiltWeight>();
  built->values.resize(static_cast<size_t>(packed.n * packed.k / 2));
  built->scales.resize(static_cast<size_t>(packed.n * groups_a_row));
  built->zeros.resize(built->scales.size());
  ForEachChunk(packed.n, kChunkOutputs, [&](int64_t begin, int64_t end) {
    (packed.is_awq ? UnpackAwqRows : UnpackGptqRows)(packed, begin, end, built->values.data());
    for (int64_t g = 0; g < groups_a_row; ++g) {
      const int64_t stored_group = g * group / packed.group_size;
      for (int64_t output = begin; output < end; ++output) {
        const size_t index = static_cast<size_t>(output * groups_a_row + g);
        built->scales[index] = ScaleAt(packed, output, stored_group);
        built->zeros[index] = static_cast<uint8_t>(ZeroAt(packed, output, stored_group));
      }
    }
  });
  if (!std::all_of(built->scales.begin(), built->scales.end(), [](float scale) { return std::isfinite(scale); })) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", packed.name, ".scales holds a value that is not finite"));
  }
  const bool is_symmetric = std::all_of(built->zeros.begin(), built->zeros.end(), [](uint8_t z) { return z == 8; });
  if (is_symmetric) built->zeros.clear();
  built->source = {.format = WeightFormat::kInt4, .n = packed.n, .k = packed.k, .group_size = static_cast<int>(group)};
  built->PointSource();
  return built;
}

MatrixRows DequantizedRows(const PackedInt4& packed) {
  return {.n = packed.n,
          .k = packed.k,
          .read =
              [packed](int64_t row, float* out) {
                const size_t num_groups = static_cast<size_t>(packed.num_groups());
                thread_local std::vector<float> scales, zeros;
                scales.resize(num_groups);
                zeros.resize(num_groups);
                for (size_t g = 0; g < num_groups; ++g) {
                  scales[g] = ScaleAt(packed, row, static_cast<int64_t>(g));
                  zeros[g] = static_cast<float>(ZeroAt(packed, row, static_cast<int64_t>(g)));
                }
                for (int64_t input = 0; input < packed.k; ++input) {
                  const size_t g = static_cast<size_t>(GroupOf(packed, input));
                  out[input] = (static_cast<float>(ValueAt(packed, row, input)) - zeros[g]) * scales[g];
                }
              },
          .stored = {}};
}

}  // namespace millrace
