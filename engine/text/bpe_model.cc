// SPDX-License-Identifier: Apache-2.0
#include "engine/text/bpe_model.h"

#include <algorithm>

#include "engine/text/utf8.h"

namespace millrace {
namespace {

// Up to here scanning all ranks for the least beats a heap.
constexpr size_t kMaxShortSymbols = 48;

bool HeapLater(const EncodeScratch::Candidate& a, const EncodeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

}  // namespace

BpeModel::BpeModel(Options options, const std::vector<ModelToken>& tokens, const std::vector<MergeRule>& rules,
                   int32_t num_ids, std::vector<std::string> virtual_chars)
    : options_(std::move(options)), num_ids_(num_ids), virtual_chars_(std::move(virtual_chars)) {
  tokens_.Reserve(tokens.size());
  byte_symbols_.fill(-1);
  std::vector<bool> producible(static_cast<size_t>(num_ids) + virtual_chars_.size());
  for (const ModelToken& token : tokens) {
    if (!tokens_.Insert(token.text, token.id)) continue;
    producible[token.id] = true;
    if (options_.byte_level && token.text.size() == 1) {
      byte_symbols_[static_cast<uint8_t>(token.text.front())] = token.id;
    }
  }
  for (size_t i = 0; i < virtual_chars_.size(); ++i) {
    virtual_index_.Insert(virtual_chars_[i], num_ids + static_cast<int32_t>(i));
  }
  merges_.Reserve(rules.size());
  for (const MergeRule& rule : rules) {
    if (producible[rule.result]) merges_.Set(rule.left, rule.right, {rule.rank, rule.result});
  }
  canonical_ = std::make_unique<std::atomic<uint8_t>[]>(num_ids);
  if (!options_.byte_level && options_.continuing_prefix.empty() && options_.word_suffix.empty()) {
    LearnJoints(tokens, rules);
  }
}

void BpeModel::LearnJoints(const std::vector<ModelToken>& tokens, const std::vector<MergeRule>& rules) {
  known_chars_.assign(0x10000, false);
  for (const ModelToken& token : tokens) {
    if (token.text.empty()) continue;
    const Utf8Char first = Utf8At(token.text, 0);
    const bool is_char = first.num_bytes == token.text.size() && first.code_point < known_chars_.size();
    if (is_char) known_chars_[first.code_point] = true;
  }
  std::vector<bool> is_result(num_ids_);
  for (const MergeRule& rule : rules) is_result[rule.result] = true;
  for (const ModelToken& token : tokens) {
    if (!is_result[token.id] || token.text.empty()) continue;
    Utf8Char previous = Utf8At(token.text, 0);
    for (size_t i = previous.num_bytes; i < token.text.size();) {
      const Utf8Char c = Utf8At(token.text, i);
      joints_.Set(static_cast<int32_t>(previous.code_point), static_cast<int32_t>(c.code_point), {0, 0});
      i += c.num_bytes;
      previous = c;
    }
  }
  cuts_pieces_ = true;
}

void BpeModel::Encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& ids) const {
  if (!cuts_pieces_) return EncodeWord(piece, scratch, ids);
  if (options_.ignore_merges) {
    if (const int32_t id = tokens_.Find(piece); id >= 0) return ids.push_back(id);
  }
  size_t word_begin = 0;
  Utf8Char previous = Utf8At(piece, 0);
  for (size_t i = previous.num_bytes; i < piece.size();) {
    const Utf8Char c = Utf8At(piece, i);
    // Unknown characters may become bytes or a fused unknown token, which the joints know nothing about.
    if (joints_.Find(static_cast<int32_t>(previous.code_point), static_cast<int32_t>(c.code_point)).rank ==
            Merge::kNone &&
        IsKnownChar(previous.code_point, piece.substr(i - previous.num_bytes, previous.num_bytes)) &&
        IsKnownChar(c.code_point, piece.substr(i, c.num_bytes))) {
      EncodeWord(piece.substr(word_begin, i - word_begin), scratch, ids);
      word_begin = i;
    }
    i += c.num_bytes;
    previous = c;
  }
  EncodeWord(piece.substr(word_begin), scratch, ids);
}

void BpeModel::EncodeWord(std::string_view word, EncodeScratch& scratch, std::vector<int32_t>& ids) const {
  const PackedKey key = Pack(word);
  if (const int32_t id = tokens_.Find(word, key); id >= 0) {
    const bool whole_piece = options_.ignore_merges && !cuts_pieces_;
    if (whole_piece || IsCanonical(id, word, scratch)) return ids.push_back(id);
  }
  WordCache::Slot* slot = scratch.cache.SlotFor(key.Hash() >> 20);
  if (slot != nullptr && slot->word == word && !word.empty()) {
    ids.resize(ids.size() + slot->num_ids);
    std::copy_n(ids.begin() + slot->ids_begin, slot->num_ids, ids.end() - slot->num_ids);
    return;
  }
  const size_t ids_begin = ids.size();
  MergeWord(word, scratch, ids);
  if (slot != nullptr) *slot = {word, static_cast<uint32_t>(ids_begin), static_cast<uint32_t>(ids.size() - ids_begin)};
}

bool BpeModel::IsCanonical(int32_t id, std::string_view word, EncodeScratch& scratch) const {
  const uint8_t known = canonical_[id].load(std::memory_order_relaxed);
  if (known != kUntested) return known == kYes;
  std::vector<int32_t> ids;
  MergeWord(word, scratch, ids);
  const bool yes = ids.size() == 1 && ids[0] == id;
  canonical_[id].store(yes ? kYes : kNo, std::memory_order_relaxed);
  return yes;
}

void BpeModel::MergeWord(std::string_view word, EncodeScratch& scratch, std::vector<int32_t>& ids) const {
  scratch.symbols.clear();
  ToSymbols(word, scratch.symbols);
  if (scratch.symbols.size() <= kMaxShortSymbols) {
    MergeShort(scratch.symbols);
  } else {
    MergeLong(scratch);
  }
  if (virtual_chars_.empty()) {
    ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
    return;
  }
  for (const int32_t symbol : scratch.symbols) {
    if (symbol < num_ids_) {
      ids.push_back(symbol);
    } else {
      AppendVirtual(symbol, ids);
    }
  }
}

void BpeModel::AppendVirtual(int32_t symbol, std::vector<int32_t>& ids) const {
  if (AppendByteSymbols(virtual_chars_[symbol - num_ids_], ids)) return;
  if (options_.unk_id) ids.push_back(*options_.unk_id);
}

void BpeModel::ToSymbols(std::string_view word, std::vector<int32_t>& symbols) const {
  if (!options_.byte_level) return CharsToSymbols(word, symbols);
  for (const char c : word) {
    const int32_t symbol = byte_symbols_[static_cast<uint8_t>(c)];
    if (symbol >= 0) {
      symbols.push_back(symbol);
    } else if (options_.unk_id && !(options_.fuse_unk && !symbols.empty() && symbols.back() == *options_.unk_id)) {
      symbols.push_back(*options_.unk_id);
    }
  }
}

int32_t BpeModel::CharSymbol(std::string_view text) const {
  const int32_t id = tokens_.Find(text);
  return id >= 0 || virtual_chars_.empty() ? id : virtual_index_.Find(text);
}

bool BpeModel::AppendByteSymbols(std::string_view text, std::vector<int32_t>& symbols) const {
  for (const char c : text) {
    if (options_.byte_ids[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (const char c : text) symbols.push_back(options_.byte_ids[static_cast<uint8_t>(c)]);
  return true;
}

// An unknown character waits (`pending`) for the next known one, so that neighbours can be fused; byte tokens do not
// end the wait, which is the order the reference implementation gives.
void BpeModel::CharsToSymbols(std::string_view word, std::vector<int32_t>& symbols) const {
  bool pending = false;
  std::string decorated;
  for (size_t i = 0; i < word.size();) {
    const uint32_t num_bytes = Utf8At(word, i).num_bytes;
    std::string_view text = word.substr(i, num_bytes);
    const bool needs_prefix = i > 0 && !options_.continuing_prefix.empty();
    i += num_bytes;
    const bool needs_suffix = i == word.size() && !options_.word_suffix.empty();
    if (needs_prefix || needs_suffix) {
      decorated.clear();
      if (needs_prefix) decorated += options_.continuing_prefix;
      decorated.append(text);
      if (needs_suffix) decorated += options_.word_suffix;
      text = decorated;
    }
    if (const int32_t symbol = CharSymbol(text); symbol >= 0) {
      if (pending) symbols.push_back(*options_.unk_id);
      pending = false;
      symbols.push_back(symbol);
      continue;
    }
    if (AppendByteSymbols(text, symbols) || !options_.unk_id) continue;
    if (pending && !options_.fuse_unk) symbols.push_back(*options_.unk_id);
    pending = true;
  }
  if (pending) symbols.push_back(*options_.unk_id);
}

void BpeModel::MergeShort(std::vector<int32_t>& symbols) const {
  size_t num_symbols = symbols.size();
  if (num_symbols < 2) return;
  std::array<Merge, kMaxShortSymbols> merges;  // merges[i] joins symbols i and i + 1
  for (size_t i = 0; i + 1 < num_symbols; ++i) merges[i] = merges_.Find(symbols[i], symbols[i + 1]);
  while (num_symbols > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < num_symbols; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::kNone) break;
    symbols[best] = merges[best].id;
    for (size_t i = best + 1; i + 1 < num_symbols; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 2 < num_symbols; ++i) merges[i] = merges[i + 1];
    --num_symbols;
    if (best > 0) merges[best - 1] = merges_.Find(symbols[best - 1], symbols[best]);
    if (best + 1 < num_symbols) merges[best] = merges_.Find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(num_symbols);
}

void BpeModel::Propose(int32_t position, EncodeScratch& scratch) const {
  const EncodeScratch::Node& left = scratch.nodes[position];
  if (left.next < 0) return;
  const int32_t right_id = scratch.nodes[left.next].id;
  const Merge merge = merges_.Find(left.id, right_id);
  if (merge.rank == Merge::kNone) return;
  scratch.heap.push_back({merge.rank, position, left.id, right_id, merge.id});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), HeapLater);
}

void BpeModel::MergeLong(EncodeScratch& scratch) const {
  auto& nodes = scratch.nodes;
  const int32_t num_symbols = static_cast<int32_t>(scratch.symbols.size());
  nodes.resize(num_symbols);
  scratch.heap.clear();
  for (int32_t i = 0; i < num_symbols; ++i) nodes[i] = {scratch.symbols[i], i - 1, i + 1 < num_symbols ? i + 1 : -1};
  for (int32_t i = 0; i < num_symbols; ++i) Propose(i, scratch);
  while (!scratch.heap.empty()) {
    const EncodeScratch::Candidate top = scratch.heap.front();
    std::pop_heap(scratch.heap.begin(), scratch.heap.end(), HeapLater);
    scratch.heap.pop_back();
    EncodeScratch::Node& left = nodes[top.position];
    // A candidate is stale once either side has been merged into something else; swallowed nodes carry id -1.
    if (left.id != top.left || left.next < 0 || nodes[left.next].id != top.right) continue;
    EncodeScratch::Node& right = nodes[left.next];
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) nodes[left.next].previous = top.position;
    if (left.previous >= 0) Propose(left.previous, scratch);
    Propose(top.position, scratch);
  }
  scratch.symbols.clear();
  for (int32_t i = 0; i >= 0 && i < num_symbols; i = nodes[i].next) scratch.symbols.push_back(nodes[i].id);
}

}  // namespace millrace
