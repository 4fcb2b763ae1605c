// SPDX-License-Identifier: Apache-2.0
#include "engine/text/stop_strings.h"

#include <catch2/catch.hpp>
#include <random>

namespace millrace {
namespace {

StopMatcher MakeMatcher(const std::vector<std::string>& stops, IncludeStop include = IncludeStop::kNo) {
  auto matcher = StopMatcher::Create(stops, include);
  REQUIRE(matcher.ok());
  return *std::move(matcher);
}

struct Cut {
  std::string text;
  bool found = false;
};

// The definition: the stop string that is complete first, of several the longest.
Cut NaiveCut(const std::string& text, const std::vector<std::string>& stops, IncludeStop include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, include == IncludeStop::kYes ? end : end - longest), true};
  }
  return {text, false};
}

TEST_CASE("StopMatcher: a stop string across pieces ends the text in front of it", "[stop_strings]") {
  StopMatcher matcher = MakeMatcher({"###", "\nUser:"});
  std::string out;
  CHECK_FALSE(matcher.Push("Hello\n", out));
  CHECK(out == "Hello");  // the newline may begin a stop string
  CHECK_FALSE(matcher.Push("Us", out));
  CHECK_FALSE(matcher.Push("e an\nUser", out));
  CHECK(out == "Hello\nUse an");
  CHECK(matcher.Push(": more", out));
  CHECK(out == "Hello\nUse an");
  CHECK(matcher.matched_index() == size_t{1});
  CHECK(matcher.Push("ignored", out));
  matcher.Flush(out);
  CHECK(out == "Hello\nUse an");
}

TEST_CASE("StopMatcher: what was held back comes out at the end", "[stop_strings]") {
  StopMatcher matcher = MakeMatcher({"<end>"});
  std::string out;
  CHECK_FALSE(matcher.Push("a <en", out));
  CHECK(out == "a ");
  CHECK(matcher.held_bytes() == 3);
  matcher.Flush(out);
  CHECK(out == "a <en");
  CHECK_FALSE(matcher.matched_index().has_value());
}

TEST_CASE("StopMatcher: without stop strings nothing is held back", "[stop_strings]") {
  StopMatcher matcher = MakeMatcher({});
  std::string out;
  CHECK_FALSE(matcher.Push("anything", out));
  CHECK(out == "anything");
}

TEST_CASE("StopMatcher: an empty or endless stop string is refused", "[stop_strings]") {
  CHECK(StopMatcher::Create({"a", ""}, IncludeStop::kNo).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(StopMatcher::Create({std::string(70000, 'x')}, IncludeStop::kNo).status().code() ==
        absl::StatusCode::kInvalidArgument);
}

TEST_CASE("StopMatcher: any cutting of any text gives what a naive search gives", "[stop_strings]") {
  std::mt19937 random(7);
  const auto random_text = [&](size_t max_bytes) {
    std::string text(1 + random() % max_bytes, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 4; n > 0; --n) stops.push_back(random_text(5));
    const std::string text = random_text(30);
    const IncludeStop include = random() % 2 == 0 ? IncludeStop::kYes : IncludeStop::kNo;
    StopMatcher matcher = MakeMatcher(stops, include);
    std::string out;
    bool found = false;
    for (size_t begin = 0; begin < text.size() && !found;) {
      const size_t piece_bytes = 1 + random() % 4;
      found = matcher.Push(std::string_view(text).substr(begin, piece_bytes), out);
      begin += piece_bytes;
      const Cut so_far = NaiveCut(text.substr(0, begin), stops, include);
      CHECK(found == so_far.found);
      // Everything out is final, and no more is held back than the longest stop string less one.
      CHECK(so_far.text.compare(0, out.size(), out) == 0);
    }
    matcher.Flush(out);
    const Cut expected = NaiveCut(text, stops, include);
    CHECK(found == expected.found);
    CHECK(out == expected.text);
  }
}

TEST_CASE("StopMatcher: time is linear where a naive search is quadratic", "[stop_strings]") {
  const std::string almost(30000, 'a');
  StopMatcher matcher = MakeMatcher({almost + "b"});
  const std::string text(2'000'000, 'a');
  std::string out;
  CHECK_FALSE(matcher.Push(text, out));
  matcher.Flush(out);
  CHECK(out.size() == text.size());
}

}  // namespace
}  // namespace millrace
