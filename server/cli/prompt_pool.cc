// SPDX-License-Identifier: Apache-2.0
#include "server/cli/prompt_pool.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/cli/http_client.h"
#include "server/wire/json_fields.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

constexpr int32_t kPoolWords = 4000;
constexpr const char* kWords[] = {"river", "stone",  "wheel", "grain", "mill",  "water", "light", "seven", "north",
                                  "road",  "carry",  "small", "under", "green", "house", "open",  "slow",  "count",
                                  "paper", "garden", "bread", "turn",  "clear", "early", "wind",  "table", "song"};

}  // namespace

PromptPool::PromptPool(const std::string& url, const std::string& api_key, uint64_t seed) : random_(seed) {
  std::string body = R"({"prompt":)";
  AppendJsonString(Words(kPoolWords), body);
  body += R"(,"add_special_tokens":false})";
  const auto reply = CallHttp({.url = url + "/tokenize", .api_key = api_key, .body = body});
  if (!reply.ok() || reply->status != 200) return;
  const auto document = ParseJson(reply->body);
  if (document.ok()) JsonFields(*document).ReadTokenIds("tokens", 1 << 20, ids_);
}

std::string PromptPool::Words(int32_t num_words) {
  std::uniform_int_distribution<size_t> word(0, std::size(kWords) - 1);
  std::string text;
  for (int32_t i = 0; i < num_words; ++i) absl::StrAppend(&text, i > 0 ? " " : "", kWords[word(random_)]);
  return text;
}

std::string PromptPool::Body(bool is_chat, const std::string& model, int32_t input_tokens, int32_t output_tokens) {
  std::string body = R"({"model":)";
  AppendJsonString(model, body);
  absl::StrAppend(&body, R"(,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true,"temperature":0,)",
                  R"("max_tokens":)", output_tokens, R"(,"min_tokens":)", output_tokens);
  if (is_chat) {
    body += R"(,"messages":[{"role":"user","content":)";
    AppendJsonString(Words(input_tokens), body);
    body += "}]}";
    return body;
  }
  body += R"(,"prompt":)";
  if (ids_.empty()) {
    AppendJsonString(Words(input_tokens), body);
  } else {
    std::uniform_int_distribution<size_t> start(0, ids_.size() - 1);
    std::vector<int32_t> tokens(static_cast<size_t>(input_tokens));
    for (size_t i = 0, at = start(random_); i < tokens.size(); ++i) tokens[i] = ids_[(at + i) % ids_.size()];
    AppendJsonInts(tokens, body);
  }
  body += '}';
  return body;
}

}  // namespace millrace
