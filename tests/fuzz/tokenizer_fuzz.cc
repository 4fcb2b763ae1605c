// SPDX-License-Identifier: Apache-2.0
// Any bytes as a tokenizer.json: an error or a tokenizer that works. What follows a zero byte is text for it.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/text/detokenizer.h"
#include "engine/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  const std::string_view input(reinterpret_cast<const char*>(data), num_bytes);
  const size_t border = input.find('\0');
  const std::string_view json = input.substr(0, border);
  const std::string_view text = border == std::string_view::npos ? "Hello <s> the\n 12 \xC3" : input.substr(border + 1);
  const auto tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer.ok()) return 0;
  const Tokenizer& t = **tokenizer;
  const auto ids = t.Encode(text, SpecialTokens::kPlainText);
  if (!ids.ok()) return 0;
  for (const int32_t id : *ids) {
    if (!t.HasId(id) || (t.IsControl(id) && t.unk_id() != id)) std::abort();
  }
  const std::string whole = t.Decode(*ids, SkipSpecial::kNo);
  Detokenizer stream(t, SkipSpecial::kNo);
  std::string streamed;
  for (const int32_t id : *ids) stream.Push(id, streamed);
  stream.Finish(streamed);
  if (streamed != whole || !IsValidUtf8(whole)) std::abort();
  (void)t.Encode(text, SpecialTokens::kParse, Framing::kTemplate);
  return 0;
}
