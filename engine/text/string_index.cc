// SPDX-License-Identifier: Apache-2.0
#include "engine/text/string_index.h"

#include <bit>

namespace millrace {
namespace {

// Three quarters full at most.
size_t SlotsFor(size_t num_entries) { return std::bit_ceil(num_entries + num_entries / 3 + 8); }

uint64_t Mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9FB21C651E98DF25ull;
  return hash ^ (hash >> 32);
}

}  // namespace

PackedKey PackLong(std::string_view text) {
  uint64_t hash = text.size();
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    hash = Mix(hash, word);
  }
  uint64_t tail = 0;
  for (size_t shift = 0; i < text.size(); ++i, shift += 8) {
    tail |= uint64_t{static_cast<unsigned char>(text[i])} << shift;
  }
  // The top byte 0xFF tells a hash from a packed string.
  return {Mix(hash, tail), (uint64_t{0xFF} << 56) | (text.size() & 0xFFFFFFFF)};
}

void StringIndex::Reserve(size_t num_strings) {
  if (SlotsFor(num_strings) > slots_.size()) Rehash(SlotsFor(num_strings));
}

void StringIndex::Rehash(size_t num_slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(num_slots, Slot{});
  mask_ = num_slots - 1;
  for (const Slot& slot : old) {
    if (slot.value < 0) continue;
    size_t i = slot.key.Hash() & mask_;
    while (slots_[i].value >= 0) i = (i + 1) & mask_;
    slots_[i] = slot;
  }
}

bool StringIndex::Insert(std::string_view text, int32_t value) {
  const PackedKey key = Pack(text);
  if (Find(text, key) >= 0) return false;
  Reserve(num_strings_ + 1);
  size_t i = key.Hash() & mask_;
  while (slots_[i].value >= 0) i = (i + 1) & mask_;
  Slot& slot = slots_[i];
  slot.key = key;
  slot.value = value;
  if (!key.is_exact()) {
    slot.arena_begin = static_cast<uint32_t>(arena_.size());
    const uint32_t num_bytes = static_cast<uint32_t>(text.size());
    arena_.append(reinterpret_cast<const char*>(&num_bytes), 4);
    arena_.append(text);
  }
  ++num_strings_;
  return true;
}

void PairIndex::Reserve(size_t num_pairs) {
  if (SlotsFor(num_pairs) > slots_.size()) Rehash(SlotsFor(num_pairs));
}

void PairIndex::Rehash(size_t num_slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(num_slots, Slot{});
  mask_ = num_slots - 1;
  for (const Slot& slot : old) {
    if (slot.key == kEmpty) continue;
    size_t i = Hash(slot.key) & mask_;
    while (slots_[i].key != kEmpty) i = (i + 1) & mask_;
    slots_[i] = slot;
  }
}

void PairIndex::Set(int32_t left, int32_t right, Merge merge) {
  Reserve(num_pairs_ + 1);
  const uint64_t key = Key(left, right);
  size_t i = Hash(key) & mask_;
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  if (slots_[i].key == kEmpty) ++num_pairs_;
  slots_[i] = {key, merge};
}

}  // namespace millrace
