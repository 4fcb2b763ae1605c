// SPDX-License-Identifier: Apache-2.0
#pragma once
// Takes the text of a chat's choices apart as it comes: what the model thinks, says and calls. Of one call: Begin
// before the first delta, then whoever brings the deltas, one at a time.
#include <cstdint>
#include <vector>

#include "engine/text/answer_parser.h"
#include "proto/millrace/v1/inference.pb.h"
#include "server/pipeline/generation.h"

namespace millrace {

class ParsedOutput {
 public:
  // `made_at`: nanoseconds; for the calls' ids.
  void Begin(const AnswerParserOptions& options, int32_t num_choices, int64_t made_at);
  void Fill(const TextDelta& delta, v1::ChatResponse* message);

 private:
  std::vector<AnswerParser> parsers_;  // by choice
  int64_t made_at_ = 0;
};

}  // namespace millrace
