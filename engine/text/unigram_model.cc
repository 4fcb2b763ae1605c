// SPDX-License-Identifier: Apache-2.0
#include "engine/text/unigram_model.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <string>

#include "engine/text/utf8.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr double kUnknownPenalty = 10.0;

std::vector<std::pair<std::string_view, int32_t>> TrieEntries(const std::vector<ModelToken>& tokens) {
  std::vector<std::pair<std::string_view, int32_t>> entries;
  entries.reserve(tokens.size());
  for (const ModelToken& token : tokens) entries.emplace_back(token.text, token.id);
  return entries;
}

}  // namespace

UnigramModel::UnigramModel(Options options, const std::vector<ModelToken>& tokens, std::vector<double> scores,
                           double min_score)
    : options_(options),
      trie_(TrieEntries(tokens)),
      scores_(std::move(scores)),
      unk_score_(min_score - kUnknownPenalty) {
  tokens_.Reserve(tokens.size());
  for (const ModelToken& token : tokens) tokens_.Insert(token.text, token.id);
}

void UnigramModel::FindBestEnds(std::string_view piece, std::vector<BestEnd>& ends) const {
  ends.assign(piece.size() + 1, {});
  for (size_t begin = 0; begin < piece.size();) {
    const double score_here = ends[begin].score;
    const uint32_t char_bytes = Utf8At(piece, begin).num_bytes;
    bool has_single = false;
    const auto offer = [&](size_t end, double score, int32_t id) {
      BestEnd& target = ends[end];
      if (target.begin < 0 || score > target.score) target = {score, id, static_cast<int64_t>(begin)};
    };
    trie_.ForEachPrefix(piece.substr(begin), [&](size_t num_bytes, int32_t id) {
      offer(begin + num_bytes, scores_[id] + score_here, id);
      if (num_bytes == char_bytes) has_single = true;
    });
    // The id -1 of an unknown character is resolved when the path is read back.
    if (!has_single) offer(begin + char_bytes, unk_score_ + score_here, -1);
    begin += char_bytes;
  }
}

absl::Status UnigramModel::AppendUnknown(std::string_view text, std::vector<int32_t>& ids) const {
  if (const int32_t id = tokens_.Find(text); id >= 0) {  // fused characters may spell a token
    ids.push_back(id);
    return absl::OkStatus();
  }
  const auto& byte_ids = options_.byte_ids;
  if (std::all_of(text.begin(), text.end(), [&](char c) { return byte_ids[static_cast<uint8_t>(c)] >= 0; })) {
    for (const char c : text) ids.push_back(byte_ids[static_cast<uint8_t>(c)]);
    return absl::OkStatus();
  }
  if (!options_.unk_id) {
    return absl::InvalidArgumentError(
        absl::StrCat("no token for '", std::string(text.substr(0, 64)), "' and the model has no unknown token"));
  }
  ids.push_back(*options_.unk_id);
  return absl::OkStatus();
}

absl::Status UnigramModel::Encode(std::string_view piece, std::vector<int32_t>& ids) const {
  std::vector<BestEnd> ends;
  FindBestEnds(piece, ends);
  struct Part {
    size_t begin;
    size_t end;
    int32_t id;
  };
  std::vector<Part> parts;  // last first
  for (size_t end = piece.size(); end > 0;) {
    const size_t begin = static_cast<size_t>(ends[end].begin);
    const int32_t id = ends[end].id;
    if (id < 0 && options_.fuse_unk && !parts.empty() && parts.back().id < 0) {
      parts.back().begin = begin;
    } else {
      parts.push_back({begin, end, id});
    }
    end = begin;
  }
  for (size_t i = parts.size(); i-- > 0;) {
    if (parts[i].id >= 0) {
      ids.push_back(parts[i].id);
    } else {
      RETURN_IF_ERROR(AppendUnknown(piece.substr(parts[i].begin, parts[i].end - parts[i].begin), ids));
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
