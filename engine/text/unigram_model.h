// SPDX-License-Identifier: Apache-2.0
// UnigramModel: the segmentation of a piece with the best sum of token scores (Kudo, "Subword Regularization", 2018),
// by Viterbi's algorithm. Constant after construction, any thread.
#pragma once

#include <absl/status/status.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/bpe_model.h"
#include "engine/text/byte_trie.h"

namespace millrace {

class UnigramModel {
 public:
  struct Options {
    std::optional<int32_t> unk_id;
    std::array<int32_t, 256> byte_ids = BpeModel::Options::NoBytes();  // for byte fallback; all -1: none
    bool fuse_unk = true;
  };

  // `tokens` as for BpeModel; `scores` (natural logarithms) are indexed by id. `min_score` is over all tokens of the
  // vocabulary: an unknown character costs 10 more than the worst token.
  UnigramModel(Options options, const std::vector<ModelToken>& tokens, std::vector<double> scores, double min_score);

  // Appends the ids of `piece`. InvalidArgument when a character has no token and there is no unknown token.
  absl::Status Encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  struct BestEnd {
    double score = 0;
    int32_t id = -1;
    int64_t begin = -1;  // -1: no path ends here
  };

  void FindBestEnds(std::string_view piece, std::vector<BestEnd>& ends) const;
  absl::Status AppendUnknown(std::string_view text, std::vector<int32_t>& ids) const;

  Options options_;
  StringIndex tokens_;
  ByteTrie trie_;
  std::vector<double> scores_;
  double unk_score_;
};

}  // namespace millrace
