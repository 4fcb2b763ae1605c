// SPDX-License-Identifier: Apache-2.0
#pragma once
// What names a stored answer: a digest of everything that decides it, within the tenant and model it belongs to. Plain
// values, any thread.
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace millrace {

using Digest = std::array<uint8_t, 32>;  // SHA-256

struct CacheKey {
  std::string tenant;  // empty: the anonymous one
  std::string model;   // the name it is served by
  Digest digest{};     // of these two as well: see KeyHasher
  friend bool operator==(const CacheKey&, const CacheKey&) = default;
};

// Which entries a purge takes: all where a field is left out.
struct PurgeScope {
  std::optional<std::string> tenant, model;
  bool Covers(const CacheKey& key) const {
    return (!tenant || *tenant == key.tenant) && (!model || *model == key.model);
  }
};

// A digest of fields in order. Every field carries its kind and length, so that no two different lists of fields are
// the same bytes: {"ab", "c"} is not {"a", "bc"}, and an absent value is not an empty one.
class KeyHasher {
 public:
  // `purpose` keeps digests of different things apart.
  explicit KeyHasher(std::string_view purpose) { Add(purpose); }

  void Add(std::string_view bytes);
  void Add(const std::string& bytes) { Add(std::string_view(bytes)); }
  void Add(const char* bytes) { Add(std::string_view(bytes)); }
  void Add(std::span<const int32_t> numbers);
  void Add(int64_t number);
  void Add(int32_t number) { Add(int64_t{number}); }
  void Add(uint64_t number) { Add(static_cast<int64_t>(number)); }
  void Add(bool claim) { Add(int64_t{claim}); }
  // By its bits, but for the two zeros, which mean the same.
  void Add(double number);
  void Add(float number) { Add(double{number}); }
  template <typename T>
  void Add(const std::optional<T>& value) {
    AddKind(value ? 'v' : 'a', 0);
    if (value) Add(*value);
  }
  // Before the items of a list.
  void AddCount(size_t num_items) { AddKind('l', num_items); }

  Digest Finish() const;

 private:
  void AddKind(char kind, uint64_t number);

  std::string bytes_;
};

Digest Sha256(std::string_view bytes);

}  // namespace millrace
