// SPDX-License-Identifier: Apache-2.0
// Any bytes as user text, to fixed tokenizers of each kind. The first byte chooses the tokenizer, the second where the
// text is cut into segments.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/byte_alphabet.h"
#include "engine/text/scanners.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace {

using namespace millrace;

std::unique_ptr<Tokenizer> ByteLevel(const char* pre) {
  VocabSpec spec;
  spec.model = "gpt2";
  spec.pre = pre;
  for (int byte = 0; byte < 256; ++byte) {
    spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  }
  for (const char* token : {"he", "ll", "hell", "hello", "Ġt", "Ġthe", "ĠĠ", "Ã©"}) spec.tokens.emplace_back(token);
  spec.merges = {"h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "Ġ Ġ", "Ã ©"};
  spec.token_types.assign(spec.tokens.size(), VocabTokenType::kNormal);
  spec.tokens.emplace_back("<|end|>");
  spec.token_types.push_back(VocabTokenType::kControl);
  return std::move(Tokenizer::FromVocab(spec)).value();
}

std::unique_ptr<Tokenizer> Scored() {
  VocabSpec spec;
  spec.model = "llama";
  const auto add = [&](const std::string& token, float score, VocabTokenType type) {
    spec.tokens.push_back(token);
    spec.scores.push_back(score);
    spec.token_types.push_back(type);
  };
  add("<unk>", 0, VocabTokenType::kUnknown);
  add("<s>", 0, VocabTokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, 0, VocabTokenType::kByte);
  }
  float score = 0;
  for (const char* token : {"▁", "h", "e", "l", "o", "t", "he", "ll", "hell", "hello", "▁t", "▁the", "▁▁", "é"}) {
    add(token, score -= 1, VocabTokenType::kNormal);
  }
  return std::move(Tokenizer::FromVocab(spec)).value();
}

const std::vector<std::unique_ptr<Tokenizer>>& Tokenizers() {
  static const auto* all = [] {
    auto* list = new std::vector<std::unique_ptr<Tokenizer>>();
    for (const char* pre : {"default", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "smollm"}) {
      list->push_back(ByteLevel(pre));
    }
    list->push_back(Scored());
    return list;
  }();
  return *all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  if (num_bytes < 2) return 0;
  const Tokenizer& tokenizer = *Tokenizers()[data[0] % Tokenizers().size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, num_bytes - 2);
  const auto ids = tokenizer.Encode(text, SpecialTokens::kPlainText);
  if (!ids.ok()) std::abort();
  for (const int32_t id : *ids) {
    if (tokenizer.IsControl(id)) std::abort();
  }
  const bool normalizes = data[0] % Tokenizers().size() == 3;  // qwen2: NFC
  if (!normalizes) {
    std::string repaired;
    AppendRepairedUtf8(text, repaired);
    if (tokenizer.Decode(*ids, SkipSpecial::kNo) != repaired) std::abort();
  }
  // A template's token between two halves of user text appears exactly once.
  const size_t cut = data[1] % (text.size() + 1);
  const int32_t mark = tokenizer.TokenToId("<|end|>").value_or(1);
  const TextSegment segments[] = {{text.substr(0, cut), Trust::kUser},
                                  {tokenizer.IdToToken(mark), Trust::kTemplate},
                                  {text.substr(cut), Trust::kUser}};
  const auto parts = tokenizer.EncodeSegments(segments);
  if (!parts.ok()) std::abort();
  size_t num_control = 0;
  for (const int32_t id : *parts) num_control += tokenizer.IsControl(id) ? 1 : 0;
  if (num_control != 1) std::abort();
  return 0;
}
