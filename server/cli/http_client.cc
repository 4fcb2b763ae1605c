// SPDX-License-Identifier: Apache-2.0
#include "server/cli/http_client.h"

#include <curl/curl.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/wire/json_fields.h"

namespace millrace {
namespace {

constexpr size_t kMaxReplyBytes = 64 << 20;
constexpr size_t kMaxLineBytes = 16 << 20;

struct Transfer {
  const HttpCall& call;
  CURL* handle;
  HttpReply reply;
  bool is_ended_early = false;
};

size_t TakeBytes(char* data, size_t, size_t num_bytes, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  curl_easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &transfer.reply.status);
  const std::string_view bytes(data, num_bytes);
  if (transfer.call.on_bytes && transfer.reply.status == 200) {
    if (transfer.call.on_bytes(bytes)) return num_bytes;
    transfer.is_ended_early = true;
    return 0;
  }
  if (transfer.reply.body.size() + num_bytes > kMaxReplyBytes) return 0;
  transfer.reply.body.append(bytes);
  return num_bytes;
}

int AskStopped(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.call.is_stopped || !transfer.call.is_stopped()) return 0;
  transfer.is_ended_early = true;
  return 1;
}

}  // namespace

absl::StatusOr<HttpReply> CallHttp(const HttpCall& call) {
  CURL* handle = curl_easy_init();
  if (handle == nullptr) return absl::InternalError("no HTTP client");
  Transfer transfer{call, handle, {}};
  curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
  headers = curl_slist_append(headers, "Expect:");
  if (!call.api_key.empty()) headers = curl_slist_append(headers, ("Authorization: Bearer " + call.api_key).c_str());
  curl_easy_setopt(handle, CURLOPT_URL, call.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &TakeBytes);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &AskStopped);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, call.is_stopped ? 0L : 1L);
  if (!call.body.empty()) {
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, call.body.c_str());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body.size()));
  }
  const CURLcode code = curl_easy_perform(handle);
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &transfer.reply.status);
  curl_slist_free_all(headers);
  curl_easy_cleanup(handle);
  if (code != CURLE_OK && !transfer.is_ended_early) {
    return absl::UnavailableError(absl::StrCat(call.url, ": ", curl_easy_strerror(code)));
  }
  return std::move(transfer.reply);
}

std::string ErrorMessage(std::string_view body) {
  const auto document = ParseJson(body);
  if (document.ok() && document->is_object() && document->contains("error")) {
    std::string message;
    JsonFields fields((*document)["error"]);
    fields.Read("message", message);
    if (!message.empty()) return message;
  }
  return std::string(body.substr(0, 300));
}

void SseReader::Push(std::string_view bytes) {
  for (const char c : bytes) {
    if (c != '\n') {
      if (c != '\r' && line_.size() < kMaxLineBytes) line_ += c;
      continue;
    }
    if (line_.compare(0, 5, "data:") == 0) {
      std::string_view data = std::string_view(line_).substr(5);
      if (!data.empty() && data.front() == ' ') data.remove_prefix(1);
      on_data_(data);
    }
    line_.clear();
  }
}

StreamChunk ParseStreamChunk(std::string_view json_text) {
  StreamChunk chunk;
  const auto document = ParseJson(json_text);
  if (!document.ok() || !document->is_object()) return chunk;
  if (document->contains("error")) {
    chunk.error = ErrorMessage(json_text);
    return chunk;
  }
  JsonFields fields(*document);
  if (const nlohmann::json* usage = fields.Find("usage"); usage != nullptr && usage->is_object()) {
    std::optional<int32_t> completion, prompt;
    JsonFields counts(*usage);
    counts.ReadInt("completion_tokens", 0, INT32_MAX, completion);
    counts.ReadInt("prompt_tokens", 0, INT32_MAX, prompt);
    chunk.num_completion_tokens = completion.value_or(-1);
    chunk.num_prompt_tokens = prompt.value_or(-1);
  }
  const nlohmann::json* choices = fields.Find("choices");
  if (choices == nullptr || !choices->is_array() || choices->empty()) return chunk;
  chunk.has_choice = true;
  JsonFields choice(choices->front());
  choice.Read("text", chunk.text);
  if (const nlohmann::json* delta = choice.Find("delta")) {
    JsonFields inner(*delta);
    inner.Read("content", chunk.text);
  }
  return chunk;
}

absl::StatusOr<std::string> FirstModel(const std::string& url, const std::string& api_key) {
  auto reply = CallHttp({.url = url + "/v1/models", .api_key = api_key});
  if (!reply.ok()) return reply.status();
  if (reply->status != 200) {
    return absl::UnavailableError(absl::StrCat(url, " answers ", reply->status, ": ", ErrorMessage(reply->body)));
  }
  const auto document = ParseJson(reply->body);
  if (document.ok() && document->is_object() && document->contains("data")) {
    const nlohmann::json& list = (*document)["data"];
    std::string id;
    if (list.is_array() && !list.empty()) JsonFields(list.front()).Read("id", id);
    if (!id.empty()) return id;
  }
  return absl::UnavailableError(absl::StrCat(url, " does not say which models it serves"));
}

}  // namespace millrace
