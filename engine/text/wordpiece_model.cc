// SPDX-License-Identifier: Apache-2.0
#include "engine/text/wordpiece_model.h"

#include "engine/text/utf8.h"

namespace millrace {

WordPieceModel::WordPieceModel(Options options, const std::vector<ModelToken>& tokens) : options_(std::move(options)) {
  tokens_.Reserve(tokens.size());
  for (const ModelToken& token : tokens) tokens_.Insert(token.text, token.id);
}

void WordPieceModel::Encode(std::string_view word, std::vector<int32_t>& ids) const {
  const size_t ids_begin = ids.size();
  const auto give_up = [&] {
    ids.resize(ids_begin);
    if (options_.unk_id) ids.push_back(*options_.unk_id);
  };
  size_t num_chars = 0;
  for (size_t i = 0; i < word.size(); i += Utf8At(word, i).num_bytes) ++num_chars;
  if (num_chars > options_.max_word_chars) return give_up();
  std::string candidate;
  for (size_t begin = 0; begin < word.size();) {
    candidate = begin > 0 ? options_.continuing_prefix : "";
    const size_t prefix_bytes = candidate.size();
    candidate.append(word.substr(begin));
    int32_t id = tokens_.Find(candidate);
    while (id < 0 && candidate.size() > prefix_bytes) {
      candidate.resize(candidate.size() - Utf8Before(candidate, candidate.size()).num_bytes);
      if (candidate.size() > prefix_bytes) id = tokens_.Find(candidate);
    }
    if (id < 0) return give_up();
    ids.push_back(id);
    begin += candidate.size() - prefix_bytes;
  }
}

}  // namespace millrace
