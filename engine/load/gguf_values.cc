// SPDX-License-Identifier: Apache-2.0
// GgufFile's typed look at its metadata.
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/load/gguf.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

absl::Status WrongKind(const std::string& key, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF: key '", key, "' is not ", wanted));
}

template <typename T>
T Read(std::string_view bytes) {
  T value;
  bytes.copy(reinterpret_cast<char*>(&value), sizeof(T));
  return value;
}

std::optional<int64_t> ToInt(GgufType type, std::string_view bytes) {
  switch (type) {
    case GgufType::kUint8:
      return Read<uint8_t>(bytes);
    case GgufType::kInt8:
      return Read<int8_t>(bytes);
    case GgufType::kUint16:
      return Read<uint16_t>(bytes);
    case GgufType::kInt16:
      return Read<int16_t>(bytes);
    case GgufType::kUint32:
      return Read<uint32_t>(bytes);
    case GgufType::kInt32:
      return Read<int32_t>(bytes);
    case GgufType::kInt64:
      return Read<int64_t>(bytes);
    case GgufType::kUint64: {
      const uint64_t value = Read<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

// The bytes of an array whose elements have `type`; empty when the key is absent.
absl::StatusOr<const GgufValue*> FindArray(const GgufFile& file, const std::string& key, GgufType type,
                                           const char* wanted) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) return nullptr;
  if (found->second.type != GgufType::kArray || found->second.element_type != type) return WrongKind(key, wanted);
  return &found->second;
}

}  // namespace

absl::StatusOr<std::optional<int64_t>> GgufFile::Int(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  const std::optional<int64_t> value = ToInt(found->second.type, found->second.bytes);
  if (!value.has_value()) return WrongKind(key, "a whole number");
  return value;
}

absl::StatusOr<std::optional<double>> GgufFile::Number(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  if (found->second.type == GgufType::kFloat32) return Read<float>(found->second.bytes);
  if (found->second.type == GgufType::kFloat64) return Read<double>(found->second.bytes);
  const std::optional<int64_t> value = ToInt(found->second.type, found->second.bytes);
  if (!value.has_value()) return WrongKind(key, "a number");
  return static_cast<double>(*value);
}

absl::StatusOr<std::optional<bool>> GgufFile::Bool(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  if (found->second.type != GgufType::kBool) return WrongKind(key, "a truth value");
  return found->second.bytes[0] != 0;
}

absl::StatusOr<std::optional<std::string>> GgufFile::String(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  if (found->second.type != GgufType::kString) return WrongKind(key, "a string");
  return std::string(found->second.bytes.substr(sizeof(uint64_t)));
}

absl::StatusOr<std::vector<std::string>> GgufFile::Strings(const std::string& key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, FindArray(*this, key, GgufType::kString, "a list of strings"));
  std::vector<std::string> strings;
  if (value == nullptr) return strings;
  strings.reserve(value->count);
  std::string_view rest = value->bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t num_bytes = Read<uint64_t>(rest);
    strings.emplace_back(rest.substr(sizeof(uint64_t), num_bytes));
    rest.remove_prefix(sizeof(uint64_t) + num_bytes);
  }
  return strings;
}

absl::StatusOr<std::vector<float>> GgufFile::Floats(const std::string& key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, FindArray(*this, key, GgufType::kFloat32, "a list of floats"));
  std::vector<float> floats(value == nullptr ? 0 : value->count);
  if (!floats.empty()) std::memcpy(floats.data(), value->bytes.data(), value->bytes.size());
  return floats;
}

absl::StatusOr<std::vector<int32_t>> GgufFile::Ints(const std::string& key) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::vector<int32_t>();
  const GgufValue& value = found->second;
  const bool is_int = value.element_type == GgufType::kInt32 || value.element_type == GgufType::kUint32;
  if (value.type != GgufType::kArray || !is_int) return WrongKind(key, "a list of whole numbers");
  std::vector<int32_t> ints(value.count);
  if (!ints.empty()) std::memcpy(ints.data(), value.bytes.data(), value.bytes.size());
  return ints;
}

}  // namespace millrace
