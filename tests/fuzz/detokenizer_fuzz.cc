// SPDX-License-Identifier: Apache-2.0
// Any ids through the detokenizer and the stop matcher: valid UTF-8 at every step, equal to decoding at once, and the
// stop strings found where a search of the whole text finds them. Two bytes are an id; the first byte chooses.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/text/byte_alphabet.h"
#include "engine/text/detokenizer.h"
#include "engine/text/stop_strings.h"
#include "engine/text/utf8.h"

namespace {

using namespace millrace;

std::unique_ptr<Tokenizer> Make(bool byte_level) {
  VocabSpec spec;
  spec.model = byte_level ? "gpt2" : "llama";
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    spec.tokens.push_back(byte_level ? BytesToAlphabet(std::string(1, static_cast<char>(byte))) : name);
    spec.token_types.push_back(byte_level ? VocabTokenType::kNormal : VocabTokenType::kByte);
  }
  for (const char* token : {"▁", "ab", "▁a", "aba", "é", "日本", "##"}) {
    spec.tokens.emplace_back(token);
    spec.token_types.push_back(VocabTokenType::kNormal);
  }
  spec.tokens.emplace_back("<|end|>");
  spec.token_types.push_back(VocabTokenType::kControl);
  spec.scores.assign(spec.tokens.size(), 0.0f);
  return std::move(Tokenizer::FromVocab(spec)).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  static const auto* byte_level = Make(true).release();
  static const auto* scored = Make(false).release();
  if (num_bytes == 0) return 0;
  const Tokenizer& tokenizer = (data[0] & 1) != 0 ? *byte_level : *scored;
  const SkipSpecial skip = (data[0] & 2) != 0 ? SkipSpecial::kYes : SkipSpecial::kNo;
  std::vector<int32_t> ids;
  for (size_t i = 1; i + 1 < num_bytes; i += 2) ids.push_back((data[i] | (data[i + 1] << 8)) % 300 - 2);
  const std::vector<std::string> stops = {"aba", "ab##", "é日", "\uFFFD\uFFFD\uFFFD"};
  auto matcher = std::move(StopMatcher::Create(stops, IncludeStop::kNo)).value();
  Detokenizer stream(tokenizer, skip);
  std::string streamed;
  std::string stopped;
  const auto take = [&](const std::string& delta) {
    if (!IsValidUtf8(delta)) std::abort();
    streamed += delta;
    matcher.Push(delta, stopped);
    if (!IsValidUtf8(stopped)) std::abort();
  };
  for (const int32_t id : ids) {
    std::string delta;
    stream.Push(id, delta);
    take(delta);
  }
  std::string rest;
  stream.Finish(rest);
  take(rest);
  matcher.Flush(stopped);
  if (streamed != tokenizer.Decode(ids, skip)) std::abort();
  size_t first_end = std::string::npos;
  for (const std::string& stop : stops) {
    const size_t at = streamed.find(stop);
    if (at != std::string::npos) first_end = std::min(first_end, at + stop.size());
  }
  if (matcher.matched_index().has_value() != (first_end != std::string::npos)) std::abort();
  if (!matcher.matched_index() && stopped != streamed) std::abort();
  if (streamed.compare(0, stopped.size(), stopped) != 0) std::abort();
  return 0;
}
