// SPDX-License-Identifier: Apache-2.0
#pragma once
// AnswerParser: what a model wrote, taken apart into reasoning, content and tool calls, while it is still writing.
// The parts do not depend on where the text is cut into pieces. Owned by one choice of one request, used by one thread
// at a time. It knows texts only: markers that are control tokens must have been kept by the detokenizer.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/chat_template.h"

namespace millrace {

// How a model family writes its calls.
enum class ToolCallFormat : uint8_t {
  kNone,       // none that we know: calls stay text
  kHermes,     // <tool_call>{"name": ..., "arguments": {...}}</tool_call>, repeated (Hermes, Qwen 2.5 and 3)
  kLlamaJson,  // the whole answer is {"name": ..., "parameters": {...}}, perhaps after <|python_tag|> (Llama 3.x)
  kMistral,    // [TOOL_CALLS][{"name": ..., "arguments": {...}}], or [TOOL_CALLS]name[ARGS]{...}, repeated
};

// From the markers that the template's author wrote.
ToolCallFormat DetectToolCallFormat(const ChatTemplate& chat_template);
// Whether the model's template knows <think> ... </think>.
bool HasReasoning(const ChatTemplate& chat_template);
// Whether the markers of a format are control tokens, which a detokenizer would leave out.
bool HasControlTokenMarkers(ToolCallFormat format);

struct ParsedToolCall {
  std::string name;
  std::string arguments;  // a JSON object, as the model wrote it
};

// What is certain with the text so far, beyond what was reported before.
struct AnswerParts {
  std::string reasoning;
  std::string content;
  std::vector<ParsedToolCall> calls;
};

struct AnswerParserOptions {
  ToolCallFormat format = ToolCallFormat::kNone;  // kNone also where no tools were offered
  bool splits_reasoning = false;
  bool starts_in_reasoning = false;     // the prompt ended with <think>
  std::vector<std::string> tool_names;  // kLlamaJson: JSON with another name is an answer, not a call
};

// A call is reported when it is complete and well-formed. One that is not stays in the content, without its markers; so
// does one that the end of the text cuts off. White space around calls and after the reasoning is dropped.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerParserOptions options);

  void Push(std::string_view piece, AnswerParts& out);
  // The text is over: reports what was held back. No Push afterwards.
  void Finish(AnswerParts& out);
  int32_t num_calls() const { return num_calls_; }
  int32_t num_malformed() const { return num_malformed_; }

 private:
  // kStart: is there reasoning? kLead: is the answer JSON? kClose: behind a call's JSON.
  enum class State : uint8_t { kStart, kReasoning, kLead, kContent, kCall, kClose, kJsonAnswer };
  // Follows JSON to the end of its first object or list.
  struct Scan {
    size_t offset = 0;  // of pending_
    int depth = 0;
    bool is_in_string = false;
    bool is_escaped = false;
  };

  bool Step(AnswerParts& out);  // false: more text is needed
  bool StepStart();
  bool StepReasoning(AnswerParts& out);
  bool StepLead();
  bool StepContent(AnswerParts& out);
  bool StepCall(AnswerParts& out);
  bool StepClose();
  bool FindEnd(size_t begin, size_t& end);
  void EndCall(size_t num_bytes, AnswerParts& out);
  bool AcceptJsonAnswer(AnswerParts& out);
  void EmitContent(std::string_view text, AnswerParts& out);
  size_t HeldBytes(std::string_view marker) const;

  const AnswerParserOptions options_;
  const std::string_view marker_;  // begins a call
  State state_ = State::kStart;
  std::string pending_;  // not yet looked at, or not yet enough to decide
  std::string spaces_;   // white space that is content only if content follows
  Scan scan_;
  bool has_reasoned_ = false;  // some reasoning was reported
  bool drops_spaces_ = false;  // the next white space follows reasoning or a call
  int32_t num_calls_ = 0;
  int32_t num_malformed_ = 0;
};

}  // namespace millrace
