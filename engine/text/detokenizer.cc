// SPDX-License-Identifier: Apache-2.0
#include "engine/text/detokenizer.h"

namespace millrace {

void Detokenizer::Push(int32_t id, std::string& out) {
  if (!tokenizer_.HasId(id) || (skip_ == SkipSpecial::kYes && tokenizer_.IsSpecial(id))) return;
  stream_.Push(tokenizer_.IdToToken(id), out);
}

void Detokenizer::Finish(std::string& out) { stream_.Finish(out); }

}  // namespace millrace
