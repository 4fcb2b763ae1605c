// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/pattern.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/grammar/char_set.h"
#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr int kMaxDepth = 32;
constexpr int kMaxRepeats = 1000;
constexpr int kMaxSteps = 200'000;  // repeated groups are read once for each repetition
constexpr size_t kMaxPatternBytes = 4096;

CharSet Digits() { return CharSet({{'0', '9'}}); }
CharSet WordChars() { return CharSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}); }
CharSet Spaces() {
  return CharSet({{9, 13},
                  {32, 32},
                  {0xA0, 0xA0},
                  {0x1680, 0x1680},
                  {0x2000, 0x200A},
                  {0x2028, 0x2029},
                  {0x202F, 0x202F},
                  {0x205F, 0x205F},
                  {0x3000, 0x3000},
                  {0xFEFF, 0xFEFF}});
}
CharSet LineEnds() { return CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }

// Emits while it reads. An error stops everything: status_ is looked at before each step.
class PatternReader {
 public:
  PatternReader(GrammarBuilder& builder, std::string_view text) : builder_(builder), text_(text) {}

  absl::Status Run(int32_t from, int32_t to) {
    do {
      int32_t state = NewStateAfter(from);
      if (!Take('^')) AnyText(state);
      state = Sequence(state);
      if (!Take('$')) {
        state = NewStateAfter(state);
        AnyText(state);
      }
      builder_.Empty(state, to);
    } while (IsGoing() && Take('|'));
    if (status_.ok() && position_ < text_.size()) Fail("is not supported there");
    return status_;
  }

 private:
  bool IsGoing() const { return status_.ok() && !builder_.is_full(); }
  bool AtEnd() const { return position_ >= text_.size(); }
  char Peek() const { return AtEnd() ? '\0' : text_[position_]; }
  bool Take(char c) {
    if (AtEnd() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  void Fail(std::string_view what) {
    if (!status_.ok()) return;
    std::string near;
    AppendRepairedUtf8(AtEnd() ? std::string_view("its end") : text_.substr(position_, 8), near);
    status_ = absl::InvalidArgumentError(absl::StrCat("byte ", position_, " ('", near, "') ", std::string(what)));
  }
  int32_t NewStateAfter(int32_t from) {
    const int32_t state = builder_.NewState();
    builder_.Empty(from, state);
    return state;
  }
  void AnyText(int32_t state) { EmitAnyJsonChar(builder_, state, state); }

  int32_t Sequence(int32_t from) {
    while (IsGoing() && !AtEnd() && Peek() != '|' && Peek() != ')' && Peek() != '$') from = Repeated(from);
    return from;
  }

  // An atom and its quantifier: the atom's text is read again for every copy.
  int32_t Repeated(int32_t from) {
    const size_t begin = position_;
    int32_t state = Atom(from);
    const size_t end = position_;
    int least = 1, most = 1;  // -1: without end
    if (!IsGoing() || !Quantifier(least, most)) return state;
    const size_t behind = position_;
    if (least == 0) {
      // What was emitted is the first copy; it may be left out, too.
      const int32_t after = builder_.NewState();
      builder_.Empty(from, after);
      builder_.Empty(state, after);
      least = 1;
      state = Copies(state, {begin, end}, {least, most});
      builder_.Empty(state, after);
      position_ = behind;
      return after;
    }
    state = Copies(state, {begin, end}, {least, most});
    position_ = behind;
    return state;
  }

  // After the first copy.
  int32_t Copies(int32_t state, std::pair<size_t, size_t> atom, std::pair<int, int> count) {
    const auto copy = [&](int32_t from) {
      position_ = atom.first;
      return Atom(from);
    };
    for (int i = 1; i < count.first && IsGoing(); ++i) state = copy(state);
    if (count.second < 0) {
      const int32_t loop = NewStateAfter(state);
      builder_.Empty(copy(loop), loop);
      return loop;
    }
    if (count.second <= count.first) return state;
    const int32_t after = builder_.NewState();
    for (int i = count.first; i < count.second && IsGoing(); ++i) {
      builder_.Empty(state, after);
      state = copy(state);
    }
    builder_.Empty(state, after);
    return after;
  }

  bool Quantifier(int& least, int& most) {
    if (Take('*')) {
      least = 0, most = -1;
    } else if (Take('+')) {
      least = 1, most = -1;
    } else if (Take('?')) {
      least = 0, most = 1;
    } else if (Take('{')) {
      least = Number();
      most = Take(',') ? (Peek() == '}' ? -1 : Number()) : least;
      if (!Take('}') || (most >= 0 && most < least)) Fail("is no repetition");
      if (most == 0) Fail("repeats nothing");
    } else {
      return false;
    }
    Take('?');  // a lazy quantifier matches the same texts
    if (std::string_view("*+?{").find(Peek()) != std::string_view::npos && !AtEnd()) Fail("repeats a repetition");
    return IsGoing();
  }

  int Number() {
    int value = 0;
    if (Peek() < '0' || Peek() > '9') Fail("is no number");
    while (Peek() >= '0' && Peek() <= '9' && value <= kMaxRepeats) value = value * 10 + (text_[position_++] - '0');
    if (value > kMaxRepeats) Fail("repeats too often");
    return value;
  }

  int32_t Atom(int32_t from) {
    if (++num_steps_ > kMaxSteps) Fail("makes the pattern too large");
    if (!IsGoing()) return from;
    if (Take('(')) return Group(from);
    CharSet set;
    if (Take('[')) {
      set = Class();
    } else if (Take('.')) {
      set = LineEnds().Complement();
    } else if (std::string_view("*+?{}]^$").find(Peek()) != std::string_view::npos) {
      Fail("is not supported there");
    } else {
      set = Member().first;
    }
    const int32_t to = builder_.NewState();
    EmitJsonChar(builder_, from, set, to);
    return to;
  }

  int32_t Group(int32_t from) {
    if (Take('?') && !Take(':')) Fail("is a group that is not supported");
    if (++depth_ > kMaxDepth) Fail("is nested too deep");
    const int32_t to = builder_.NewState();
    do {
      builder_.Empty(Sequence(NewStateAfter(from)), to);
    } while (IsGoing() && Take('|'));
    if (IsGoing() && !Take(')')) Fail("is not supported within a group, or a ) is missing");
    --depth_;
    return to;
  }

  CharSet Class() {
    const bool is_negated = Take('^');
    CharSet set;
    while (IsGoing() && Peek() != ']') {
      if (AtEnd()) Fail("lacks a ]");
      if (!IsGoing()) return set;
      const auto [low, is_single] = Member();
      if (Peek() != '-' || position_ + 1 >= text_.size() || text_[position_ + 1] == ']') {
        set.AddAll(low);
        continue;
      }
      ++position_;
      const auto [high, is_high_single] = Member();
      if (!IsGoing()) return set;
      if (!is_single || !is_high_single || low.ranges()[0].first > high.ranges()[0].first) {
        Fail("ends no range of characters");
        return set;
      }
      set.AddAll(CharSet({{low.ranges()[0].first, high.ranges()[0].first}}));
    }
    if (!Take(']')) Fail("lacks a ]");
    return is_negated ? set.Complement() : set;
  }

  // A character or an escape; whether it is one single character.
  std::pair<CharSet, bool> Member() {
    if (AtEnd()) Fail("ends too early");
    if (!IsGoing()) return {CharSet(), false};
    if (Take('\\')) return Escape();
    const Utf8Char c = Utf8At(text_, position_);
    position_ += c.num_bytes;
    return {CharSet({{c.code_point, c.code_point}}), true};
  }

  std::pair<CharSet, bool> Escape() {
    const char c = Peek();
    const auto single = [](uint32_t code) { return std::pair(CharSet({{code, code}}), true); };
    constexpr std::string_view kNames = "nrtfv", kMeant = "\n\r\t\f\v";
    if (const size_t i = kNames.find(c); i != std::string_view::npos && !AtEnd()) {
      ++position_;
      return single(static_cast<uint8_t>(kMeant[i]));
    }
    if (Take('d')) return {Digits(), false};
    if (Take('D')) return {Digits().Complement(), false};
    if (Take('w')) return {WordChars(), false};
    if (Take('W')) return {WordChars().Complement(), false};
    if (Take('s')) return {Spaces(), false};
    if (Take('S')) return {Spaces().Complement(), false};
    if (Take('x')) return single(Hex(2));
    if (Take('u')) return single(Hex(4));
    if (AtEnd() || static_cast<uint8_t>(c) >= 0x80 ||
        std::string_view("^$\\.*+?()[]{}|/-\"'#&%,:;<=>@_`~! ").find(c) == std::string_view::npos) {
      Fail("is an escape that is not supported");
      return {CharSet(), false};
    }
    ++position_;
    return single(static_cast<uint8_t>(c));
  }

  uint32_t Hex(int num_digits) {
    uint32_t value = 0;
    for (int i = 0; i < num_digits; ++i) {
      const std::string_view digits = "0123456789abcdef";
      const size_t digit = AtEnd() ? std::string_view::npos : digits.find(static_cast<char>(Peek() | 0x20));
      if (digit == std::string_view::npos || (digit < 10 && (Peek() < '0' || Peek() > '9'))) {
        Fail("is no hexadecimal digit");
        return 'x';
      }
      value = value * 16 + static_cast<uint32_t>(digit);
      ++position_;
    }
    if (value >= 0xD800 && value <= 0xDFFF) {
      Fail("is half of a character");
      return 'x';
    }
    return value;
  }

  GrammarBuilder& builder_;
  const std::string_view text_;
  size_t position_ = 0;
  int depth_ = 0;
  int num_steps_ = 0;
  absl::Status status_;
};

}  // namespace

absl::Status EmitPattern(GrammarBuilder& builder, int32_t from, std::string_view pattern, int32_t to) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("is longer than ", kMaxPatternBytes, " bytes"));
  }
  if (!IsValidUtf8(pattern)) return absl::InvalidArgumentError("is not UTF-8");
  return PatternReader(builder, pattern).Run(from, to);
}

}  // namespace millrace
