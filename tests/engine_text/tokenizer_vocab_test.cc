// SPDX-License-Identifier: Apache-2.0
// Tokenizers from GGUF vocabularies.
#include <cstring>

#include "engine/text/byte_alphabet.h"
#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

using testing::EncodeOrDie;

std::unique_ptr<Tokenizer> FromVocab(const VocabSpec& spec) {
  auto tokenizer = Tokenizer::FromVocab(spec);
  INFO(tokenizer.status().message());
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

VocabSpec SmallScored() {
  VocabSpec spec;
  spec.model = "llama";
  const auto add = [&](const std::string& token, float score, VocabTokenType type = VocabTokenType::kNormal) {
    spec.tokens.push_back(token);
    spec.scores.push_back(score);
    spec.token_types.push_back(type);
  };
  add("<unk>", 0, VocabTokenType::kUnknown);
  add("<s>", 0, VocabTokenType::kControl);
  add("</s>", 0, VocabTokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, 0, VocabTokenType::kByte);
  }
  add("▁", -1);                                    // 259
  add("a", -2);                                    // 260
  add("b", -3);                                    // 261
  add("ab", -10);                                  // 262
  add("▁a", -9);                                   // 263
  add("ba", -9);                                   // 264
  add("bab", -20);                                 // 265
  add("qz", -30);                                  // 266: neither q nor z is a token
  add("<tool>", 0, VocabTokenType::kUserDefined);  // 267
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.unk_id = 0;
  spec.add_bos = true;
  return spec;
}

TEST_CASE("GGUF llama vocabulary: the best score merges first, the leftmost at equal scores", "[tokenizer]") {
  const auto tokenizer = FromVocab(SmallScored());
  CHECK(EncodeOrDie(*tokenizer, "ab") == std::vector<int32_t>{263, 261});   // "▁a" before "ab"
  CHECK(EncodeOrDie(*tokenizer, "bab") == std::vector<int32_t>{259, 265});  // "ba", then "bab"
  CHECK(EncodeOrDie(*tokenizer, "baba") == std::vector<int32_t>{259, 264, 264});
  CHECK(EncodeOrDie(*tokenizer, "qz") == std::vector<int32_t>{259, 266});     // characters without tokens still merge
  CHECK(EncodeOrDie(*tokenizer, "q") == std::vector<int32_t>{259, 3 + 'q'});  // or fall back to bytes
  CHECK(EncodeOrDie(*tokenizer, "é") == std::vector<int32_t>{259, 3 + 0xC3, 3 + 0xA9});
}

TEST_CASE("GGUF llama vocabulary: control tokens, framing and text", "[tokenizer]") {
  const auto tokenizer = FromVocab(SmallScored());
  CHECK(EncodeOrDie(*tokenizer, "a", SpecialTokens::kPlainText, Framing::kTemplate) == std::vector<int32_t>{1, 263});
  CHECK(EncodeOrDie(*tokenizer, "<s>a<tool>") == std::vector<int32_t>{1, 263, 267});
  for (const int32_t id : EncodeOrDie(*tokenizer, "<s>a<tool>", SpecialTokens::kPlainText)) {
    CHECK_FALSE(tokenizer->IsControl(id));
  }
  const std::string text = "ab bab  qé\n";
  CHECK(tokenizer->Decode(EncodeOrDie(*tokenizer, text), SkipSpecial::kYes) == text);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
  VocabSpec bare = SmallScored();
  bare.add_space_prefix = false;
  bare.add_bos = false;
  const auto without = FromVocab(bare);
  CHECK(EncodeOrDie(*without, "ab", SpecialTokens::kPlainText, Framing::kTemplate) == std::vector<int32_t>{262});
  CHECK(without->Decode(std::vector<int32_t>{263}, SkipSpecial::kNo) == " a");
}

TEST_CASE("GGUF gpt2 vocabulary: merges by list, pieces by the named pattern", "[tokenizer]") {
  VocabSpec spec;
  spec.model = "gpt2";
  spec.pre = GENERATE(as<std::string>(), "default", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "smollm");
  for (int byte = 0; byte < 256; ++byte)
    spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  for (const char* token : {"Ġa", "12", "123", "<|end|>"}) spec.tokens.push_back(token);
  spec.merges = {"Ġ a", "1 2", "12 3"};
  spec.token_types.assign(spec.tokens.size(), VocabTokenType::kNormal);
  spec.token_types.back() = VocabTokenType::kControl;
  spec.eos_id = 259;
  const auto tokenizer = FromVocab(spec);
  INFO(spec.pre);
  const bool single_digits = spec.pre == "qwen2" || spec.pre == "tekken" || spec.pre == "smollm";
  const auto ids = EncodeOrDie(*tokenizer, " a123<|end|>");
  CHECK(ids.front() == 256);
  CHECK(ids.back() == 259);
  CHECK(ids.size() == (single_digits ? 5 : 3));
  CHECK(tokenizer->Decode(ids, SkipSpecial::kYes) == " a123");
}

TEST_CASE("GGUF vocabulary: a faulty one is refused by name", "[tokenizer]") {
  const auto message = [](const VocabSpec& spec) {
    const auto tokenizer = Tokenizer::FromVocab(spec);
    REQUIRE(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
    return std::string(tokenizer.status().message());
  };
  VocabSpec spec = SmallScored();
  spec.model = "bert";
  CHECK_THAT(message(spec), Catch::Contains("bert"));
  spec = SmallScored();
  spec.scores.pop_back();
  CHECK_THAT(message(spec), Catch::Contains("scores"));
  spec = SmallScored();
  spec.token_types.pop_back();
  CHECK_THAT(message(spec), Catch::Contains("token types"));
  spec = SmallScored();
  spec.bos_id = 5000;
  CHECK_THAT(message(spec), Catch::Contains("bos_id"));
  spec = SmallScored();
  spec.tokens[260] = "\xFF";
  CHECK_THAT(message(spec), Catch::Contains("UTF-8"));
  spec = SmallScored();
  spec.scores[260] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THAT(message(spec), Catch::Contains("score"));
  spec = SmallScored();
  spec.model = "gpt2";
  spec.pre = "strange";
  CHECK_THAT(message(spec), Catch::Contains("strange"));
  spec.pre = "gpt-2";
  spec.merges = {"a zz"};
  CHECK_THAT(message(spec), Catch::Contains("merge 0"));
  CHECK_THAT(message(VocabSpec{}), Catch::Contains("0 tokens"));
}

// The vocabulary of stories260K from its llama2.c file: score, length, bytes of each token.
TEST_CASE("stories260K: its vocabulary encodes as SentencePiece does", "[tokenizer]") {
  const auto path = testing::SharedData("models/stories260K/tok512.bin");
  if (path.empty()) return;
  const std::string bytes = testing::ReadFileOrDie(path);
  VocabSpec spec;
  spec.model = "llama";
  for (size_t at = 4; at + 8 <= bytes.size();) {
    float score;
    int32_t num_bytes;
    std::memcpy(&score, bytes.data() + at, 4);
    std::memcpy(&num_bytes, bytes.data() + at + 4, 4);
    std::string token;
    for (const char c : bytes.substr(at + 8, static_cast<size_t>(num_bytes)))
      token += c == ' ' ? "▁" : std::string(1, c);
    at += 8 + static_cast<size_t>(num_bytes);
    const size_t id = spec.tokens.size();
    spec.tokens.push_back(id == 0 ? "<unk>" : id == 1 ? "<s>" : id == 2 ? "</s>" : token);
    spec.scores.push_back(score);
    spec.token_types.push_back(id == 0    ? VocabTokenType::kUnknown
                               : id < 3   ? VocabTokenType::kControl
                               : id < 259 ? VocabTokenType::kByte
                                          : VocabTokenType::kNormal);
  }
  spec.unk_id = 0;
  spec.bos_id = 1;
  spec.add_bos = true;
  REQUIRE(spec.tokens.size() == 512);
  const auto tokenizer = FromVocab(spec);
  CHECK(EncodeOrDie(*tokenizer, "Zoë said: 1 2 qx?") ==
        std::vector<int32_t>{410, 469, 414, 198, 174, 336, 467, 410, 475, 410, 479, 410, 456, 444, 450});
  // From SentencePiece with the original model file.
  CHECK(EncodeOrDie(*tokenizer, "Once upon a time, there was a little girl named Lily.", SpecialTokens::kPlainText,
                    Framing::kTemplate) ==
        std::vector<int32_t>{1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426});
}

}  // namespace
}  // namespace millrace
