// SPDX-License-Identifier: Apache-2.0
#include "server/pipeline/tool_calling.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/grammar/tool_calls.h"
#include "engine/text/chat_template.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_json.h"
#include "engine/text/tokenizer.h"
#include "server/wire/api_error.h"

namespace millrace {
namespace {

std::vector<std::string> ToolNames(const TemplateValue& tools) {
  std::vector<std::string> names;
  if (!tools.is_list()) return names;
  for (const TemplateValue& tool : tools.as_list().items) {
    const OfferedFunction offered = ReadOfferedFunction(tool);
    if (offered.function != nullptr) names.emplace_back(offered.name);
  }
  return names;
}

// Some templates open the reasoning themselves.
bool EndsInReasoning(const Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  constexpr size_t kMaxTokens = 16;  // of the marker and the white space behind it
  const std::string end = tokenizer.Decode(prompt.last(std::min(kMaxTokens, prompt.size())), SkipSpecial::kNo);
  return std::string_view(end).substr(0, end.find_last_not_of(" \t\r\n") + 1).ends_with("<think>");
}

// What the grammar depends on.
std::string KeyOf(const TemplateValue& tools, const CallGrammarOptions& options) {
  TemplateStringBuilder json;
  if (!AppendJson(tools, {}, json).ok()) return {};
  std::string key = absl::StrCat(static_cast<int>(options.format), options.count == CallCount::kOne,
                                 options.is_required, options.has_reasoning, options.starts_in_reasoning, "\n");
  // Only a required call is of fewer tools than were offered.
  if (options.is_required) {
    for (const std::string& name : options.names) absl::StrAppend(&key, name.size(), ":", name);
  }
  return key + std::string(json.Build().view());
}

}  // namespace

AnswerParserOptions ParserOptions(const Engine& engine, const ChatRequest& request, std::span<const int32_t> prompt) {
  AnswerParserOptions options;
  if (engine.chat_template() == nullptr) return options;
  // An answer with a grammar of the client's begins with its JSON, even where the template has opened the reasoning.
  options.splits_reasoning = HasReasoning(*engine.chat_template()) && request.params.grammar == nullptr;
  options.starts_in_reasoning = options.splits_reasoning && EndsInReasoning(engine.tokenizer(), prompt);
  if (!request.conversation.tools.is_list()) return options;
  options.format = DetectToolCallFormat(*engine.chat_template());
  options.tool_names = ToolNames(request.conversation.tools);
  return options;
}

absl::Status CallGrammars::Constrain(const Engine& engine, std::span<const int32_t> prompt, const ChatRequest& request,
                                     GenerationParams& params) {
  const AnswerParserOptions parser = ParserOptions(engine, request, prompt);
  if (HasControlTokenMarkers(parser.format)) params.skips_special_tokens = false;
  const bool is_required = !request.required_tools.empty();
  if (!is_required && (parser.tool_names.empty() || params.grammar != nullptr)) return absl::OkStatus();
  if (parser.format == ToolCallFormat::kNone) {
    if (!is_required) return absl::OkStatus();
    return ParamError("tool_choice", "can only be 'auto' or 'none' with this model's way of calling",
                      kUnsupportedValue);
  }
  const CallGrammarOptions options{.format = parser.format,
                                   .names = is_required ? request.required_tools : parser.tool_names,
                                   .count = request.calls_once ? CallCount::kOne : CallCount::kAny,
                                   .is_required = is_required,
                                   .has_reasoning = parser.splits_reasoning,
                                   .starts_in_reasoning = parser.starts_in_reasoning};
  std::string key = KeyOf(request.conversation.tools, options);
  params.grammar = Find(key);
  if (params.grammar != nullptr) return absl::OkStatus();
  auto grammar = CompileToolCalls(request.conversation.tools, options);
  if (!grammar.ok()) return ParamError("tools", std::string(grammar.status().message()), kUnsupportedValue);
  Keep(std::move(key), *grammar);
  params.grammar = *std::move(grammar);
  return absl::OkStatus();
}

std::shared_ptr<const Grammar> CallGrammars::Find(const std::string& key) {
  absl::MutexLock lock(&mu_);
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->first != key) continue;
    entries_.splice(entries_.begin(), entries_, entry);
    return entry->second;
  }
  return nullptr;
}

void CallGrammars::Keep(std::string key, std::shared_ptr<const Grammar> grammar) {
  if (key.empty() || key.size() > kMaxKeyBytes) return;
  std::list<Entry> dropped;  // freed outside the lock
  absl::MutexLock lock(&mu_);
  entries_.emplace_front(std::move(key), std::move(grammar));
  if (entries_.size() > kMaxEntries) dropped.splice(dropped.begin(), entries_, std::prev(entries_.end()));
}

}  // namespace millrace
