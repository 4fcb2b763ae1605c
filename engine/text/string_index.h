// SPDX-License-Identifier: Apache-2.0
// StringIndex: from the bytes of a token to its number, one cache miss a look-up for short tokens; and PairIndex, from
// two neighbouring symbols to the merge that joins them. Built by one thread, constant afterwards.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

// Up to 15 bytes packed with their count, so that equal keys mean equal strings; longer strings give a hash.
struct PackedKey {
  uint64_t low;
  uint64_t high;

  bool operator==(const PackedKey&) const = default;
  bool is_exact() const { return (high >> 56) < 16; }
  uint64_t Hash() const {
    uint64_t h = (low ^ (high * 0x9E3779B97F4A7C15ull)) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93ull;
    return h ^ (h >> 29);
  }
};

PackedKey PackLong(std::string_view text);

inline PackedKey Pack(std::string_view text) {
  const char* p = text.data();
  const size_t num_bytes = text.size();
  const auto load8 = [](const char* q) {
    uint64_t value;
    std::memcpy(&value, q, 8);
    return value;
  };
  const auto load4 = [](const char* q) {
    uint32_t value;
    std::memcpy(&value, q, 4);
    return uint64_t{value};
  };
  if (num_bytes > 15) return PackLong(text);
  const uint64_t count = uint64_t{num_bytes} << 56;
  if (num_bytes > 8) return {load8(p), (load8(p + num_bytes - 8) >> (8 * (16 - num_bytes))) | count};
  if (num_bytes == 8) return {load8(p), count};
  if (num_bytes >= 4) return {load4(p) | (load4(p + num_bytes - 4) << (8 * (num_bytes - 4))), count};
  uint64_t low = 0;
  for (size_t i = 0; i < num_bytes; ++i) low |= uint64_t{static_cast<unsigned char>(p[i])} << (8 * i);
  return {low, count};
}

class StringIndex {
 public:
  void Reserve(size_t num_strings);
  // False, and no change, when the string is there already. REQUIRES: value >= 0.
  bool Insert(std::string_view text, int32_t value);
  // -1 when absent.
  int32_t Find(std::string_view text) const { return Find(text, Pack(text)); }
  int32_t Find(std::string_view text, const PackedKey& key) const {
    if (slots_.empty()) return -1;
    for (size_t i = key.Hash() & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.value < 0) return -1;
      if (slot.key == key && (key.is_exact() || LongText(slot) == text)) return slot.value;
    }
  }
  size_t size() const { return num_strings_; }

 private:
  struct Slot {
    PackedKey key{0, 0};
    int32_t value = -1;
    uint32_t arena_begin = 0;  // of strings above 15 bytes
  };

  std::string_view LongText(const Slot& slot) const {
    uint32_t num_bytes;
    std::memcpy(&num_bytes, arena_.data() + slot.arena_begin, 4);
    return {arena_.data() + slot.arena_begin + 4, num_bytes};
  }
  void Rehash(size_t num_slots);

  std::vector<Slot> slots_;
  std::string arena_;
  size_t mask_ = 0;
  size_t num_strings_ = 0;
};

struct Merge {
  uint32_t rank;  // lower merges first; kNone: the pair does not merge
  int32_t id;     // the symbol it becomes

  static constexpr uint32_t kNone = UINT32_MAX;
};

class PairIndex {
 public:
  void Reserve(size_t num_pairs);
  void Set(int32_t left, int32_t right, Merge merge);  // the last word counts
  Merge Find(int32_t left, int32_t right) const {
    if (slots_.empty()) return {Merge::kNone, -1};
    const uint64_t key = Key(left, right);
    for (size_t i = Hash(key) & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return slot.merge;
      if (slot.key == kEmpty) return {Merge::kNone, -1};
    }
  }
  size_t size() const { return num_pairs_; }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{Merge::kNone, -1};
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }
  static size_t Hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15ull;
    return key ^ (key >> 32);
  }
  void Rehash(size_t num_slots);

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t num_pairs_ = 0;
};

}  // namespace millrace
