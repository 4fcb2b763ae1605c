// SPDX-License-Identifier: Apache-2.0
// BpeModel: byte-pair encoding of one piece of text (Sennrich et al., "Neural Machine Translation of Rare Words with
// Subword Units", 2016), in the byte-level and the SentencePiece shape. Constant after construction, any thread; what
// a call writes lies in the caller's EncodeScratch.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/string_index.h"

namespace millrace {

// A token as the model reads it: raw bytes for a byte-level model, else UTF-8 text.
struct ModelToken {
  std::string_view text;
  int32_t id;
};

// `left` and `right` become `result`; a lower rank merges first, at equal ranks the leftmost.
struct MergeRule {
  int32_t left;
  int32_t right;
  int32_t result;
  uint32_t rank;
};

// The ids of words seen earlier in the same call. A slot holds one word; a newer word takes the slot.
class WordCache {
 public:
  struct Slot {
    std::string_view word;
    uint32_t ids_begin = 0;  // in the call's output
    uint32_t num_ids = 0;
  };

  // A slot for every eight bytes: a short text would pay more for clearing many than it saves.
  void EnableFor(size_t text_bytes) {
    if (text_bytes < kMinTextBytes) return;
    slots_.resize(std::min(kMaxSlots, std::bit_ceil(text_bytes / 8)));
  }
  Slot* SlotFor(uint64_t hash) { return slots_.empty() ? nullptr : &slots_[hash & (slots_.size() - 1)]; }

 private:
  static constexpr size_t kMaxSlots = 8192;
  static constexpr size_t kMinTextBytes = 512;
  std::vector<Slot> slots_;
};

// Memory of one Encode call. Words and pieces given to the model must outlive it.
struct EncodeScratch {
  struct Node {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t left;
    int32_t right;
    int32_t result;
  };

  WordCache cache;
  std::vector<int32_t> symbols;
  std::vector<Node> nodes;
  std::vector<Candidate> heap;
};

class BpeModel {
 public:
  struct Options {
    bool byte_level = false;     // pieces are raw bytes; excludes byte_fallback, prefix and suffix
    bool ignore_merges = false;  // a piece that is a token is that token
    bool fuse_unk = false;       // neighbouring unknown characters give one unknown token
    std::optional<int32_t> unk_id;
    std::array<int32_t, 256> byte_ids = NoBytes();  // token of each byte for byte fallback; all -1: none
    std::string continuing_prefix;                  // in front of all symbols of a piece but the first
    std::string word_suffix;                        // behind the last symbol of a piece

    static std::array<int32_t, 256> NoBytes() {
      std::array<int32_t, 256> ids;
      ids.fill(-1);
      return ids;
    }
  };

  // `tokens`: those the model may produce, so without control tokens; rules that name other tokens never apply.
  // `num_ids`: more than any id. `has_virtual_chars`: a character without token may still begin a merge of `rules`;
  // such rules name it by num_ids plus its position in `virtual_chars`.
  BpeModel(Options options, const std::vector<ModelToken>& tokens, const std::vector<MergeRule>& rules, int32_t num_ids,
           std::vector<std::string> virtual_chars = {});

  // Appends the ids of `piece`. A character that has neither token, bytes nor unknown token is dropped.
  void Encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  enum Canonical : uint8_t { kUntested, kYes, kNo };

  void EncodeWord(std::string_view word, EncodeScratch& scratch, std::vector<int32_t>& ids) const;
  void MergeWord(std::string_view word, EncodeScratch& scratch, std::vector<int32_t>& ids) const;
  void ToSymbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void CharsToSymbols(std::string_view word, std::vector<int32_t>& symbols) const;
  bool AppendByteSymbols(std::string_view text, std::vector<int32_t>& symbols) const;
  int32_t CharSymbol(std::string_view text) const;
  void MergeShort(std::vector<int32_t>& symbols) const;
  void MergeLong(EncodeScratch& scratch) const;
  void Propose(int32_t position, EncodeScratch& scratch) const;
  void AppendVirtual(int32_t symbol, std::vector<int32_t>& ids) const;
  bool IsCanonical(int32_t id, std::string_view word, EncodeScratch& scratch) const;
  bool IsKnownChar(char32_t code_point, std::string_view text) const {
    return code_point < known_chars_.size() ? known_chars_[code_point] : tokens_.Find(text) >= 0;
  }
  void LearnJoints(const std::vector<ModelToken>& tokens, const std::vector<MergeRule>& rules);

  Options options_;
  int32_t num_ids_;
  StringIndex tokens_;
  PairIndex merges_;
  std::array<int32_t, 256> byte_symbols_;  // byte-level: the symbol of each byte, -1 for none
  std::vector<std::string> virtual_chars_;
  StringIndex virtual_index_;
  // Pairs of code points that stand next to each other in some merge's result: between any other two known characters
  // no merge can happen, so a piece is cut there.
  PairIndex joints_;
  bool cuts_pieces_ = false;
  std::vector<bool> known_chars_;  // code points below U+10000 that are tokens
  // Whether merging a token's own text gives that one token. Learnt at first use; every thread learns the same.
  std::unique_ptr<std::atomic<uint8_t>[]> canonical_;
};

}  // namespace millrace
