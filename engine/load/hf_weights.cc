// SPDX-License-Identifier: Apache-2.0
#include "engine/load/hf_weights.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "engine/load/float_tensor.h"
#include "engine/load/hf_files.h"
#include "engine/load/packed_int4.h"
#include "engine/load/stored_int.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

using Method = CheckpointQuantization::Method;

class HfTensors final : public TensorSource {
 public:
  HfTensors(HfFiles files, const CheckpointQuantization& quantization)
      : files_(std::move(files)), quantization_(quantization) {}

  bool Has(const std::string& name) const override {
    return files_.tensors.contains(name) || IsQuantized(std::string(absl::StripSuffix(name, ".weight")));
  }

  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    const std::string stem(absl::StripSuffix(name, ".weight"));
    if (!files_.tensors.contains(name) && IsQuantized(stem)) return Dequantized(stem, n, k);
    ASSIGN_OR_RETURN(const TensorView view, FindFloats(name, {n, k}));
    return FloatRows(view.data, *FloatDType(view.dtype), n, k);
  }

  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    ASSIGN_OR_RETURN(const TensorView view, FindFloats(name, {n}));
    return FloatVector(view.data, *FloatDType(view.dtype), n);
  }

  absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& name, int64_t n, int64_t k) override {
    if (!IsQuantized(name)) return std::nullopt;
    if (quantization_.method == Method::kMillrace) {
      ASSIGN_OR_RETURN(const StoredInt stored, FindStoredInt(files_.tensors, name, n, k));
      return StoredForm{.kind = stored.kind};
    }
    ASSIGN_OR_RETURN(const PackedInt4 packed, FindPackedInt4(files_.tensors, quantization_, name, n, k));
    return FormOfPackedInt4(packed);
  }

  absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& name, int64_t n, int64_t k) override {
    if (quantization_.method == Method::kMillrace) {
      ASSIGN_OR_RETURN(const StoredInt stored, FindStoredInt(files_.tensors, name, n, k));
      return ReadStoredInt(stored);
    }
    ASSIGN_OR_RETURN(const PackedInt4 packed, FindPackedInt4(files_.tensors, quantization_, name, n, k));
    return UnpackInt4(packed);
  }

  void Release() override {
    for (const auto& file : files_.files) file->DropPages();
  }

 private:
  bool IsQuantized(const std::string& stem) const {
    if (quantization_.method == Method::kNone) return false;
    return files_.tensors.contains(stem +
                                   (quantization_.method == Method::kMillrace ? kStoredValuesSuffix : ".qweight"));
  }

  absl::StatusOr<MatrixRows> Dequantized(const std::string& stem, int64_t n, int64_t k) {
    if (quantization_.method == Method::kMillrace) {
      ASSIGN_OR_RETURN(std::unique_ptr<BuiltWeight> built, Stored(stem, n, k));
      return DequantizedRows(std::shared_ptr<const BuiltWeight>(std::move(built)));
    }
    ASSIGN_OR_RETURN(const PackedInt4 packed, FindPackedInt4(files_.tensors, quantization_, stem, n, k));
    return DequantizedRows(packed);
  }

  absl::StatusOr<TensorView> FindFloats(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto found = files_.tensors.find(name);
    if (found == files_.tensors.end()) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    const TensorView& view = found->second;
    if (view.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(view.shape, ", "),
                                                     "], the config asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    if (!FloatDType(view.dtype).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is ", view.dtype, "; F32, F16 or BF16 expected"));
    }
    return view;
  }

  const HfFiles files_;
  const CheckpointQuantization quantization_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenHfTensors(const ModelInfo& info) {
  ASSIGN_OR_RETURN(HfFiles files, OpenHfFiles(info.source, info));
  return std::make_unique<HfTensors>(std::move(files), info.quantization);
}

}  // namespace millrace
