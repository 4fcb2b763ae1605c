// SPDX-License-Identifier: Apache-2.0
#include "engine/text/regex.h"

#include <absl/strings/str_cat.h>

#include <string>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackBytes = 1024 * 1024;

// White_Space and its complement: PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpaceSet =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNonSpaceSet =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// PCRE2's own \w lacks the marks.
constexpr std::string_view kWordSet = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Rewrites one escape sequence that starts at pattern[i]; returns the bytes of `pattern` it took.
size_t TranslateEscape(std::string_view pattern, size_t i, bool in_class, std::string& out) {
  if (i + 1 >= pattern.size()) {
    out.push_back('\\');
    return 1;
  }
  const char c = pattern[i + 1];
  const std::string_view set = c == 's'               ? kSpaceSet
                               : c == 'S' && in_class ? kNonSpaceSet
                               : c == 'S'             ? kSpaceSet
                               : c == 'w' || c == 'W' ? kWordSet
                                                      : std::string_view();
  if (!set.empty() && !(c == 'W' && in_class)) {
    const std::string_view open = in_class ? "" : c == 'S' || c == 'W' ? "[^" : "[";
    out.append(open).append(set).append(in_class ? "" : "]");
    return 2;
  }
  if (c == 'h') {  // a hexadecimal digit in Oniguruma, horizontal space in PCRE2
    out += in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
    return 2;
  }
  const std::string_view digits = pattern.substr(i + 2, 4);
  if (c == 'u' && digits.size() == 4 && IsHex(digits[0]) && IsHex(digits[1]) && IsHex(digits[2]) && IsHex(digits[3])) {
    absl::StrAppend(&out, "\\x{", std::string(digits), "}");
    return 6;
  }
  out.append(pattern.substr(i, 2));
  return 2;
}

// From Oniguruma's dialect to PCRE2's, where they differ without an error.
absl::StatusOr<std::string> Translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size();) {
    const char c = pattern[i];
    if (c == '\\') {
      i += TranslateEscape(pattern, i, in_class, out);
      continue;
    }
    const bool posix = c == '[' && in_class && i + 1 < pattern.size() && pattern[i + 1] == ':';
    if (in_class && ((c == '[' && !posix) || (c == '&' && pattern.substr(i, 2) == "&&"))) {
      return absl::InvalidArgumentError("regular expression with a nested character class is not supported");
    }
    if (posix) {
      const size_t close = pattern.find(":]", i);
      if (close == std::string_view::npos) return absl::InvalidArgumentError("regular expression: unclosed [:");
      out.append(pattern.substr(i, close + 2 - i));
      i = close + 2;
      continue;
    }
    out.push_back(c);
    ++i;
    if (!in_class && c == '[') {
      in_class = true;
      if (i < pattern.size() && pattern[i] == '^') out.push_back(pattern[i++]);
      if (i < pattern.size() && pattern[i] == ']') out.push_back(pattern[i++]);  // a literal ] comes first
    } else if (in_class && c == ']') {
      in_class = false;
    }
  }
  return out;
}

std::string MessageOf(int error) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

struct FreeMatch {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
template <class T>
using Pcre2Ptr = std::unique_ptr<T, FreeMatch>;

}  // namespace

struct Regex::Compiled {
  Pcre2Ptr<pcre2_code> code;
};

Regex::Regex(std::unique_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression of ", pattern.size(), " bytes is too long"));
  }
  if (!IsValidUtf8(pattern)) return absl::InvalidArgumentError("regular expression is not valid UTF-8");
  ASSIGN_OR_RETURN(const std::string translated, Translate(pattern));
  Pcre2Ptr<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // ^ and $ are the borders of lines in Oniguruma's syntax.
  auto compiled = std::make_unique<Compiled>();
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                     context.get()));
  if (compiled->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", std::string(pattern.substr(0, 200)), "': ", MessageOf(error)));
  }
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter serves
  return Regex(std::move(compiled));
}

absl::Status Regex::FindAll(std::string_view text, std::vector<ByteRange>& matches) const {
  Pcre2Ptr<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  Pcre2Ptr<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  Pcre2Ptr<pcre2_jit_stack> stack;  // made when the 32 KiB of the machine's own do not do: it is a system call
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t position = 0;
  size_t last_match_end = SIZE_MAX;
  while (position <= text.size()) {
    int found = pcre2_match(compiled_->code.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK, data.get(),
                            context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
      stack.reset(pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(compiled_->code.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          data.get(), context.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the tokenizer's regular expression failed on this text: ", MessageOf(found)));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    const size_t begin = ends[0];
    const size_t end = ends[1];
    if (end < begin) break;  // \K inside a look-ahead; no tokenizer means that
    if (begin == end && end == last_match_end) {
      position = end < text.size() ? end + Utf8At(text, end).num_bytes : end + 1;
      continue;
    }
    matches.push_back({begin, end});
    position = last_match_end = end;
  }
  return absl::OkStatus();
}

}  // namespace millrace
