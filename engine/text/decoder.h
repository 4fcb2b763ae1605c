// SPDX-License-Identifier: Apache-2.0
// DecoderChain: how tokens become text, as plain steps (constant after construction, any thread), and DecodeStream:
// one run of the chain, token by token, owned by one thread. Whole texts are decoded by the same stream, so a streamed
// text and a text decoded at once cannot differ.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/text/split_pattern.h"

namespace millrace {

struct ByteLevelDecode {};  // from the byte-level alphabet to bytes

struct MetaspaceDecode {  // `replacement` becomes a space; at the start of the text it is dropped when `strips_start`
  std::string replacement = "\xE2\x96\x81";
  bool strips_start = true;
};

struct ByteFallbackDecode {};  // "<0x0A>" becomes that byte

struct FuseDecode {};  // the tokens are one text from here on

struct ReplaceDecode {
  SplitPattern pattern;
  std::string literal;  // the pattern's text when it is one, else empty
  std::string content;
};

// Drops up to `num_start` times `content` (one character) in front of each token, `num_stop` times behind it.
struct StripDecode {
  std::string content;
  size_t num_start = 0;
  size_t num_stop = 0;
};

struct WordPieceDecode {  // tokens without `prefix` begin a word
  std::string prefix = "##";
  bool cleanup = true;  // no space before punctuation and English contractions
};

struct SuffixDecode {  // `suffix` ends a word (BPEDecoder)
  std::string suffix = "</w>";
};

struct SpaceJoinDecode {};  // no decoder: tokens separated by spaces

using DecoderStep = std::variant<ByteLevelDecode, MetaspaceDecode, ByteFallbackDecode, FuseDecode, ReplaceDecode,
                                 StripDecode, WordPieceDecode, SuffixDecode, SpaceJoinDecode>;

class DecoderChain {
 public:
  // InvalidArgument for a chain that cannot stream: a regular expression after Fuse, say.
  static absl::StatusOr<DecoderChain> Create(std::vector<DecoderStep> steps);

  const std::vector<DecoderStep>& steps() const { return steps_; }
  // Whether step `index` sees pieces of one text instead of tokens.
  bool is_fused_at(size_t index) const { return index > fuse_index_; }
  // Bytes that form no character become one U+FFFD each (with ByteFallback), not one for each maximal part.
  bool replaces_each_byte() const { return replaces_each_byte_; }

 private:
  std::vector<DecoderStep> steps_;
  size_t fuse_index_ = SIZE_MAX;
  bool replaces_each_byte_ = false;
};

// Where a stream of tokens begins: at the start of a text, or behind text that is already there (then nothing is
// stripped in front).
enum class StreamStart : uint8_t { kText, kContinuation };

class DecodeStream {
 public:
  // `chain` must outlive the stream.
  DecodeStream(const DecoderChain& chain, StreamStart start);

  // Takes one token and appends the text that is certain now: complete UTF-8 only.
  void Push(std::string_view token, std::string& out);
  // Appends what was held back. The stream is over then.
  void Finish(std::string& out);
  // The bytes that `token` stands for in the middle of a text. REQUIRES: a kContinuation stream used for nothing else.
  std::string MiddleBytes(std::string_view token);

 private:
  enum class FlushAt : uint8_t { kEnd, kMiddle };

  struct StepState {
    bool has_seen_token = false;  // the next token is not the first
    size_t num_stripped = 0;      // at the start of a fused text
    bool start_is_over = false;
    std::string held;  // what a later token may still change
  };

  // Hands `text` to step `index`; behind the last one it joins pending_.
  void Feed(size_t index, std::string_view text);
  void Flush(FlushAt where);
  // Moves the complete characters of pending_ to `out`; at the end all of it.
  void Drain(bool at_end, std::string& out);

  void Run(size_t index, const ByteLevelDecode& step, std::string_view text);
  void Run(size_t index, const MetaspaceDecode& step, std::string_view text);
  void Run(size_t index, const ByteFallbackDecode& step, std::string_view text);
  void Run(size_t index, const FuseDecode& step, std::string_view text);
  void Run(size_t index, const ReplaceDecode& step, std::string_view text);
  void Run(size_t index, const StripDecode& step, std::string_view text);
  void Run(size_t index, const WordPieceDecode& step, std::string_view text);
  void Run(size_t index, const SuffixDecode& step, std::string_view text);
  void Run(size_t index, const SpaceJoinDecode& step, std::string_view text);
  void StripFused(size_t index, const StripDecode& step, std::string_view text);

  const DecoderChain& chain_;
  std::vector<StepState> states_;
  std::string pending_;  // bytes that left the chain and do not yet end a character
};

}  // namespace millrace
