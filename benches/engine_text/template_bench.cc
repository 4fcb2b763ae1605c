// SPDX-License-Identifier: Apache-2.0
// Time to render a conversation of 20 messages, short and with 5 kB each, through a ChatML template with tools.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "engine/text/chat_template.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

constexpr std::string_view kTemplate = R"({%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n\n<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not message.content.startswith('<tool_response>') %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}
        {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- for tool_call in message.tool_calls or [] %}
            {{- '\n<tool_call>\n{"name": "' + tool_call.function.name + '", "arguments": ' }}
            {{- tool_call.function.arguments | tojson }}{{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %})";

constexpr std::string_view kTools =
    R"([{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters":
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}])";

void RenderTwentyMessages(benchmark::State& state) {
  auto chat_template = ChatTemplate::Parse(kTemplate, "", "<|im_end|>");
  auto tools = ParseJsonValue(kTools);
  if (!chat_template.ok() || !tools.ok()) std::abort();
  Conversation conversation;
  conversation.tools = *std::move(tools);
  const auto message_bytes = static_cast<size_t>(state.range(0));
  for (int i = 0; i < 20; ++i) {
    ChatMessage message;
    message.role = i % 2 == 0 ? "user" : "assistant";
    std::string text;
    while (text.size() < message_bytes) text += "What does <|im_end|> mean, and \"why\"? ";
    message.content = std::move(text);
    if (i % 4 == 1) message.tool_calls.push_back({"id", "get_weather", R"({"city": "Oslo", "days": 3})"});
    conversation.messages.push_back(std::move(message));
  }
  size_t prompt_bytes = 0;
  for (auto _ : state) {
    const auto prompt = (*chat_template)->Render(conversation);
    if (!prompt.ok()) std::abort();
    prompt_bytes = prompt->text.size_bytes();
    benchmark::DoNotOptimize(prompt_bytes);
  }
  state.counters["prompt_bytes"] = static_cast<double>(prompt_bytes);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * prompt_bytes));
}
BENCHMARK(RenderTwentyMessages)->Arg(100)->Arg(5000)->Arg(100'000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
