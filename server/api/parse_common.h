// SPDX-License-Identifier: Apache-2.0
#pragma once
// The parts of requests that chats and completions share. Internal to server/api.
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/pipeline/requests.h"
#include "server/wire/json_fields.h"

namespace millrace {

// The body as a JSON object.
absl::StatusOr<nlohmann::json> ParseBody(std::string_view body);
// Sampling, limits, stops: everything both endpoints know; errors are left in `fields`.
void ReadSampling(JsonFields& fields, GenerationParams& params);
void ReadStream(JsonFields& fields, StreamChoices& stream);
// Refuses what vLLM refuses too: chunks have no place for the prompt's log-probabilities.
void RefuseStreamedPromptLogprobs(JsonFields& fields, const GenerationParams& params, const StreamChoices& stream);
// response_format as a grammar; other ways to ask for structure are refused. `body`: what `fields` was parsed from.
void ReadResponseFormat(JsonFields& fields, std::string_view body, GenerationParams& params);
// "prompt" or "input": a string, strings, token ids, or lists of token ids.
void ReadPrompts(JsonFields& fields, const char* name, std::vector<Prompt>& prompts);
// messages, tools, chat_template_kwargs, add_generation_prompt, ... `text`: the body that `fields` was parsed from.
void ReadConversation(JsonFields& fields, std::string_view text, ChatRequest& request);

}  // namespace millrace
