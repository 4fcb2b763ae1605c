// SPDX-License-Identifier: Apache-2.0
#include "server/caching/answer_key.h"

#include "engine/grammar/json_schema.h"

namespace millrace {
namespace {

void AddParams(const GenerationParams& params, KeyHasher& hasher) {
  hasher.Add(params.temperature);
  hasher.Add(params.top_p);
  hasher.Add(params.min_p);
  hasher.Add(params.repetition_penalty);
  hasher.Add(params.top_k);
  hasher.Add(params.presence_penalty);
  hasher.Add(params.frequency_penalty);
  hasher.AddCount(params.logit_bias.size());
  for (const auto& [token, bias] : params.logit_bias) {
    hasher.Add(token);
    hasher.Add(bias);
  }
  hasher.Add(params.seed);
  hasher.Add(params.num_choices);
  hasher.Add(params.best_of);
  hasher.Add(params.max_tokens);
  hasher.Add(params.min_tokens);
  hasher.AddCount(params.stop.size());
  for (const std::string& stop : params.stop) hasher.Add(stop);
  hasher.Add(params.stop_token_ids);
  hasher.Add(params.includes_stop_text);
  hasher.Add(params.ignores_eos);
  hasher.Add(params.skips_special_tokens);
  hasher.Add(params.num_logprobs);
  hasher.Add(params.num_prompt_logprobs);
  hasher.Add(params.wants_echo);
  hasher.Add(params.grammar != nullptr);
  if (params.grammar != nullptr) hasher.Add(params.grammar->Identity());
}

}  // namespace

CacheKey MakeAnswerKey(const ServedModel& model, const Tenant& tenant, const AnswerQuestion& question) {
  KeyHasher hasher("millrace answer");
  hasher.Add(model.name);
  hasher.Add(std::string_view(reinterpret_cast<const char*>(model.identity.data()), model.identity.size()));
  hasher.Add(tenant.name);
  hasher.Add(tenant.salt);
  hasher.Add(static_cast<int32_t>(question.kind));
  hasher.AddCount(question.prompts.size());
  for (const std::vector<int32_t>& prompt : question.prompts) hasher.Add(prompt);
  AddParams(question.params, hasher);
  hasher.AddCount(question.required_tools.size());
  for (const std::string& tool : question.required_tools) hasher.Add(tool);
  hasher.Add(question.calls_once);
  hasher.Add(question.tools);
  return {.tenant = tenant.name, .model = model.name, .digest = hasher.Finish()};
}

}  // namespace millrace
