// SPDX-License-Identifier: Apache-2.0
#pragma once
// OpenAI's list of embeddings, as numbers or base64. One request, one thread.
#include <memory>
#include <string>

#include "server/api/answer_format.h"
#include "server/api/parse_requests.h"

namespace millrace {

std::unique_ptr<AnswerFormat> MakeEmbeddingFormat(std::string model, EmbeddingEncoding encoding);

}  // namespace millrace
