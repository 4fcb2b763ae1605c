// SPDX-License-Identifier: Apache-2.0
#pragma once
// A GGUF file's bytes (versions 2 and 3, little-endian), checked: metadata and tensor descriptions. Plain functions,
// any thread. Views point into the bytes, which must outlive them. Format: ggml's docs/gguf.md.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// A metadata value whose bytes have been checked.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element_type = GgufType::kUint8;  // kArray
  uint64_t count = 1;                        // kArray: elements
  std::string_view bytes;                    // without an array's head; strings keep their length prefixes
};

// How a tensor's numbers are stored; the values are ggml's.
enum class GgmlType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // as Hugging Face writes it: rows first
  const void* data = nullptr;
  size_t num_bytes = 0;
};

struct GgufFile {
  absl::flat_hash_map<std::string, GgufValue> metadata;
  absl::flat_hash_map<std::string, GgufTensor> tensors;

  // The value of a key as the wanted kind; nothing when the key is absent. InvalidArgument: another kind, out of range.
  absl::StatusOr<std::optional<int64_t>> Int(const std::string& key) const;
  absl::StatusOr<std::optional<double>> Number(const std::string& key) const;
  absl::StatusOr<std::optional<bool>> Bool(const std::string& key) const;
  absl::StatusOr<std::optional<std::string>> String(const std::string& key) const;
  absl::StatusOr<std::vector<std::string>> Strings(const std::string& key) const;  // empty when absent
  absl::StatusOr<std::vector<float>> Floats(const std::string& key) const;
  absl::StatusOr<std::vector<int32_t>> Ints(const std::string& key) const;
};

std::string_view GgmlTypeName(GgmlType type);  // "Q4_0"

// InvalidArgument names the key or tensor and the fault; Unimplemented a tensor type that is not supported.
absl::StatusOr<GgufFile> ParseGguf(std::string_view bytes);

}  // namespace millrace
