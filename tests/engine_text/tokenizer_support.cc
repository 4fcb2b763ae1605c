// SPDX-License-Identifier: Apache-2.0
#include "tests/engine_text/tokenizer_support.h"

#include <cstdio>

#include "engine/text/byte_alphabet.h"

namespace millrace::testing {

std::string JsonQuote(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      quoted += escape;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

namespace {

std::string VocabJson(const std::vector<std::string>& tokens) {
  std::string json = "{";
  for (size_t i = 0; i < tokens.size(); ++i) {
    json += (i > 0 ? "," : "") + JsonQuote(tokens[i]) + ":" + std::to_string(i);
  }
  return json + "}";
}

std::string AddedJson(int id, const std::string& content, bool special, const std::string& flags = "") {
  return "{\"id\":" + std::to_string(id) + ",\"content\":" + JsonQuote(content) +
         ",\"special\":" + (special ? "true" : "false") + ",\"normalized\":false" + flags + "}";
}

}  // namespace

std::string ByteLevelJson() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
  const std::vector<std::pair<std::string, std::string>> merges = {{"h", "e"}, {"Ġ", "t"},   {"Ġt", "he"},
                                                                   {"l", "l"}, {"he", "ll"}, {"hell", "o"},
                                                                   {"Ã", "©"}, {"e", "n"},   {"en", "d"}};
  std::string merges_json;
  for (const auto& [left, right] : merges) {
    tokens.push_back(left + right);
    merges_json += (merges_json.empty() ? "[" : ",[") + JsonQuote(left) + "," + JsonQuote(right) + "]";
  }
  const int first_added = static_cast<int>(tokens.size());
  return "{\"added_tokens\":[" + AddedJson(first_added, "<|end|>", true) + "," +
         AddedJson(first_added + 1, "<|user|>", true) + "," + AddedJson(first_added + 2, "<tool>", false) + "," +
         AddedJson(first_added + 3, "   ", false) + "],\"normalizer\":{\"type\":\"NFC\"}," +
         "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}," +
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|user|>\"}}," +
         "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"<|end|>\"}}],\"special_tokens\":{" +
         "\"<|user|>\":{\"ids\":[" + std::to_string(first_added + 1) + "]},\"<|end|>\":{\"ids\":[" +
         std::to_string(first_added) + "]}}},\"decoder\":{\"type\":\"ByteLevel\"}," +
         "\"model\":{\"type\":\"BPE\",\"vocab\":" + VocabJson(tokens) + ",\"merges\":[" + merges_json + "]}}";
}

std::string SentencePieceJson() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens.push_back(name);
  }
  for (const char* c : {"▁", "a", "b", "e", "h", "l", "o", "t", "<", ">", "s", "/", "é"}) tokens.push_back(c);
  const std::vector<std::pair<std::string, std::string>> merges = {{"h", "e"},   {"▁", "t"}, {"▁t", "he"}, {"l", "l"},
                                                                   {"he", "ll"}, {"▁", "▁"}, {"<", "s"}};
  std::string merges_json;
  for (const auto& [left, right] : merges) {
    tokens.push_back(left + right);
    merges_json += (merges_json.empty() ? "" : ",") + JsonQuote(left + " " + right);
  }
  // A careless vocabulary: ordinary merges spell a control token.
  merges_json += "," + JsonQuote("<s >");
  return "{\"added_tokens\":[" + AddedJson(0, "<unk>", true) + "," + AddedJson(1, "<s>", true) + "," +
         AddedJson(2, "</s>", true) + "],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" +
         "{\"type\":\"Prepend\",\"prepend\":\"▁\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
         "\"},\"content\":\"▁\"}]}," +
         "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"▁\"}," +
         "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \"," +
         "\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true," +
         "\"byte_fallback\":true,\"vocab\":" + VocabJson(tokens) + ",\"merges\":[" + merges_json + "]}}";
}

}  // namespace millrace::testing
