// SPDX-License-Identifier: Apache-2.0
#include "engine/grammar/tool_calls.h"

#include "absl/strings/str_cat.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/text/offered_tool.h"
#include "engine/text/template_json.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

const char* const kThink = "<think>";
const char* const kThinkEnd = "</think>";

const TemplateValue* FindFunction(const TemplateValue& tools, const std::string& name) {
  if (!tools.is_list()) return nullptr;
  for (const TemplateValue& tool : tools.as_list().items) {
    const OfferedFunction offered = ReadOfferedFunction(tool);
    if (offered.function != nullptr && offered.name == name) return offered.function;
  }
  return nullptr;
}

bool IsStrict(const TemplateValue& function) {
  const TemplateValue* strict = function.as_dict().Find("strict");
  return strict != nullptr && strict->is_bool() && strict->as_bool();
}

// What a tool's arguments may be, where it is what the schemas say, and where any object would do instead.
enum class Arguments : uint8_t { kAsSchema, kAnyObject };

// One grammar under construction. Stack object, one thread.
class CallCompiler {
 public:
  CallCompiler(const TemplateValue& tools, const CallGrammarOptions& options, Arguments arguments)
      : tools_(tools),
        options_(options),
        arguments_(arguments),
        builder_(limits_.max_states),
        compiler_(builder_, limits_) {}

  absl::StatusOr<std::shared_ptr<const Grammar>> Compile() {
    for (const std::string& name : options_.names) {
      RETURN_IF_ERROR(AddTool(name));
    }
    root_ = builder_.NewRule();
    const int32_t answer = EmitReasoning(builder_.start(root_));
    switch (options_.format) {
      case ToolCallFormat::kHermes:
        EmitHermes(answer);
        break;
      case ToolCallFormat::kLlamaJson:
        EmitLlama(answer);
        break;
      case ToolCallFormat::kMistral:
        EmitMistral(answer);
        break;
      case ToolCallFormat::kNone:
        MILLRACE_CHECK(false, "no calls without a way to write them");
    }
    return builder_.Build(root_);
  }

 private:
  struct Tool {
    std::string name, quoted_name;
    int32_t arguments;  // a rule
  };

  absl::Status AddTool(const std::string& name) {
    const TemplateValue* function = FindFunction(tools_, name);
    if (function == nullptr) return absl::InvalidArgumentError(absl::StrCat("there is no tool '", name, "'"));
    const TemplateValue* parameters = function->as_dict().Find("parameters");
    bool is_any = parameters == nullptr || parameters->is_none();
    if (!is_any && !options_.is_required && !IsStrict(*function)) {
      is_any = arguments_ == Arguments::kAnyObject || !CompileJsonSchema(*parameters).ok();
    }
    ASSIGN_OR_RETURN(const int32_t rule, compiler_.Compile(is_any ? any_object_ : *parameters));
    TemplateStringBuilder quoted;
    RETURN_IF_ERROR(AppendJson(*function->as_dict().Find("name"), {}, quoted));
    offered_.push_back({.name = name, .quoted_name = std::string(quoted.Build().view()), .arguments = rule});
    return absl::OkStatus();
  }

  int32_t end() const { return builder_.end(root_); }
  // Where an answer that need not call may be over.
  int32_t text_end() const { return options_.is_required ? -1 : end(); }

  // The state in which the answer proper begins.
  int32_t EmitReasoning(int32_t from) {
    if (!options_.has_reasoning && !options_.starts_in_reasoning) return from;
    const int32_t answer = builder_.NewState(), behind = options_.is_required ? builder_.NewState() : answer;
    int32_t inside = from;
    if (!options_.starts_in_reasoning) {
      builder_.Empty(from, answer);
      const int32_t lead = EmitSpaces(from);
      inside = builder_.NewState();
      builder_.Marker(lead, kThink, inside);
    }
    builder_.TextUntil(inside, kThinkEnd, {.behind = behind, .end = text_end()});
    if (behind != answer) builder_.Empty(EmitSpaces(behind), answer);
    return answer;
  }

  // Behind any white space.
  int32_t EmitSpaces(int32_t from) {
    const int32_t spaces = builder_.NewState();
    builder_.Empty(from, spaces);
    for (const char space : {' ', '\n', '\r', '\t'}) builder_.Byte(spaces, space, spaces);
    return spaces;
  }

  int32_t EmitLineEnd(int32_t from) {
    const int32_t to = builder_.NewState();
    builder_.Empty(from, to);
    builder_.Byte(from, '\n', to);
    return to;
  }

  // The text, and one space if there is one.
  int32_t EmitSeparator(int32_t from, std::string_view text) {
    const int32_t behind = builder_.Literal(from, text), to = builder_.NewState();
    builder_.Empty(behind, to);
    builder_.Byte(behind, ' ', to);
    return to;
  }

  // From behind {"name" to before what follows the arguments.
  int32_t EmitMembers(int32_t from, std::string_view arguments_key) {
    const int32_t name = EmitSeparator(from, ":"), behind = builder_.NewState();
    for (const Tool& tool : offered_) {
      const int32_t key = EmitSeparator(builder_.Literal(name, tool.quoted_name), ",");
      builder_.Call(EmitSeparator(key, arguments_key), tool.arguments, behind);
    }
    return behind;
  }

  void EmitHermes(int32_t from) {
    const int32_t begin = builder_.NewState(), closed = builder_.NewState();
    if (options_.is_required) {
      builder_.Marker(from, "<tool_call>", begin);
    } else {
      builder_.TextUntil(from, "<tool_call>", {.behind = begin, .end = end()});
    }
    const int32_t behind = EmitMembers(builder_.Literal(EmitLineEnd(begin), R"({"name")"), R"("arguments":)");
    builder_.Marker(EmitLineEnd(builder_.Literal(behind, "}")), "</tool_call>", closed);
    builder_.Empty(closed, end());
    if (options_.count == CallCount::kOne) return;
    builder_.Empty(options_.is_required ? builder_.Literal(closed, "\n") : closed, from);
  }

  // A text that is JSON from its first byte on is calls if its first key is "name", else an answer like any other.
  void EmitLlama(int32_t from) {
    const int32_t call = builder_.NewState(), named = builder_.NewState();
    const int32_t lead = EmitSpaces(from);
    if (options_.is_required) {
      builder_.Empty(from, call);
      builder_.Marker(from, "<|python_tag|>", call);
    } else {
      builder_.TextUntil(lead, "<|python_tag|>", {.behind = call, .end = end(), .not_first = " \n\r\t{"});
      EmitOtherObject(lead, named);
    }
    builder_.LiteralTo(call, R"({"name")", named);
    const int32_t closed = builder_.Literal(EmitMembers(named, R"("parameters":)"), "}");
    builder_.Empty(closed, end());
    if (options_.count == CallCount::kAny) builder_.Empty(EmitSeparator(closed, ";"), call);
  }

  // An object whose first key is "name" leads to `named`; where the key turns out to be another, anything may follow.
  void EmitOtherObject(int32_t from, int32_t named) {
    const int32_t any = builder_.NewState();
    builder_.Symbols(any, {0, kOtherControl}, any);
    builder_.Empty(any, end());
    int32_t state = EmitSpaces(builder_.Literal(from, "{"));
    constexpr std::string_view kKey = "\"name\"";
    for (size_t i = 0; i < kKey.size(); ++i) {
      const int32_t next = i + 1 == kKey.size() ? named : builder_.NewState();
      const std::string_view known = i == 0 ? std::string_view("\" \n\r\t") : kKey.substr(i, 1);
      for (int symbol = 0; symbol <= kOtherControl; ++symbol) {
        const bool is_known = symbol < 256 && known.find(static_cast<char>(symbol)) != std::string_view::npos;
        if (!is_known) builder_.Symbols(state, {symbol, symbol}, any);
      }
      builder_.Empty(state, end());
      builder_.Byte(state, kKey[i], next);
      state = next;
    }
  }

  // A list of objects, or name[ARGS]{...} after each marker; a model writes the one it was trained on.
  void EmitMistral(int32_t from) {
    const int32_t call = builder_.NewState();
    if (options_.is_required) {
      builder_.Marker(from, "[TOOL_CALLS]", call);
    } else {
      builder_.TextUntil(from, "[TOOL_CALLS]", {.behind = call, .end = end()});
    }
    EmitMistralList(call);
    const int32_t closed = builder_.NewState();
    for (const Tool& tool : offered_) {
      const int32_t name = builder_.Literal(call, tool.name), id = builder_.NewState(), behind = builder_.NewState();
      builder_.Marker(name, "[ARGS]", behind);
      builder_.Marker(name, "[CALL_ID]", id);
      builder_.Marker(EmitMistralId(id), "[ARGS]", behind);
      builder_.Call(behind, tool.arguments, closed);
    }
    builder_.Empty(closed, end());
    if (options_.count == CallCount::kAny) builder_.Marker(closed, "[TOOL_CALLS]", call);
  }

  void EmitMistralList(int32_t from) {
    const int32_t item = builder_.Literal(EmitSpaces(from), "["), closed = builder_.NewState();
    const int32_t behind = EmitMembers(builder_.Literal(item, R"({"name")"), R"("arguments":)");
    builder_.LiteralTo(behind, "}", closed);
    const int32_t id = builder_.Literal(EmitSeparator(EmitSeparator(behind, ","), R"("id":)"), "\"");
    builder_.LiteralTo(EmitMistralId(id), "\"}", closed);
    if (options_.count == CallCount::kAny) builder_.Empty(EmitSeparator(closed, ","), item);
    builder_.LiteralTo(closed, "]", end());
  }

  // The nine letters and digits of a call's id.
  int32_t EmitMistralId(int32_t from) {
    for (int i = 0; i < 9; ++i) {
      const int32_t next = builder_.NewState();
      for (const auto& [low, high] : {std::pair('0', '9'), std::pair('A', 'Z'), std::pair('a', 'z')}) {
        builder_.Symbols(from, {low, high}, next);
      }
      from = next;
    }
    return from;
  }

  const TemplateValue any_object_ = *ParseJsonValue(R"({"type": "object"})");
  const TemplateValue& tools_;
  const CallGrammarOptions& options_;
  const Arguments arguments_;
  const JsonSchemaLimits limits_;
  GrammarBuilder builder_;
  SchemaCompiler compiler_;
  std::vector<Tool> offered_;
  int32_t root_ = -1;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Grammar>> CompileToolCalls(const TemplateValue& tools,
                                                                const CallGrammarOptions& options) {
  auto grammar = CallCompiler(tools, options, Arguments::kAsSchema).Compile();
  // Each schema can be had, yet all of them together may be too large.
  if (!grammar.ok() && !options.is_required) grammar = CallCompiler(tools, options, Arguments::kAnyObject).Compile();
  return grammar;
}

}  // namespace millrace
