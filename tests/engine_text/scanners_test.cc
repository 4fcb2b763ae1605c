// SPDX-License-Identifier: Apache-2.0
// Hand scanners against the regular expressions they stand for.
#include "engine/text/scanners.h"

#include "engine/text/regex.h"
#include "tests/engine_text/tokenizer_support.h"

namespace millrace {
namespace {

std::vector<std::string> ScanAll(ScannerKind kind, std::string_view text) {
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = ScanPiece(kind, text, begin);
    REQUIRE(end > begin);
    pieces.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

TEST_CASE("scanners: each cuts random text exactly as its regular expression", "[scanners]") {
  const ScannerKind kind = GENERATE(ScannerKind::kGpt2, ScannerKind::kLlama3, ScannerKind::kQwen2, ScannerKind::kO200k,
                                    ScannerKind::kTekken);
  const auto regex = Regex::Compile(PatternOf(kind));
  REQUIRE(regex.ok());
  const std::vector<std::string> parts = {
      "a",      "b",      "S",      "s",      "T",      "L",  "l", "re",     "VE", "'",  "'", "'s",
      " ",      " ",      "  ",     "\n",     "\r",     "\t", "0", "12",     "7",  ".",  "/", "!",
      "(",      "é",      "É",      "ǅ",      "ʰ",      "ª",  "ſ", "\u0301", "中", "字", "٣", "½",
      "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "😀", "ß", "Ж",      "ж",  "ि",  "_", "-"};
  std::mt19937 random(11);
  for (int round = 0; round < 30000; ++round) {
    const std::string text = testing::RandomText(random, parts, 14);
    std::vector<ByteRange> matches;
    REQUIRE(regex->FindAll(text, matches).ok());
    std::vector<std::string> expected;
    for (const ByteRange& match : matches) expected.push_back(text.substr(match.begin, match.end - match.begin));
    const std::vector<std::string> pieces = ScanAll(kind, text);
    if (pieces == expected) continue;
    INFO(text);
    CHECK(pieces == expected);
  }
}

TEST_CASE("scanners: a pattern is recognised by its exact text only", "[scanners]") {
  CHECK(RecognizePattern(PatternOf(ScannerKind::kO200k)) == ScannerKind::kO200k);
  CHECK_FALSE(RecognizePattern("\\p{L}+").has_value());
}

TEST_CASE("Regex: Oniguruma's meaning of classes and borders holds", "[scanners]") {
  const auto find = [](std::string_view pattern, std::string_view text) {
    const auto regex = Regex::Compile(pattern);
    REQUIRE(regex.ok());
    std::vector<ByteRange> matches;
    REQUIRE(regex->FindAll(text, matches).ok());
    std::vector<std::string> found;
    for (const ByteRange& match : matches) found.emplace_back(text.substr(match.begin, match.end - match.begin));
    return found;
  };
  CHECK(find("\\s", "a\u180e \u0085") == std::vector<std::string>{" ", "\u0085"});
  CHECK(find("^b", "a\nb") == std::vector<std::string>{"b"});
  CHECK(find("\\w+", "e\u0301_1-") == std::vector<std::string>{"e\u0301_1"});
  CHECK(find("\\h+", "xfFg") == std::vector<std::string>{"fF"});
  CHECK(find("\\u00e9", "é") == std::vector<std::string>{"é"});
  CHECK(find("x*", "ab") == std::vector<std::string>{"", "", ""});
}

TEST_CASE("Regex: what cannot be run is refused by name", "[scanners]") {
  for (const char* pattern : {"(", "[a-z&&[aeiou]]", "\\p{NoSuchScript}", "(?<=a+)b"}) {
    const auto regex = Regex::Compile(pattern);
    CHECK(regex.status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(Regex::Compile(std::string(20000, 'a')).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("Regex: a match that needs much stack is still found", "[scanners]") {
  const auto regex = Regex::Compile("(?:(a)|b)*c");
  REQUIRE(regex.ok());
  const std::string text = std::string(10'000, 'a') + "c";
  std::vector<ByteRange> matches;
  REQUIRE(regex->FindAll(text, matches).ok());
  REQUIRE(matches.size() == 1);
  CHECK(matches[0].end == text.size());
}

TEST_CASE("Regex: a pattern that explodes on a text is an error, not a hang", "[scanners]") {
  const auto regex = Regex::Compile("(a+)+$");
  REQUIRE(regex.ok());
  std::vector<ByteRange> matches;
  CHECK(regex->FindAll(std::string(40, 'a') + "b", matches).code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace millrace
