// SPDX-License-Identifier: Apache-2.0
// Detokenizer: text of a running generation, token by token. Owned by one request, used by one thread at a time; the
// tokenizer must outlive it. Does not look for stop strings (see stop_strings.h).
#pragma once

#include <cstdint>
#include <string>

#include "engine/text/decoder.h"
#include "engine/text/tokenizer.h"

namespace millrace {

class Detokenizer {
 public:
  // `start`: kText for an answer that stands alone (a SentencePiece answer loses its first space, as in
  // Tokenizer::Decode), kContinuation for text that goes on where a prompt ended.
  Detokenizer(const Tokenizer& tokenizer, SkipSpecial skip, StreamStart start = StreamStart::kText)
      : tokenizer_(tokenizer), skip_(skip), stream_(tokenizer.decoder(), start) {}

  // Appends the text that is certain with this token: always complete UTF-8, perhaps nothing. All appended text
  // together, with Finish, equals Tokenizer::Decode of all ids. Unknown ids yield nothing.
  void Push(int32_t id, std::string& out);

  // Appends what is left: bytes that never became a character, as U+FFFD. No Push afterwards.
  void Finish(std::string& out);

 private:
  const Tokenizer& tokenizer_;
  const SkipSpecial skip_;
  DecodeStream stream_;
};

}  // namespace millrace
