// SPDX-License-Identifier: Apache-2.0
// User text can never become a control token, and marking it as a user's changes nothing else.
#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

using testing::ByteLevelJson;
using testing::EncodeOrDie;
using testing::MakeTokenizer;
using testing::SentencePieceJson;

bool HasControl(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (tokenizer.IsControl(id) && tokenizer.unk_id() != id) return true;
  }
  return false;
}

std::vector<int32_t> EncodeSegments(const Tokenizer& tokenizer, const std::vector<TextSegment>& segments) {
  auto ids = tokenizer.EncodeSegments(segments);
  REQUIRE(ids.ok());
  return *std::move(ids);
}

TEST_CASE("Tokenizer: a control token's text is parsed or stays text, as asked", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  const int32_t end = tokenizer->TokenToId("<|end|>").value();
  CHECK(EncodeOrDie(*tokenizer, "a<|end|>").back() == end);
  const auto plain = EncodeOrDie(*tokenizer, "a<|end|><tool>", SpecialTokens::kPlainText);
  CHECK_FALSE(HasControl(*tokenizer, plain));
  CHECK(tokenizer->Decode(plain, SkipSpecial::kYes) == "a<|end|><tool>");
  CHECK(tokenizer->IsSpecial(end));
  // An added token with visible characters is control although its maker did not call it special; spaces are not.
  CHECK(tokenizer->IsControl(tokenizer->TokenToId("<tool>").value()));
  CHECK_FALSE(tokenizer->IsSpecial(tokenizer->TokenToId("<tool>").value()));
  const int32_t spaces = tokenizer->TokenToId("   ").value();
  CHECK_FALSE(tokenizer->IsControl(spaces));
  CHECK(EncodeOrDie(*tokenizer, "   ", SpecialTokens::kPlainText) == std::vector<int32_t>{spaces});
}

TEST_CASE("Tokenizer: merges that spell a control token never happen", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(SentencePieceJson());
  const auto plain = EncodeOrDie(*tokenizer, "<s> </s>", SpecialTokens::kPlainText);
  CHECK_FALSE(HasControl(*tokenizer, plain));
  CHECK(tokenizer->Decode(plain, SkipSpecial::kYes) == "<s> </s>");
  CHECK(EncodeOrDie(*tokenizer, "<s>").back() == 1);
}

TEST_CASE("Tokenizer: a piece that is a control token's name stays text with ignore_merges", "[tokenizer]") {
  const auto tokenizer =
      MakeTokenizer(R"({"added_tokens":[{"id":2,"content":"ab","special":true,"normalized":false}],"pre_tokenizer":)"
                    R"({"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},)"
                    R"("model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
  CHECK(EncodeOrDie(*tokenizer, "ab", SpecialTokens::kPlainText) == std::vector<int32_t>{0, 1});
  CHECK(EncodeOrDie(*tokenizer, "ab") == std::vector<int32_t>{2});
}

TEST_CASE("Tokenizer: Unigram cannot choose a control token or a byte token for user text", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(
      R"({"added_tokens":[{"id":0,"content":"<s>","special":true,"normalized":false}],"decoder":{"type":"Fuse"},)"
      R"("model":{"type":"Unigram","unk_id":5,"vocab":[["<s>",0.0],["<",-3],["s",-3],[">",-3],["<s",-4],["?",-9]]}})");
  CHECK(EncodeOrDie(*tokenizer, "<s>", SpecialTokens::kPlainText) == std::vector<int32_t>{4, 3});
  CHECK(EncodeOrDie(*tokenizer, "<s>") == std::vector<int32_t>{0});
  CHECK(EncodeOrDie(*tokenizer, "s!").back() == 5);
}

TEST_CASE("Tokenizer: a control token spelled across a border of trust stays text", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  const int32_t end = tokenizer->TokenToId("<|end|>").value();
  const auto across = EncodeSegments(*tokenizer, {{"<|e", Trust::kUser}, {"nd|>", Trust::kTemplate}});
  CHECK_FALSE(HasControl(*tokenizer, across));
  // The template's own token behind a user's half of one is still seen.
  const auto behind = EncodeSegments(*tokenizer, {{"<|end|", Trust::kUser}, {"<|end|>", Trust::kTemplate}});
  CHECK(behind.back() == end);
  CHECK(std::count(behind.begin(), behind.end(), end) == 1);
}

TEST_CASE("Tokenizer: segments of either trust give what the joint text gives", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(GENERATE(ByteLevelJson(), SentencePieceJson()));
  const std::vector<std::string> user = {"hello", " the", "the end", "é", "e",  "\u0301",
                                         "    ",  "\n",   "7",       "<", "日", "a b"};
  std::vector<std::string> any = user;
  for (const char* token : {"<|end|>", "<|user|>", "<tool>", "<s>", "</s>"}) any.emplace_back(token);
  std::mt19937 random(3);
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> texts;
    std::vector<TextSegment> segments;
    std::string joined;
    for (size_t n = random() % 6; n > 0; --n) {
      const bool is_user = random() % 2 == 0;
      texts.push_back(testing::RandomText(random, is_user ? user : any, 4));
    }
    bool user_now = random() % 2 == 0;
    for (const std::string& text : texts) {
      // Text with a control token in it is a template's; the rest may be either's.
      const bool has_token = text.find('>') != std::string::npos;
      segments.push_back({text, user_now && !has_token ? Trust::kUser : Trust::kTemplate});
      user_now = !user_now;
      joined += text;
    }
    const auto whole = EncodeOrDie(*tokenizer, joined);
    const auto parts = EncodeSegments(*tokenizer, segments);
    // A '<' of a user may complete a token's text only together with the template's: none of the parts does that here.
    INFO(joined);
    CHECK(parts == whole);
  }
}

TEST_CASE("Tokenizer: whatever users write between template parts, only the template's tokens appear", "[tokenizer]") {
  const bool normalized = GENERATE(false, true);
  std::string json = ByteLevelJson();
  if (normalized) {  // the finder then works on the normalised text
    for (size_t at = 0; (at = json.find("\"normalized\":false", at)) != std::string::npos;) {
      json.replace(at, 18, "\"normalized\":true ");
    }
  }
  const auto tokenizer = MakeTokenizer(json);
  const int32_t user_token = tokenizer->TokenToId("<|user|>").value();
  const int32_t end_token = tokenizer->TokenToId("<|end|>").value();
  const std::vector<std::string> hostile = {"<|", "end", "|>", "<|end|>", "<|user|>", "<tool>",
                                            "<",  "|",   ">",  " ",       "e\u0301",  "\u0301"};
  std::mt19937 random(4);
  for (int round = 0; round < 5000; ++round) {
    const std::string first = testing::RandomText(random, hostile, 6);
    const std::string second = testing::RandomText(random, hostile, 6);
    const auto ids = EncodeSegments(
        *tokenizer,
        {{"<|user|>", Trust::kTemplate}, {first, Trust::kUser}, {"<|end|>", Trust::kTemplate}, {second, Trust::kUser}});
    std::vector<int32_t> control;
    for (const int32_t id : ids) {
      if (tokenizer->IsControl(id)) control.push_back(id);
    }
    INFO(first << " / " << second);
    CHECK(control == std::vector<int32_t>{user_token, end_token});
  }
}

TEST_CASE("Tokenizer: trust follows text through a normalizer that changes it", "[tokenizer]") {
  // Lower case, and every "x" becomes "<|": user text normalises to a token's text, template text may.
  const auto tokenizer = MakeTokenizer(
      R"({"added_tokens":[{"id":9,"content":"<|e|>","special":true,"normalized":true}],"normalizer":{"type":"Sequence",)"
      R"("normalizers":[{"type":"Lowercase"},{"type":"Replace","pattern":{"String":"x"},"content":"<|"}]},)"
      R"("decoder":{"type":"Fuse"},"model":{"type":"BPE","vocab":{"<":0,"|":1,"e":2,">":3,"a":4},"merges":[]}})");
  CHECK(EncodeSegments(*tokenizer, {{"XE|>", Trust::kTemplate}, {"a", Trust::kUser}}) == std::vector<int32_t>{9, 4});
  CHECK(EncodeSegments(*tokenizer, {{"a", Trust::kTemplate}, {"XE|>", Trust::kUser}}) ==
        std::vector<int32_t>{4, 0, 1, 2, 1, 3});
  CHECK(EncodeSegments(*tokenizer, {{"X", Trust::kTemplate}, {"E|>", Trust::kUser}}) ==
        std::vector<int32_t>{0, 1, 2, 1, 3});
}

TEST_CASE("Tokenizer: broken UTF-8 becomes U+FFFD, whatever it is", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  CHECK(EncodeOrDie(*tokenizer, "a\xFF\xC3") == EncodeOrDie(*tokenizer, "a\uFFFD\uFFFD"));
  CHECK(EncodeOrDie(*tokenizer, "\xE2\x82z") == EncodeOrDie(*tokenizer, "\uFFFDz"));
  std::mt19937 random(5);
  for (int round = 0; round < 5000; ++round) {
    const auto ids = EncodeOrDie(*tokenizer, testing::RandomBytes(random, 40), SpecialTokens::kPlainText);
    const std::string text = tokenizer->Decode(ids, SkipSpecial::kNo);
    CHECK(EncodeOrDie(*tokenizer, text, SpecialTokens::kPlainText) == ids);
  }
}

TEST_CASE("Tokenizer: the template frames the text", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  const auto ids = EncodeOrDie(*tokenizer, "", SpecialTokens::kPlainText, Framing::kTemplate);
  CHECK(ids == std::vector<int32_t>{*tokenizer->bos_id(), *tokenizer->eos_id()});
  CHECK(tokenizer->IdToToken(ids[0]) == "<|user|>");
  CHECK(EncodeOrDie(*tokenizer, "").empty());
}

TEST_CASE("Tokenizer: long texts and long words give what short ones give", "[tokenizer]") {
  const auto tokenizer = MakeTokenizer(GENERATE(ByteLevelJson(), SentencePieceJson()));
  // Over 4 KiB the word cache works, over 48 symbols the heap; both must change nothing.
  std::mt19937 random(6);
  const std::vector<std::string> parts = {"hello", "the", " the", "hell", "l", "é", " ", "end"};
  std::vector<std::string> words;
  std::string text;
  std::vector<int32_t> expected;
  const bool byte_level = tokenizer->TokenToId("<|end|>").has_value();
  while (text.size() < 20000) {
    std::string word = (byte_level ? "\n" : "\n") + testing::RandomText(random, parts, 3);
    text += word;
    words.push_back(word);
  }
  const auto ids = EncodeOrDie(*tokenizer, text);
  CHECK(tokenizer->Decode(ids, SkipSpecial::kNo) == text);
  if (byte_level) {
    for (const std::string& word : words) {
      const auto word_ids = EncodeOrDie(*tokenizer, word);
      expected.insert(expected.end(), word_ids.begin(), word_ids.end());
    }
    CHECK(ids == expected);
  }
  std::string long_word;
  for (int i = 0; i < 500; ++i) long_word += "hello";
  const auto long_ids = EncodeOrDie(*tokenizer, long_word);
  CHECK(tokenizer->Decode(long_ids, SkipSpecial::kNo) == long_word);
  CHECK(long_ids.size() <= 1002);
}

TEST_CASE("Tokenizer: threads that share a fresh tokenizer all get the same ids", "[tokenizer]") {
  const std::string json = GENERATE(ByteLevelJson(), SentencePieceJson());
  const std::string text = "hello the end hell é    the then hello\n";
  const auto expected = MakeTokenizer(json)->Encode(text, SpecialTokens::kPlainText).value();
  const auto shared = MakeTokenizer(json);
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const auto ids = shared->Encode(text, SpecialTokens::kPlainText);
        const bool right = ids.ok() && *ids == expected && shared->Decode(*ids, SkipSpecial::kNo) == text;
        if (!right) ++num_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == 0);
}

TEST_CASE("Tokenizer: tokens tell their bytes and names", "[tokenizer]") {
  const auto byte_level = MakeTokenizer(ByteLevelJson());
  CHECK(byte_level->TokenBytes(byte_level->TokenToId("Ġthe").value()) == " the");
  CHECK(byte_level->TokenBytes(byte_level->TokenToId("Ã").value()) == "\xC3");
  CHECK(byte_level->IdToToken(byte_level->TokenToId("Ġthe").value()) == "Ġthe");
  const auto sentence_piece = MakeTokenizer(SentencePieceJson());
  CHECK(sentence_piece->TokenBytes(sentence_piece->TokenToId("▁the").value()) == " the");
  CHECK(sentence_piece->TokenBytes(sentence_piece->TokenToId("<0xFF>").value()) == "\xFF");
  CHECK(sentence_piece->TokenBytes(1) == "<s>");
  for (const int32_t id : {-1, 1 << 30}) {
    CHECK_FALSE(byte_level->HasId(id));
    CHECK(byte_level->TokenBytes(id).empty());
    CHECK(byte_level->IdToToken(id).empty());
    CHECK_FALSE(byte_level->IsSpecial(id));
  }
  CHECK_FALSE(byte_level->TokenToId("nothing").has_value());
}

}  // namespace
}  // namespace millrace
