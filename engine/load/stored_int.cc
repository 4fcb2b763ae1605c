// SPDX-License-Identifier: Apache-2.0
#include "engine/load/stored_int.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/load/quantize_rows.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

absl::Status Fault(const std::string& name, const TensorView& view) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", view.dtype, " [",
                                                 absl::StrJoin(view.shape, ", "), "] does not fit the config"));
}

}  // namespace

absl::StatusOr<StoredInt> FindStoredInt(const TensorMap& tensors, const std::string& name, int64_t n, int64_t k) {
  StoredInt stored{.name = name, .n = n, .k = k};
  for (auto [suffix, view] : {std::pair(kStoredValuesSuffix, &stored.values), {kStoredScalesSuffix, &stored.scales}}) {
    const auto found = tensors.find(name + suffix);
    if (found == tensors.end()) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, suffix, " is missing"));
    *view = found->second;
  }
  const bool is_int8 = stored.values.dtype == "I8" && stored.values.shape == std::vector<int64_t>{n, k};
  const bool is_int4 = stored.values.dtype == "U8" && stored.values.shape == std::vector<int64_t>{n, k / 2};
  if (!is_int8 && !is_int4) return Fault(name + kStoredValuesSuffix, stored.values);
  const std::vector<int64_t>& shape = stored.scales.shape;
  if (stored.scales.dtype != "F32" || shape.size() != 2 || shape[0] != n || shape[1] < 1 || k % shape[1] != 0) {
    return Fault(name + kStoredScalesSuffix, stored.scales);
  }
  const int64_t group = shape[1] == 1 && is_int8 ? 0 : k / shape[1];
  if (group != 0 && group != 32 && group != 64 && group != 128) {
    return Fault(name + kStoredScalesSuffix, stored.scales);
  }
  stored.kind = {.format = is_int8 ? WeightFormat::kInt8 : WeightFormat::kInt4, .group_size = static_cast<int>(group)};
  return stored;
}

absl::StatusOr<std::unique_ptr<BuiltWeight>> ReadStoredInt(const StoredInt& stored) {
  auto built = std::make_unique<BuiltWeight>();
  const uint8_t* values = static_cast<const uint8_t*>(stored.values.data);
  built->values.assign(values, values + stored.values.num_bytes);
  built->scales.resize(stored.scales.num_bytes / sizeof(float));
  std::memcpy(built->scales.data(), stored.scales.data, stored.scales.num_bytes);
  if (!AreFinite(built->scales.data(), static_cast<int64_t>(built->scales.size()))) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", stored.name, kStoredScalesSuffix, " holds a value that is not finite"));
  }
  if (stored.kind.format == WeightFormat::kInt8) {
    // -128 has no place in symmetric int8; the kernels' sums are exact only without it.
    for (uint8_t& value : built->values) value = value == 0x80 ? 0x81 : value;
  }
  built->source = {.format = stored.kind.format, .n = stored.n, .k = stored.k, .group_size = stored.kind.group_size};
  built->PointSource();
  return built;
}

MatrixRows DequantizedRows(std::shared_ptr<const BuiltWeight> weight) {
  const WeightSource& source = weight->source;
  const int64_t n = source.n, k = source.k;
  return {.n = n,
          .k = k,
          .read =
              [weight = std::move(weight), k](int64_t row, float* out) {
                const WeightSource& source = weight->source;
                const int64_t group = source.group_size == 0 ? k : source.group_size;
                const bool is_int8 = source.format == WeightFormat::kInt8;
                const uint8_t* values = weight->values.data() + row * (is_int8 ? k : k / 2);
                for (int64_t i = 0; i < k; ++i) {
                  const size_t index = static_cast<size_t>(row * (k / group) + i / group);
                  const int zero = weight->zeros.empty() ? 8 : weight->zeros[index];
                  const int q = is_int8 ? static_cast<int8_t>(values[i]) : ((values[i / 2] >> (i % 2 * 4)) & 15) - zero;
                  out[i] = static_cast<float>(q) * weight->scales[index];
                }
              },
          .stored = {}};
}

}  // namespace millrace
