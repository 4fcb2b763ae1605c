// SPDX-License-Identifier: Apache-2.0
#include "engine/text/detokenizer.h"

#include "engine/text/utf8.h"
#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

using testing::ByteLevelJson;
using testing::EncodeOrDie;
using testing::MakeTokenizer;
using testing::SentencePieceJson;

std::vector<std::string> Stream(Detokenizer&& detokenizer, const std::vector<int32_t>& ids) {
  std::vector<std::string> deltas;
  for (const int32_t id : ids) detokenizer.Push(id, deltas.emplace_back());
  detokenizer.Finish(deltas.emplace_back());
  return deltas;
}

std::string Concatenate(const std::vector<std::string>& deltas) {
  std::string text;
  for (const std::string& delta : deltas) text += delta;
  return text;
}

TEST_CASE("Detokenizer: a character comes when its last byte is there", "[detokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  const auto ids = EncodeOrDie(*tokenizer, "日😀");
  REQUIRE(ids.size() == 7);
  const auto deltas = Stream(Detokenizer(*tokenizer, SkipSpecial::kNo), ids);
  CHECK(deltas == std::vector<std::string>{"", "", "日", "", "", "", "😀", ""});
}

TEST_CASE("Detokenizer: bytes that never become a character are replaced", "[detokenizer]") {
  const auto byte_level = MakeTokenizer(ByteLevelJson());
  auto ids = EncodeOrDie(*byte_level, "日a");
  ids.erase(ids.begin() + 2);
  CHECK(Stream(Detokenizer(*byte_level, SkipSpecial::kNo), ids) == std::vector<std::string>{"", "", "\uFFFDa", ""});
  ids.pop_back();
  CHECK(Stream(Detokenizer(*byte_level, SkipSpecial::kNo), ids) == std::vector<std::string>{"", "", "\uFFFD"});
  // With byte fallback each byte has its mark.
  const auto sentence_piece = MakeTokenizer(SentencePieceJson());
  const std::vector<int32_t> bytes = {3 + 0xE6, 3 + 0x97};
  CHECK(sentence_piece->Decode(bytes, SkipSpecial::kNo) == "\uFFFD\uFFFD");
}

TEST_CASE("Detokenizer: the first space of an answer goes, that of a continuation stays", "[detokenizer]") {
  const auto tokenizer = MakeTokenizer(SentencePieceJson());
  const auto ids = EncodeOrDie(*tokenizer, "the the");
  CHECK(Concatenate(Stream(Detokenizer(*tokenizer, SkipSpecial::kNo), ids)) == "the the");
  CHECK(Concatenate(Stream(Detokenizer(*tokenizer, SkipSpecial::kNo, StreamStart::kContinuation), ids)) == " the the");
}

TEST_CASE("Detokenizer: special tokens are shown or skipped", "[detokenizer]") {
  const auto tokenizer = MakeTokenizer(ByteLevelJson());
  const auto ids = EncodeOrDie(*tokenizer, "hello<|end|><tool>");
  CHECK(Concatenate(Stream(Detokenizer(*tokenizer, SkipSpecial::kNo), ids)) == "hello<|end|><tool>");
  CHECK(Concatenate(Stream(Detokenizer(*tokenizer, SkipSpecial::kYes), ids)) == "hello<tool>");
}

TEST_CASE("Detokenizer: every stream is valid at each step and adds up to Decode", "[detokenizer]") {
  const std::string strips_both_ends =
      R"({"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},)"
      R"({"type":"Replace","pattern":{"String":"aba"},"content":"-"},{"type":"Strip","content":" ","start":2,"stop":2}]},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2," ":3,"  ":4,"é":5,"<0xC3>":6,"<0xA9>":7,"ba":8},"merges":[]}})";
  const auto tokenizer = MakeTokenizer(GENERATE_COPY(
      ByteLevelJson(), SentencePieceJson(), strips_both_ends,
      std::string(
          R"({"decoder":{"type":"Metaspace","prepend_scheme":"always"},"model":{"type":"Unigram","unk_id":0,"vocab":)"
          R"([["<unk>",0],["▁",0],["▁a",0],["b",0],["▁▁",0]]}})"),
      std::string(R"({"model":{"type":"WordPiece","unk_token":"u","vocab":{"u":0,"##a":1,"b":2,".":3}},)"
                  R"("decoder":{"type":"WordPiece","prefix":"##","cleanup":true}})"),
      std::string(
          R"({"model":{"type":"BPE","vocab":{"a</w>":0,"b":1,"</w>":2},"merges":[]},"decoder":{"type":"BPEDecoder"}})"),
      std::string(R"({"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})")));
  std::mt19937 random(9);
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids(random() % 12);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->vocab_size() + 2));
    const SkipSpecial skip = random() % 2 == 0 ? SkipSpecial::kYes : SkipSpecial::kNo;
    const auto deltas = Stream(Detokenizer(*tokenizer, skip), ids);
    for (const std::string& delta : deltas) CHECK(IsValidUtf8(delta));
    CHECK(Concatenate(deltas) == tokenizer->Decode(ids, skip));
  }
}

TEST_CASE("Detokenizer: in the middle of a text each token gives its bytes", "[detokenizer]") {
  const auto tokenizer = MakeTokenizer(GENERATE(ByteLevelJson(), SentencePieceJson()));
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    const std::string bytes(tokenizer->TokenBytes(id));
    if (!IsValidUtf8(bytes)) continue;
    CHECK(Concatenate(Stream(Detokenizer(*tokenizer, SkipSpecial::kNo, StreamStart::kContinuation), {id})) == bytes);
  }
}

}  // namespace
}  // namespace millrace
