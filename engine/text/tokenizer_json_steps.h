// SPDX-License-Identifier: Apache-2.0
// Reads the normalizer, pre-tokenizer, decoder and post-processor of a tokenizer.json. Internal to engine/text.
#pragma once

#include "engine/text/json_fields.h"
#include "engine/text/tokenizer_parts.h"

namespace millrace {

// Each appends the steps of one component; nested sequences are flattened. InvalidArgument names an unknown type, a
// wrong field or a limit exceeded.
absl::Status ReadNormalizer(const JsonElement& element, std::vector<NormalizerStep>& steps);
absl::Status ReadPreTokenizer(const JsonElement& element, std::vector<PreTokenizerStep>& steps);
absl::Status ReadDecoder(const JsonElement& element, std::vector<DecoderStep>& steps);
// REQUIRES: `vocab` is complete.
absl::Status ReadPostProcessor(const JsonElement& element, const VocabBuilder& vocab, TokenizerParts& parts);

}  // namespace millrace
