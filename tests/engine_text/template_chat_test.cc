// SPDX-License-Identifier: Apache-2.0
// Conversations through whole chat templates, and where model directories keep them.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "engine/text/chat_template.h"
#include "engine/text/template_json.h"

namespace millrace {
namespace {

constexpr std::string_view kChatMl =
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.content %}{{ m.content }}{% endif %}"
    "{%- for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function.name }} {{ c.function.arguments | tojson }}\n"
    "</tool_call>{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{%- if tools %}TOOLS:{{ tools | tojson }}{% endif %}"
    "{%- if enable_thinking is defined and not enable_thinking %}NOTHINK{% endif %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::unique_ptr<ChatTemplate> Parse(std::string_view text) {
  auto parsed = ChatTemplate::Parse(text, "<s>", "</s>");
  INFO(parsed.status());
  REQUIRE(parsed.ok());
  return *std::move(parsed);
}

ChatMessage Message(std::string role, ChatContent content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

Conversation OneUser(std::string text) {
  Conversation conversation;
  conversation.messages.push_back(Message("user", std::move(text)));
  return conversation;
}

std::string Render(const ChatTemplate& chat_template, const Conversation& conversation) {
  const auto prompt = chat_template.Render(conversation);
  return prompt.ok() ? std::string(prompt->text.view()) : "!!" + std::string(prompt.status().message());
}

// A directory of its own that goes with the test.
class ScratchDir {
 public:
  ScratchDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "millrace_chat_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchDir() { std::filesystem::remove_all(path_); }
  void Write(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("ChatTemplate: messages, tools, calls and variables reach the template", "[jinja]") {
  const auto chatml = Parse(kChatMl);
  CHECK(chatml->takes_tools());
  Conversation conversation = OneUser("Hi");
  CHECK(Render(*chatml, conversation) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  conversation.adds_generation_prompt = false;
  conversation.template_variables = *ParseJsonValue(R"({"enable_thinking": false, "messages": [], "eos_token": "x"})");
  CHECK(Render(*chatml, conversation) == "<|im_start|>user\nHi<|im_end|>\nNOTHINK");
  conversation.template_variables = TemplateValue();
  ChatMessage call = Message("assistant", {});
  call.tool_calls.push_back({"id1", "f", R"({"b": 1, "a": "ü"})"});
  call.tool_calls.push_back({"id2", "g", ""});
  conversation.messages.push_back(call);
  CHECK(Render(*chatml, conversation) ==
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<tool_call>\nf {\"b\": 1, \"a\": \"ü\"}\n"
        "</tool_call><tool_call>\ng {}\n</tool_call><|im_end|>\n");
  conversation.messages.pop_back();
  conversation.tools = *ParseJsonValue(R"([{"type": "function", "function": {"name": "f"}}])");
  CHECK(Render(*chatml, conversation) ==
        "<|im_start|>user\nHi<|im_end|>\nTOOLS:[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
}

TEST_CASE("ChatTemplate: contents and arguments come in the form the template takes", "[jinja]") {
  const std::vector<ContentPart> parts = {{"text", "one"}, {"text", "two"}};
  Conversation conversation;
  conversation.adds_generation_prompt = false;
  conversation.messages.push_back(Message("user", parts));
  // Text only: parts are joined by line ends.
  CHECK(Render(*Parse("{% for m in messages %}{{ '>' + m.content }}{% endfor %}"), conversation) == ">one\ntwo");
  // Parts only: text becomes a part.
  const auto listing = Parse("{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}");
  CHECK(Render(*listing, conversation) == "[one][two]");
  conversation.messages[0].content = std::string("x");
  CHECK(Render(*listing, conversation) == "[x]");
  // Both.
  const auto both = Parse(
      "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
      "{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}");
  CHECK(Render(*both, conversation) == "x");
  conversation.messages[0].content = parts;
  CHECK(Render(*both, conversation) == "[one][two]");
  // Arguments as text where a dict fails.
  conversation.messages[0].content = std::string("x");
  ChatMessage call = Message("assistant", std::string());
  call.tool_calls.push_back({"id1", "f", R"({"a": 1})"});
  conversation.messages.push_back(call);
  const auto text_args = Parse(
      "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
      "{{ 'CALL ' + c.function.arguments }}{% endfor %}{% endfor %}");
  CHECK(Render(*text_args, conversation) == "xCALL {\"a\": 1}");
}

TEST_CASE("ChatTemplate: the last message can be continued", "[jinja]") {
  const auto chatml = Parse(kChatMl);
  Conversation conversation = OneUser("Say: Sure");
  conversation.messages.push_back(Message("assistant", std::string("Sure, ")));
  conversation.continues_final_message = true;
  CHECK(Render(*chatml, conversation).find("exclude each other") != std::string::npos);
  conversation.adds_generation_prompt = false;
  CHECK(Render(*chatml, conversation) == "<|im_start|>user\nSay: Sure<|im_end|>\n<|im_start|>assistant\nSure, ");
  const auto trimming = Parse("{% for m in messages %}<{{ m.content|trim }}>{% endfor %}");
  CHECK(Render(*trimming, conversation) == "<Say: Sure><Sure,");
  conversation.messages[1].content = std::string("  ");
  CHECK(Render(*trimming, conversation).find("no text") != std::string::npos);
  const auto shouting = Parse("{% for m in messages %}{{ m.content|upper }}{% endfor %}");
  conversation.messages[1].content = std::string("Sure");
  CHECK(Render(*shouting, conversation).find("does not print the last message") != std::string::npos);
}

TEST_CASE("ChatTemplate: model directories are read as Hugging Face writes them", "[jinja]") {
  const ScratchDir dir;
  CHECK(LoadChatTemplate(dir.path()).status().code() == absl::StatusCode::kNotFound);
  CHECK(std::string(LoadChatTemplate(dir.path()).status().message()).find("--chat-template") != std::string::npos);

  dir.Write("tokenizer_config.json", R"({"bos_token": {"content": "<B>"}, "eos_token": null, "chat_template":
      [{"name": "default", "template": "D{{ bos_token }}{{ eos_token }}"}, {"name": "tool_use", "template": "T"}]})");
  dir.Write("special_tokens_map.json", R"({"bos_token": "<other>", "eos_token": "<E>"})");
  auto loaded = LoadChatTemplate(dir.path());
  REQUIRE(loaded.ok());
  Conversation conversation = OneUser("x");
  CHECK(Render(**loaded, conversation) == "D<B><E>");
  conversation.tools = *ParseJsonValue(R"([{"type": "function"}])");
  CHECK(Render(**loaded, conversation) == "T");

  dir.Write("chat_template.json", R"({"chat_template": "J"})");
  CHECK(Render(**LoadChatTemplate(dir.path()), conversation) == "J");
  dir.Write("chat_template.jinja", "{{ 'file' }}");
  CHECK(Render(**LoadChatTemplate(dir.path()), conversation) == "file");
  CHECK(Render(**LoadChatTemplate(dir.path(), "{{ 'given' }}"), conversation) == "given");
  dir.Write("other.txt", "{{ 'other' }}");
  CHECK(Render(**LoadChatTemplate(dir.path(), dir.path() + "/other.txt"), conversation) == "other");
  CHECK(LoadChatTemplate(dir.path(), dir.path() + "/none.txt").status().code() == absl::StatusCode::kNotFound);
  CHECK_FALSE(LoadChatTemplate(dir.path(), "{{ broken").ok());
  dir.Write("tokenizer_config.json", "{");
  CHECK_FALSE(LoadChatTemplate(dir.path()).ok());
}

}  // namespace millrace
