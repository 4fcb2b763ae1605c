// SPDX-License-Identifier: Apache-2.0
#include "engine/text/normalizer.h"

#include <absl/strings/str_cat.h>
#include <unicode/bytestream.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>

#include "engine/text/byte_alphabet.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kMaxGrowth = 64;
constexpr size_t kFreeGrowthBytes = 1 << 20;

size_t MaxBytes(const TrackedText& text) { return text.bytes.size() * kMaxGrowth + kFreeGrowthBytes; }

absl::Status TooMuchGrowth() {
  return absl::ResourceExhaustedError(
      absl::StrCat("the normalizer makes the text more than ", kMaxGrowth, " times longer"));
}

// Rewrites the text character by character: `rewrite` returns the replacement, or nullopt to keep the character.
template <class Rewrite>
void RewriteChars(TrackedText& text, Rewrite&& rewrite) {
  TrackedWriter writer(text);
  std::string replacement;
  size_t kept_begin = 0;
  for (size_t i = 0; i < text.bytes.size();) {
    const Utf8Char c = Utf8At(text.bytes, i);
    replacement.clear();
    if (rewrite(c.code_point, replacement)) {
      writer.Copy(kept_begin, i);
      writer.Write(replacement, i, i + c.num_bytes);
      kept_begin = i + c.num_bytes;
    }
    i += c.num_bytes;
  }
  if (kept_begin == 0) return;
  writer.Copy(kept_begin, text.bytes.size());
  text = writer.Take();
}

const icu::Normalizer2* NormalizerOf(UnicodeForm form, UErrorCode& error) {
  switch (form) {
    case UnicodeForm::kNfc:
      return icu::Normalizer2::getNFCInstance(error);
    case UnicodeForm::kNfd:
      return icu::Normalizer2::getNFDInstance(error);
    case UnicodeForm::kNfkc:
      return icu::Normalizer2::getNFKCInstance(error);
    case UnicodeForm::kNfkd:
      return icu::Normalizer2::getNFKDInstance(error);
  }
  return nullptr;
}

absl::Status Run(const UnicodeFormStep& step, TrackedText& text) {
  if (std::all_of(text.bytes.begin(), text.bytes.end(), [](char c) { return static_cast<signed char>(c) >= 0; })) {
    return absl::OkStatus();
  }
  if (text.bytes.size() > INT32_MAX / 4) return absl::ResourceExhaustedError("text too long to normalise");
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = NormalizerOf(step.form, error);
  if (U_FAILURE(error)) return absl::InternalError("ICU has no normalisation data");
  const icu::StringPiece source(text.bytes.data(), static_cast<int32_t>(text.bytes.size()));
  if (normalizer->isNormalizedUTF8(source, error) && U_SUCCESS(error)) return absl::OkStatus();
  error = U_ZERO_ERROR;
  std::string result;
  icu::StringByteSink<std::string> sink(&result, source.size());
  icu::Edits edits;
  normalizer->normalizeUTF8(0, source, sink, text.is_tracked() ? &edits : nullptr, error);
  if (U_FAILURE(error)) return absl::ResourceExhaustedError("text cannot be normalised");
  if (!text.is_tracked()) {
    text.bytes = std::move(result);
    return absl::OkStatus();
  }
  TrackedWriter writer(text);
  size_t source_at = 0;
  size_t result_at = 0;
  for (auto it = edits.getFineIterator(); it.next(error);) {
    const auto old_bytes = static_cast<size_t>(it.oldLength());
    const auto new_bytes = static_cast<size_t>(it.newLength());
    if (it.hasChange()) {
      writer.Write(std::string_view(result).substr(result_at, new_bytes), source_at, source_at + old_bytes);
    } else {
      writer.Copy(source_at, source_at + old_bytes);
    }
    source_at += old_bytes;
    result_at += new_bytes;
  }
  text = writer.Take();
  return absl::OkStatus();
}

absl::Status Run(const LowercaseStep&, TrackedText& text) {
  RewriteChars(text, [](char32_t c, std::string& out) {
    if (c < 0x80) {
      if (c < 'A' || c > 'Z') return false;
      out.push_back(static_cast<char>(c + 32));
      return true;
    }
    if (c == 0x130) {  // the one character whose lower case is two characters
      out = "i\xCC\x87";
      return true;
    }
    const auto lower = static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
    if (lower == c) return false;
    AppendUtf8(lower, out);
    return true;
  });
  return absl::OkStatus();
}

absl::Status Run(const ReplaceStep& step, TrackedText& text) {
  std::vector<ByteRange> matches;
  RETURN_IF_ERROR(step.pattern.FindAll(text.bytes, matches));
  if (matches.empty()) return absl::OkStatus();
  if (matches.size() * step.content.size() > MaxBytes(text)) return TooMuchGrowth();
  TrackedWriter writer(text);
  size_t kept_begin = 0;
  for (const ByteRange& match : matches) {
    writer.Copy(kept_begin, match.begin);
    writer.Write(step.content, match.begin, match.end);
    kept_begin = match.end;
  }
  writer.Copy(kept_begin, text.bytes.size());
  text = writer.Take();
  return absl::OkStatus();
}

absl::Status Run(const PrependStep& step, TrackedText& text) {
  if (text.bytes.empty()) return absl::OkStatus();
  text.bytes.insert(0, step.prefix);
  if (text.is_tracked()) text.from_user.insert(text.from_user.begin(), step.prefix.size(), 0);
  return absl::OkStatus();
}

absl::Status Run(const StripStep& step, TrackedText& text) {
  size_t begin = 0;
  size_t end = text.bytes.size();
  while (step.left && begin < end) {
    const Utf8Char c = Utf8At(text.bytes, begin);
    if (!IsWhiteSpace(c.code_point)) break;
    begin += c.num_bytes;
  }
  while (step.right && end > begin) {
    const Utf8Char c = Utf8Before(text.bytes, end);
    if (!IsWhiteSpace(c.code_point)) break;
    end -= c.num_bytes;
  }
  if (begin == 0 && end == text.bytes.size()) return absl::OkStatus();
  TrackedWriter writer(text);
  writer.Copy(begin, end);
  text = writer.Take();
  return absl::OkStatus();
}

absl::Status Run(const StripAccentsStep& step, TrackedText& text) {
  RewriteChars(text, [&](char32_t c, std::string&) {
    if (c < 0x80) return false;
    return step.only_nonspacing ? u_charType(static_cast<UChar32>(c)) == U_NON_SPACING_MARK : IsMark(c);
  });
  return absl::OkStatus();
}

absl::Status Run(const CleanBertStep&, TrackedText& text) {
  RewriteChars(text, [](char32_t c, std::string& out) {
    if (c == ' ') return false;
    const bool dropped = c == kReplacementChar || (U_MASK(u_charType(static_cast<UChar32>(c))) & U_GC_C_MASK) != 0;
    if (c == '\t' || c == '\n' || c == '\r' || (!dropped && IsWhiteSpace(c))) {
      out = " ";
      return true;
    }
    return dropped;
  });
  return absl::OkStatus();
}

bool IsChinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

absl::Status Run(const SpaceChineseStep&, TrackedText& text) {
  RewriteChars(text, [](char32_t c, std::string& out) {
    if (!IsChinese(c)) return false;
    out.push_back(' ');
    AppendUtf8(c, out);
    out.push_back(' ');
    return true;
  });
  return absl::OkStatus();
}

absl::Status Run(const CleanNmtStep&, TrackedText& text) {
  RewriteChars(text, [](char32_t c, std::string& out) {
    const bool dropped =
        (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    if (dropped) return true;
    const bool spaced = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (spaced) out = " ";
    return spaced;
  });
  return absl::OkStatus();
}

absl::Status Run(const PrecompiledCharsmap& map, TrackedText& text) {
  map.Apply(text);
  return absl::OkStatus();
}

absl::Status Run(const ByteAlphabetStep&, TrackedText& text) {
  RewriteChars(text, [](char32_t c, std::string& out) {
    std::string bytes;
    AppendUtf8(c, bytes);
    out = BytesToAlphabet(bytes);
    return true;
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status Normalize(const std::vector<NormalizerStep>& steps, TrackedText& text) {
  const size_t max_bytes = MaxBytes(text);
  for (const NormalizerStep& step : steps) {
    if (text.bytes.empty()) break;
    RETURN_IF_ERROR(std::visit([&](const auto& s) { return Run(s, text); }, step));
    if (text.bytes.size() > max_bytes) return TooMuchGrowth();
  }
  return absl::OkStatus();
}

}  // namespace millrace
