// SPDX-License-Identifier: Apache-2.0
#include "tests/server/fake_engine.h"

#include <cstdio>
#include <cstdlib>

#include "server/wire/json_writer.h"

namespace millrace {
namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}<|{{ m.role if m.role == 'assistant' else 'user' }}|>{{ m.content }}"
    "{% if shows_calls %}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}{% endif %}"
    "{% endfor %}"
    "{% if tools %}[{{ tools | length }} tools]{% endif %}"
    "{# Its answers may hold <think></think> and <tool_call>. #}"
    "{% if shows_tools %}{{ tools | tojson }}{{ shows_tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

// GPT-2's byte alphabet: every byte as a visible character.
void AppendByteCharacter(int byte, std::string& out) {
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool is_own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int code = is_own ? b : next++;
    if (b != byte) continue;
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      out += static_cast<char>(0xC0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 0x3F));
    }
  }
}

}  // namespace

std::string ByteTokenizerJson() {
  std::string json = R"({"version":"1.0","added_tokens":[)";
  const char* specials[] = {"<|end|>", "<|user|>", "<|assistant|>"};
  for (int i = 0; i < 3; ++i) {
    if (i > 0) json += ',';
    json += R"({"id":)" + std::to_string(256 + i) + R"(,"content":")" + specials[i] +
            R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  }
  json += R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
          R"("use_regex":false},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":false,)"
          R"("trim_offsets":true,"use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
          R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)"
          R"("vocab":{)";
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    AppendByteCharacter(byte, character);
    if (byte > 0) json += ',';
    AppendJsonString(character, json);
    json += ':' + std::to_string(byte);
  }
  return json + R"(},"merges":[]}})";
}

FakeEngine::FakeEngine(Options options) : options_(std::move(options)) {
  auto tokenizer = Tokenizer::FromJson(options_.tokenizer_json.empty() ? ByteTokenizerJson() : options_.tokenizer_json);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
    std::abort();
  }
  tokenizer_ = *std::move(tokenizer);
  if (options_.has_template) template_ = *ChatTemplate::Parse(kTemplate, "", "<|end|>");
  model_.name = "fake";
  model_.vocab_tokens = 259;
  model_.hidden_dim = 4;
  model_.eos_token_ids = {kFakeEos};
  config_.max_model_tokens = options_.max_model_tokens;
  config_.num_pages = 100;
  thread_ = std::thread([this] { Run(); });
}

FakeEngine::~FakeEngine() {
  {
    absl::MutexLock lock(&mu_);
    is_stopping_ = true;
  }
  thread_.join();
}

absl::StatusOr<RequestHandle> FakeEngine::Submit(Request request, TokenSink sink) {
  if (options_.on_submit) options_.on_submit();
  absl::MutexLock lock(&mu_);
  if (static_cast<int32_t>(entries_.size()) >= options_.max_running) {
    return absl::ResourceExhaustedError("the queue is full: " + std::to_string(entries_.size()) + " requests wait");
  }
  request.id = RequestId{next_id_++};
  submitted_.push_back(request);
  const RequestId id = request.id;
  entries_[id.value] = {.request = std::move(request), .sink = std::make_shared<TokenSink>(std::move(sink))};
  return RequestHandle(id, [this](RequestId cancelled) { Cancel(cancelled); });
}

void FakeEngine::Cancel(RequestId id) {
  absl::MutexLock lock(&mu_);
  num_cancelled_ += static_cast<int>(entries_.erase(id.value));
}

void FakeEngine::Finish(RequestId id) {
  absl::MutexLock lock(&mu_);
  num_finished_early_ += static_cast<int>(entries_.erase(id.value));
}

absl::StatusOr<int32_t> FakeEngine::ResetPrefixCache(std::optional<uint64_t> salt, absl::Duration) {
  return options_.on_reset ? options_.on_reset(salt) : 0;
}

TokenResult FakeEngine::Describe(int32_t token, int32_t num_top) const {
  TokenResult result{.token = token};
  if (num_top < 0) return result;
  result.logprob = -0.5f - static_cast<float>(token % 7);
  result.rank = 1;
  for (int32_t i = 0; i < num_top; ++i) result.top.push_back({(token + i) % 256, -0.5f - static_cast<float>(i)});
  return result;
}

TokenEvent FakeEngine::NextEvent(Entry& entry) const {
  const Request& request = entry.request;
  TokenEvent event{.id = request.id, .num_cached_tokens = options_.num_cached_tokens, .is_first = entry.position == 0};
  if (request.kind == Request::Kind::kEmbed) {
    const auto count = static_cast<float>(request.prompt_tokens.size());
    event.embedding = {count, 0.25f, -1.5f, 1e-8f};
    event.finish = FinishReason::kStop;
    return event;
  }
  if (entry.position == 0 && request.sampling.num_prompt_logprobs >= 0) {
    for (size_t i = 1; i < request.prompt_tokens.size(); ++i) {
      event.prompt_logprobs.push_back(Describe(request.prompt_tokens[i], request.sampling.num_prompt_logprobs));
    }
  }
  int32_t token = kFakeEos;
  if (options_.script) {
    token = options_.script(request, entry.position);
  } else if (entry.position < static_cast<int32_t>(options_.answer.size())) {
    token = static_cast<unsigned char>(options_.answer[static_cast<size_t>(entry.position)]);
  }
  if (token < 0) {
    event.admitted = absl::Now();
    event.finish = FinishReason::kError;
    return event;
  }
  ++entry.position;
  event.tokens.push_back(Describe(token, request.sampling.num_top_logprobs));
  const std::vector<int32_t>& stops = request.stop_token_ids;
  if (!request.ignore_eos && entry.position > request.min_new_tokens &&
      std::find(stops.begin(), stops.end(), token) != stops.end()) {
    event.finish = FinishReason::kStop;
    event.matched_stop_token = token;
  } else if (entry.position >= request.max_new_tokens) {
    event.finish = FinishReason::kLength;
  }
  return event;
}

void FakeEngine::Run() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return is_stopping_ || (!entries_.empty() && !is_paused_);
  };
  while (true) {
    std::vector<std::pair<std::shared_ptr<TokenSink>, TokenEvent>> events;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&has_work));
      if (is_stopping_) return;
      for (auto entry = entries_.begin(); entry != entries_.end();) {
        events.emplace_back(entry->second.sink, NextEvent(entry->second));
        entry = events.back().second.finish == FinishReason::kNone ? std::next(entry) : entries_.erase(entry);
      }
    }
    for (auto& [sink, event] : events) (*sink)(std::move(event));
    if (options_.step_time > absl::ZeroDuration()) absl::SleepFor(options_.step_time);
  }
}

void FakeEngine::SetPaused(bool is_paused) {
  absl::MutexLock lock(&mu_);
  is_paused_ = is_paused;
}

void FakeEngine::FailAll(FinishReason reason) {
  std::map<uint64_t, Entry> entries;
  {
    absl::MutexLock lock(&mu_);
    entries.swap(entries_);
  }
  for (auto& [id, entry] : entries) (*entry.sink)({.id = RequestId{id}, .finish = reason});
}

SchedulerStats FakeEngine::stats() const {
  absl::MutexLock lock(&mu_);
  return {.num_running = static_cast<int32_t>(entries_.size()),
          .num_waiting = 3,
          .num_pages_total = 100,
          .num_pages_used = 25,
          .num_preemptions = 1,
          .prefix_query_tokens = 10,
          .prefix_hit_tokens = 5};
}

int FakeEngine::num_running() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(entries_.size());
}

int FakeEngine::num_cancelled() const {
  absl::MutexLock lock(&mu_);
  return num_cancelled_;
}

int FakeEngine::num_finished_early() const {
  absl::MutexLock lock(&mu_);
  return num_finished_early_;
}

bool FakeEngine::WaitRunning(int count) const {
  const auto is_reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return static_cast<int>(entries_.size()) == count; };
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithTimeout(absl::Condition(&is_reached), absl::Seconds(10));
}

std::vector<Request> FakeEngine::submitted() const {
  absl::MutexLock lock(&mu_);
  return submitted_;
}

}  // namespace millrace
