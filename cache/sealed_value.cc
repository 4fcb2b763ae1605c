// SPDX-License-Identifier: Apache-2.0
#include "cache/sealed_value.h"

#include <cstring>

namespace millrace {
namespace {

//   "MRC1" | milliseconds since 1970 (8, little-endian) | first 16 bytes of SHA-256 over key, time and payload |
//   payload
constexpr std::string_view kVersion = "MRC1";
constexpr size_t kTimeBytes = 8;
constexpr size_t kSumBytes = 16;
constexpr size_t kHeadBytes = kVersion.size() + kTimeBytes + kSumBytes;

std::string Checksum(const CacheKey& key, std::string_view time, std::string_view payload) {
  KeyHasher hasher("millrace sealed value");
  hasher.Add(std::string_view(reinterpret_cast<const char*>(key.digest.data()), key.digest.size()));
  hasher.Add(time);
  hasher.Add(payload);
  const Digest digest = hasher.Finish();
  return std::string(reinterpret_cast<const char*>(digest.data()), kSumBytes);
}

}  // namespace

std::string SealValue(const CacheKey& key, absl::Time stored, std::string_view payload) {
  std::string time;
  const auto milliseconds = static_cast<uint64_t>(absl::ToUnixMillis(stored));
  for (size_t i = 0; i < kTimeBytes; ++i) time += static_cast<char>(milliseconds >> (8 * i));
  std::string sealed(kVersion);
  sealed.reserve(kHeadBytes + payload.size());
  sealed += time;
  sealed += Checksum(key, time, payload);
  sealed += payload;
  return sealed;
}

std::optional<OpenedValue> OpenValue(const CacheKey& key, std::string_view sealed) {
  if (sealed.size() < kHeadBytes || !sealed.starts_with(kVersion)) return std::nullopt;
  const std::string_view time = sealed.substr(kVersion.size(), kTimeBytes);
  const std::string_view payload = sealed.substr(kHeadBytes);
  if (sealed.substr(kVersion.size() + kTimeBytes, kSumBytes) != Checksum(key, time, payload)) return std::nullopt;
  uint64_t milliseconds = 0;
  for (size_t i = 0; i < kTimeBytes; ++i) milliseconds |= uint64_t{static_cast<uint8_t>(time[i])} << (8 * i);
  return OpenedValue{.payload = payload, .stored = absl::FromUnixMillis(static_cast<int64_t>(milliseconds))};
}

}  // namespace millrace
