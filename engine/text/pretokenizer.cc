// SPDX-License-Identifier: Apache-2.0
#include "engine/text/pretokenizer.h"

#include "engine/text/byte_alphabet.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

void AddParts(const Piece& piece, const std::vector<ByteRange>& parts, std::vector<Piece>& out) {
  for (const ByteRange& part : parts) {
    out.push_back({piece.text.substr(part.begin, part.end - part.begin), piece.at_start && part.begin == 0});
  }
}

void ScanPieces(ScannerKind kind, std::vector<Piece>& pieces) {
  std::vector<Piece> out;
  size_t num_bytes = 0;
  for (const Piece& piece : pieces) num_bytes += piece.text.size();
  out.reserve(pieces.size() + num_bytes / 4);
  for (const Piece& piece : pieces) {
    for (size_t begin = 0; begin < piece.text.size();) {
      const size_t end = ScanPiece(kind, piece.text, begin);
      out.push_back({piece.text.substr(begin, end - begin), piece.at_start && begin == 0});
      begin = end;
    }
  }
  pieces = std::move(out);
}

// Calls `find` for each piece's spans and cuts the piece by them.
template <class Find>
absl::Status SplitPieces(SplitBehavior behavior, Find&& find, std::vector<Piece>& pieces) {
  std::vector<Piece> out;
  out.reserve(pieces.size() * 2);
  for (const Piece& piece : pieces) {
    std::vector<Span> spans;
    RETURN_IF_ERROR(find(piece.text, spans));
    AddParts(piece, ApplyBehavior(spans, behavior), out);
  }
  pieces = std::move(out);
  return absl::OkStatus();
}

absl::Status Run(const ByteLevelStep& step, PieceList& list) {
  if (step.add_prefix_space) {
    for (Piece& piece : list.pieces) {
      if (piece.text.front() == ' ') continue;
      std::string prefixed(" ");
      prefixed.append(piece.text);
      piece.text = list.Keep(std::move(prefixed));
    }
  }
  if (step.use_regex) ScanPieces(ScannerKind::kGpt2, list.pieces);
  if (!step.to_alphabet) return absl::OkStatus();
  for (Piece& piece : list.pieces) piece.text = list.Keep(BytesToAlphabet(piece.text));
  return absl::OkStatus();
}

absl::Status Run(const SplitStep& step, PieceList& list) {
  const auto scanner = step.pattern.scanner();
  // A scanner's matches cover the text: isolating them and removing what lies between are the same.
  const bool keeps_matches =
      (step.behavior == SplitBehavior::kIsolated) || (step.behavior == SplitBehavior::kRemoved && step.invert);
  if (scanner && keeps_matches) {
    ScanPieces(*scanner, list.pieces);
    return absl::OkStatus();
  }
  const auto find = [&](std::string_view text, std::vector<Span>& spans) {
    std::vector<ByteRange> matches;
    RETURN_IF_ERROR(step.pattern.FindAll(text, matches));
    spans = WithGaps(matches, text.size());
    if (step.invert) {
      for (Span& span : spans) span.is_match = !span.is_match;
    }
    return absl::OkStatus();
  };
  return SplitPieces(step.behavior, find, list.pieces);
}

absl::Status Run(const MetaspaceStep& step, PieceList& list) {
  std::vector<Piece> out;
  for (const Piece& piece : list.pieces) {
    std::string text;
    text.reserve(piece.text.size() * 3 / 2 + step.replacement.size());
    const bool wants_prefix = step.prepend_scheme == PrependScheme::kAlways ||
                              (step.prepend_scheme == PrependScheme::kFirst && piece.at_start);
    if (wants_prefix && piece.text.front() != ' ' && !piece.text.starts_with(step.replacement)) {
      text += step.replacement;
    }
    for (const char c : piece.text) {
      if (c == ' ') {
        text += step.replacement;
      } else {
        text.push_back(c);
      }
    }
    const Piece whole{list.Keep(std::move(text)), piece.at_start};
    if (!step.split) {
      out.push_back(whole);
      continue;
    }
    std::vector<ByteRange> matches;
    for (size_t at = whole.text.find(step.replacement); at != std::string_view::npos;
         at = whole.text.find(step.replacement, at + step.replacement.size())) {
      matches.push_back({at, at + step.replacement.size()});
    }
    AddParts(whole, ApplyBehavior(WithGaps(matches, whole.text.size()), SplitBehavior::kMergedWithNext), out);
  }
  list.pieces = std::move(out);
  return absl::OkStatus();
}

absl::Status Run(const CharClassStep& step, PieceList& list) {
  const auto find = [&](std::string_view text, std::vector<Span>& spans) {
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = Utf8At(text, i);
      const bool is_match = step.is_member(c.code_point);
      if (!is_match && !spans.empty() && !spans.back().is_match) {
        spans.back().end = i + c.num_bytes;
      } else {
        spans.push_back({i, i + c.num_bytes, is_match});
      }
      i += c.num_bytes;
    }
    return absl::OkStatus();
  };
  return SplitPieces(step.behavior, find, list.pieces);
}

absl::Status Run(const WordsStep&, PieceList& list) {
  enum Kind { kBlank, kWord, kSymbol };
  const auto kind_of = [](char32_t c) { return IsWordChar(c) ? kWord : IsWhiteSpace(c) ? kBlank : kSymbol; };
  const auto find = [&](std::string_view text, std::vector<Span>& spans) {
    Kind previous = kBlank;
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = Utf8At(text, i);
      const Kind kind = kind_of(c.code_point);
      if (!spans.empty() && kind == previous) {
        spans.back().end = i + c.num_bytes;
      } else {
        spans.push_back({i, i + c.num_bytes, kind == kBlank});
      }
      previous = kind;
      i += c.num_bytes;
    }
    return absl::OkStatus();
  };
  return SplitPieces(SplitBehavior::kRemoved, find, list.pieces);
}

}  // namespace

absl::Status PreTokenize(const std::vector<PreTokenizerStep>& steps, PieceList& list) {
  for (const PreTokenizerStep& step : steps) {
    RETURN_IF_ERROR(std::visit([&](const auto& s) { return Run(s, list); }, step));
  }
  return absl::OkStatus();
}

}  // namespace millrace
