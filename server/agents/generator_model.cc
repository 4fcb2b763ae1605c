// SPDX-License-Identifier: Apache-2.0
#include "server/agents/generator_model.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/api/answer.h"
#include "server/api/call_id.h"
#include "server/pipeline/tool_calling.h"

namespace millrace {

// From the delivery thread to the run's, which waits for a delta or the cancellation, whichever comes first.
class GeneratorModel::Inbox {
 public:
  Inbox() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Inbox() {
    if (fd_ >= 0) close(fd_);
  }

  // What still comes of an earlier turn is refused.
  void Open(int32_t turn) {
    absl::MutexLock lock(&mu_);
    turn_ = turn;
    deltas_.clear();
  }
  void Close() { Open(-1); }

  bool Put(int32_t turn, TextDelta&& delta) {
    absl::MutexLock lock(&mu_);
    if (turn != turn_) return false;
    deltas_.push_back(std::move(delta));
    const uint64_t one = 1;
    if (deltas_.size() == 1 && write(fd_, &one, sizeof(one)) < 0) return true;  // full: it is readable already
    return true;
  }

  // Empty: the run was cancelled.
  std::vector<TextDelta> Take(const Cancellation& cancellation) {
    // Without a descriptor, looking now and then has to do.
    const int wait_ms = fd_ < 0 || cancellation.fd() < 0 ? 20 : -1;
    while (!cancellation.is_cancelled()) {
      {
        absl::MutexLock lock(&mu_);
        if (!deltas_.empty()) return std::exchange(deltas_, {});
      }
      pollfd pollers[] = {{fd_, POLLIN, 0}, {cancellation.fd(), POLLIN, 0}};
      poll(pollers, 2, wait_ms);
      uint64_t count = 0;
      if (read(fd_, &count, sizeof(count)) < 0) continue;  // nothing there: cancelled, or a signal
    }
    return {};
  }

 private:
  const int fd_;
  absl::Mutex mu_;
  int32_t turn_ ABSL_GUARDED_BY(mu_) = -1;
  std::vector<TextDelta> deltas_ ABSL_GUARDED_BY(mu_);
};

namespace {

// Turns the deltas of a text into those of a turn, and the turn itself.
class TurnBuilder {
 public:
  TurnBuilder(const AnswerParserOptions& options, int64_t made_at, int32_t turn_number)
      : parser_(options), made_at_(made_at), turn_number_(turn_number) {}

  TurnDelta Add(const TextDelta& delta) {
    AnswerParts parts;
    parser_.Push(delta.text, parts);
    const bool is_last = delta.finish != FinishReason::kNone;
    if (is_last) parser_.Finish(parts);
    TurnDelta out{.reasoning = std::move(parts.reasoning), .text = std::move(parts.content)};
    for (ParsedToolCall& call : parts.calls) {
      const std::string id = MakeCallId(made_at_, turn_number_, static_cast<int32_t>(turn.calls.size()));
      turn.calls.push_back({.id = id, .name = std::move(call.name), .arguments = std::move(call.arguments)});
      out.calls.push_back(turn.calls.back());
    }
    turn.reasoning += out.reasoning;
    turn.text += out.text;
    tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
    const auto num_tokens = static_cast<int64_t>(delta.tokens.size());
    turn.usage.num_output_tokens += num_tokens;
    if (!out.reasoning.empty()) turn.usage.num_reasoning_tokens += num_tokens;
    turn.usage.num_cached_tokens = delta.num_cached_tokens;
    if (is_last) {
      turn.status = FinishStatus(delta.finish);
      turn.finish = delta.finish == FinishReason::kLength ? TurnFinish::kLength : TurnFinish::kStop;
      if (const auto* stop = std::get_if<std::string>(&delta.stop_reason)) turn.stop_sequence = *stop;
    }
    return out;
  }

  const std::vector<int32_t>& tokens() const { return tokens_; }

  Turn turn;

 private:
  AnswerParser parser_;
  std::vector<int32_t> tokens_;
  const int64_t made_at_;
  const int32_t turn_number_;
};

}  // namespace

GeneratorModel::GeneratorModel(GeneratorModelArgs args)
    : generator_(std::move(args.generator)),
      caller_(std::move(args.caller)),
      params_(std::move(args.params)),
      on_refused_(std::move(args.on_refused)),
      made_at_(absl::GetCurrentTimeNanos()),
      engine_session_(generator_->engine().OpenSession()),
      inbox_(std::make_shared<Inbox>()),
      session_(generator_->engine().chat_template(), generator_->engine().tokenizer()) {}

GeneratorModel::~GeneratorModel() {
  inbox_->Close();
  generator_->engine().ReleaseSession(engine_session_);
}

ChatRequest GeneratorModel::Prepare(const TurnRequest& request) const {
  ChatRequest chat{.conversation = request.conversation,
                   .required_tools = request.required_tools,
                   .calls_once = request.calls == CallsPerTurn::kOne,
                   .session = engine_session_,
                   .params = params_};
  if (auto continued = session_.Continue(request.conversation)) chat.prompt = *std::move(continued);
  chat.params.max_tokens.reset();
  if (request.max_output_tokens == 0) return chat;
  if (chat.prompt.empty()) {
    // A fault of the rendering is found again, and told, by what runs it.
    if (auto rendered = generator_->RenderChat(chat); rendered.ok()) chat.prompt = *std::move(rendered);
  }
  const int64_t room =
      generator_->engine().scheduler_config().max_model_tokens - static_cast<int64_t>(chat.prompt.size());
  if (room > 0) chat.params.max_tokens = static_cast<int32_t>(std::min(room, request.max_output_tokens));
  return chat;
}

Turn GeneratorModel::Run(const TurnRequest& request, const std::function<void(TurnDelta&&)>& sink,
                         const Cancellation& cancellation) {
  const ChatRequest chat = Prepare(request);
  session_.Drop();
  Caller caller = caller_;
  caller.deadline = std::min(caller.deadline, request.deadline);
  caller.cache = CacheControl::Bypass();              // what a run's tools do is not in the key
  if (num_turns_ > 0) caller.received = absl::Now();  // of this turn: times to its first token count from here
  const int32_t number = num_turns_++;
  inbox_->Open(number);
  const auto generation = generator_->Chat(
      caller, chat, [inbox = inbox_, number](TextDelta&& delta) { return inbox->Put(number, std::move(delta)); });
  if (!generation.ok()) {
    if (on_refused_) on_refused_(generation.status());
    return {.status = generation.status()};
  }
  const std::vector<int32_t>& prompt = (*generation)->prompts()[0];
  TurnBuilder builder(ParserOptions(generator_->engine(), chat, prompt), made_at_, number);
  builder.turn.usage.num_prompt_tokens = static_cast<int64_t>(prompt.size());
  sink({.num_prompt_tokens = builder.turn.usage.num_prompt_tokens});
  for (bool is_over = false; !is_over;) {
    const std::vector<TextDelta> deltas = inbox_->Take(cancellation);
    if (deltas.empty()) {
      builder.turn.status = absl::CancelledError("the run was cancelled");
      break;
    }
    for (const TextDelta& delta : deltas) {
      is_over = is_over || delta.finish != FinishReason::kNone;
      TurnDelta out = builder.Add(delta);
      if (!out.reasoning.empty() || !out.text.empty() || !out.calls.empty()) sink(std::move(out));
    }
  }
  inbox_->Close();
  // Behind a stop string the text was cut, but not the tokens.
  if (builder.turn.status.ok() && builder.turn.stop_sequence.empty()) {
    session_.Keep(prompt, builder.tokens(), request.conversation.messages.size());
  }
  return std::move(builder.turn);
}

}  // namespace millrace
