// SPDX-License-Identifier: Apache-2.0
#include "engine/text/answer_parser.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/text/json_slices.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kHermesCall = "<tool_call>";
constexpr std::string_view kHermesEnd = "</tool_call>";
constexpr std::string_view kMistralCall = "[TOOL_CALLS]";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kSpace = " \t\n\r\f\v";

std::string_view MarkerOf(ToolCallFormat format) {
  switch (format) {
    case ToolCallFormat::kHermes:
      return kHermesCall;
    case ToolCallFormat::kMistral:
      return kMistralCall;
    case ToolCallFormat::kLlamaJson:
      return kPythonTag;
    case ToolCallFormat::kNone:
      return {};
  }
  return {};
}

std::string_view TrimLeft(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

std::string_view Trim(std::string_view text) {
  text = TrimLeft(text);
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

// The text of a JSON string; false for anything else.
bool ReadString(std::string_view json, std::string& out) {
  const auto value = ParseJsonValue(json);
  if (!value.ok() || !value->is_string()) return false;
  out = std::string(value->as_string().view());
  return true;
}

// Arguments as some models write them: an object, its text in a string, or nothing.
bool ReadArguments(std::string_view json, std::string& out) {
  std::string text(json);
  if (!text.empty() && text.front() == '"' && !ReadString(json, text)) return false;
  const std::string_view trimmed = Trim(text);
  if (trimmed.empty() || trimmed == "null") {
    out = "{}";
    return true;
  }
  const auto value = ParseJsonValue(trimmed);
  out = std::string(trimmed);
  return value.ok() && value->is_dict();
}

// {"name": ..., "arguments" or "parameters": {...}}; other members do not matter. REQUIRES: valid JSON.
bool ReadCallObject(std::string_view json, ParsedToolCall& call) {
  if (json.empty() || json.front() != '{') return false;
  std::string_view arguments;
  for (const auto& [key, value] : JsonSlices(json)) {
    if (key == "name" && !ReadString(value, call.name)) return false;
    if (key == "arguments" || key == "parameters") arguments = value;
  }
  return !call.name.empty() && ReadArguments(arguments, call.arguments);
}

bool ReadHermes(std::string_view body, std::vector<ParsedToolCall>& calls) {
  return ParseJsonValue(body).ok() && ReadCallObject(body, calls.emplace_back());
}

// A list of call objects, or a name and its arguments, perhaps with [CALL_ID] and [ARGS] between.
bool ReadMistral(std::string_view body, std::vector<ParsedToolCall>& calls) {
  if (!body.empty() && body.front() == '[') {
    if (!ParseJsonValue(body).ok()) return false;
    for (const auto& [key, value] : JsonSlices(body)) {
      if (!ReadCallObject(value, calls.emplace_back())) return false;
    }
    return true;
  }
  const size_t object = body.find('{');
  if (object == std::string_view::npos) return false;
  ParsedToolCall& call = calls.emplace_back();
  call.name = std::string(Trim(body.substr(0, std::min(object, body.find('[')))));
  return !call.name.empty() && ReadArguments(body.substr(object), call.arguments);
}

}  // namespace

ToolCallFormat DetectToolCallFormat(const ChatTemplate& chat_template) {
  const std::string& text = chat_template.text_with_tools();
  const auto has = [&](std::string_view marker) { return text.find(marker) != std::string::npos; };
  if (has(kMistralCall)) return ToolCallFormat::kMistral;
  // Others that write <tool_call> put something else than JSON into it.
  if (has(kHermesCall) && !has("<function=") && !has("<arg_key>")) return ToolCallFormat::kHermes;
  if (has("<|start_header_id|>") && has("\"parameters\"")) return ToolCallFormat::kLlamaJson;
  return ToolCallFormat::kNone;
}

bool HasReasoning(const ChatTemplate& chat_template) {
  return chat_template.text_with_tools().find(kThinkEnd) != std::string::npos;
}

bool HasControlTokenMarkers(ToolCallFormat format) {
  return format == ToolCallFormat::kMistral || format == ToolCallFormat::kLlamaJson;
}

AnswerParser::AnswerParser(AnswerParserOptions options)
    : options_(std::move(options)), marker_(MarkerOf(options_.format)) {
  if (options_.starts_in_reasoning) {
    state_ = State::kReasoning;
  } else if (!options_.splits_reasoning) {
    state_ = State::kLead;
  }
}

void AnswerParser::Push(std::string_view piece, AnswerParts& out) {
  pending_ += piece;
  while (!pending_.empty() && Step(out)) {
  }
}

bool AnswerParser::Step(AnswerParts& out) {
  switch (state_) {
    case State::kStart:
      return StepStart();
    case State::kReasoning:
      return StepReasoning(out);
    case State::kLead:
      return StepLead();
    case State::kContent:
      return StepContent(out);
    case State::kCall:
      return StepCall(out);
    case State::kClose:
      return StepClose();
    case State::kJsonAnswer:
      return false;  // the answer's end decides
  }
  return false;
}

bool AnswerParser::StepStart() {
  const std::string_view text = TrimLeft(pending_);
  if (text.starts_with(kThink)) {
    pending_ = std::string(text.substr(kThink.size()));
    state_ = State::kReasoning;
    return true;
  }
  if (kThink.starts_with(text)) return false;  // white space so far, or a part of the marker
  state_ = State::kLead;
  return true;
}

bool AnswerParser::StepReasoning(AnswerParts& out) {
  if (!has_reasoned_) pending_ = std::string(TrimLeft(pending_));
  const size_t end = pending_.find(kThinkEnd);
  std::string_view text = std::string_view(pending_).substr(0, end);
  if (end == std::string::npos) text.remove_suffix(HeldBytes(kThinkEnd));
  const std::string_view trimmed = text.substr(0, text.find_last_not_of(kSpace) + 1);  // npos + 1 is 0
  out.reasoning += trimmed;
  has_reasoned_ |= !trimmed.empty();
  if (end == std::string::npos) {
    pending_.erase(0, trimmed.size());
    return false;
  }
  pending_.erase(0, end + kThinkEnd.size());
  drops_spaces_ = true;
  state_ = State::kLead;
  return true;
}

bool AnswerParser::StepLead() {
  if (options_.format == ToolCallFormat::kLlamaJson) {
    const std::string_view text = TrimLeft(pending_);
    if (text.empty()) return false;
    if (text.front() == '{') {
      state_ = State::kJsonAnswer;
      return false;
    }
  }
  state_ = State::kContent;
  return true;
}

bool AnswerParser::StepContent(AnswerParts& out) {
  const size_t found = marker_.empty() ? std::string::npos : pending_.find(marker_);
  if (found == std::string::npos) {
    const size_t num_certain = pending_.size() - HeldBytes(marker_);
    EmitContent(std::string_view(pending_).substr(0, num_certain), out);
    pending_.erase(0, num_certain);
    return false;
  }
  EmitContent(std::string_view(pending_).substr(0, found), out);
  spaces_.clear();
  pending_.erase(0, found + marker_.size());
  scan_ = {};
  state_ = options_.format == ToolCallFormat::kLlamaJson ? State::kJsonAnswer : State::kCall;
  return true;
}

// Moves the scan on to the end of the first object or list at or behind `begin`; true once it is there.
bool AnswerParser::FindEnd(size_t begin, size_t& end) {
  scan_.offset = std::max(scan_.offset, begin);
  for (; scan_.offset < pending_.size(); ++scan_.offset) {
    const char c = pending_[scan_.offset];
    if (scan_.is_escaped) {
      scan_.is_escaped = false;
    } else if (scan_.is_in_string) {
      scan_.is_escaped = c == '\\';
      scan_.is_in_string = c != '"';
    } else if (c == '"') {
      scan_.is_in_string = true;
    } else if (c == '{' || c == '[') {
      ++scan_.depth;
    } else if ((c == '}' || c == ']') && --scan_.depth <= 0) {
      end = scan_.offset + 1;
      return true;
    }
  }
  return false;
}

// A call goes from its marker to the end of its JSON; where there is none, to the closing marker.
bool AnswerParser::StepCall(AnswerParts& out) {
  size_t begin = pending_.find_first_not_of(kSpace);
  if (begin == std::string::npos) return false;
  size_t end = 0;
  if (options_.format == ToolCallFormat::kHermes && pending_[begin] != '{') {
    end = pending_.find(kHermesEnd, begin);
    if (end == std::string::npos) return false;
  } else {
    // Mistral's [ARGS] and [CALL_ID] behind a name are no lists.
    if (pending_[begin] != '[') begin = pending_.find('{', begin);
    if (begin == std::string::npos || !FindEnd(begin, end)) return false;
  }
  EndCall(end, out);
  return true;
}

// The first bytes of pending_ are a call, or else content.
void AnswerParser::EndCall(size_t num_bytes, AnswerParts& out) {
  const std::string body(Trim(std::string_view(pending_).substr(0, num_bytes)));
  pending_.erase(0, num_bytes);
  std::vector<ParsedToolCall> calls;
  const bool is_mistral = options_.format == ToolCallFormat::kMistral;
  const bool is_call = is_mistral ? ReadMistral(body, calls) : ReadHermes(body, calls);
  if (is_call) {
    num_calls_ += static_cast<int32_t>(calls.size());
    std::move(calls.begin(), calls.end(), std::back_inserter(out.calls));
    drops_spaces_ = true;
  } else {
    ++num_malformed_;
    EmitContent(body, out);
  }
  state_ = is_mistral ? State::kContent : State::kClose;
}

bool AnswerParser::StepClose() {
  const std::string_view text = TrimLeft(pending_);
  if (text.starts_with(kHermesEnd)) {
    pending_ = std::string(text.substr(kHermesEnd.size()));
  } else if (kHermesEnd.starts_with(text)) {
    return false;
  }
  state_ = State::kContent;
  return true;
}

void AnswerParser::EmitContent(std::string_view text, AnswerParts& out) {
  if (drops_spaces_) text = TrimLeft(text);
  if (text.empty()) return;
  drops_spaces_ = false;
  if (marker_.empty()) {
    out.content += text;
    return;
  }
  spaces_ += text;
  const size_t num_certain = spaces_.find_last_not_of(kSpace) + 1;  // npos + 1 is 0
  out.content += spaces_.substr(0, num_certain);
  spaces_.erase(0, num_certain);
}

size_t AnswerParser::HeldBytes(std::string_view marker) const {
  for (size_t n = std::min(marker.size() - std::min<size_t>(marker.size(), 1), pending_.size()); n > 0; --n) {
    if (pending_.ends_with(marker.substr(0, n))) return n;
  }
  return 0;
}

// Llama's answer in JSON: calls of tools that were offered, one after another, or an answer like any other.
bool AnswerParser::AcceptJsonAnswer(AnswerParts& out) {
  std::vector<ParsedToolCall> calls;
  while (true) {
    const size_t begin = pending_.find_first_not_of(calls.empty() ? " \t\n\r" : " \t\n\r;,");
    if (begin == std::string::npos) break;
    size_t end = 0;
    scan_ = {};
    if (pending_[begin] != '{' || !FindEnd(begin, end)) return false;
    const std::string object = pending_.substr(begin, end - begin);
    if (!ParseJsonValue(object).ok() || !ReadCallObject(object, calls.emplace_back())) return false;
    const auto& names = options_.tool_names;
    if (std::find(names.begin(), names.end(), calls.back().name) == names.end()) return false;
    pending_.erase(0, end);
  }
  num_calls_ += static_cast<int32_t>(calls.size());
  std::move(calls.begin(), calls.end(), std::back_inserter(out.calls));
  return !calls.empty();
}

void AnswerParser::Finish(AnswerParts& out) {
  switch (state_) {
    case State::kReasoning:
      if (!has_reasoned_) pending_ = std::string(TrimLeft(pending_));
      out.reasoning += std::string_view(pending_).substr(0, pending_.find_last_not_of(kSpace) + 1);
      return;
    case State::kJsonAnswer: {
      const std::string text = pending_;
      if (AcceptJsonAnswer(out)) return;
      EmitContent(text, out);
      break;
    }
    case State::kCall:  // cut off
      EmitContent(Trim(pending_), out);
      break;
    case State::kClose:
      break;
    case State::kStart:
    case State::kLead:
    case State::kContent:
      EmitContent(pending_, out);
      break;
  }
  if (num_calls_ == 0) out.content += spaces_;
}

}  // namespace millrace
