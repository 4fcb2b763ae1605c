// SPDX-License-Identifier: Apache-2.0
#include "agent/mcp/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace millrace {
namespace {

constexpr size_t kMaxOutboxBytes = 4 << 20;  // a server that does not read is given up
constexpr size_t kPieceBytes = 64 << 10;
constexpr absl::Duration kPoliteTime = absl::Milliseconds(500);  // to leave after its input ended, and after SIGTERM
constexpr absl::Duration kWaitWithoutFd = absl::Milliseconds(20);

int Milliseconds(absl::Duration wait) {
  return static_cast<int>(absl::ToInt64Milliseconds(std::clamp(wait, absl::ZeroDuration(), absl::Hours(1)))) + 1;
}

void Clear(int event_fd) {
  uint64_t count = 0;
  if (read(event_fd, &count, sizeof(count)) < 0) return;  // nothing was there
}

void Raise(int event_fd) {
  const uint64_t one = 1;
  if (event_fd >= 0 && write(event_fd, &one, sizeof(one)) < 0) return;  // full: it is readable already
}

}  // namespace

// One request's place for its answer.
class McpChannel::Waiter {
 public:
  void Give(absl::StatusOr<Answer> answer) {
    absl::MutexLock lock(&mu_);
    if (answer_.has_value()) return;
    answer_ = std::move(answer);
    Raise(fd_.get());
  }

  absl::StatusOr<Answer> Wait(absl::Time deadline, const Cancellation& cancellation) {
    while (true) {
      {
        absl::MutexLock lock(&mu_);
        if (answer_.has_value()) return *std::move(answer_);
      }
      if (cancellation.is_cancelled()) return absl::CancelledError("the call was cancelled");
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("there was no answer in time");
      const bool has_fds = fd_.get() >= 0 && cancellation.fd() >= 0;
      pollfd pollers[] = {{fd_.get(), POLLIN, 0}, {cancellation.fd(), POLLIN, 0}};
      poll(pollers, std::size(pollers), Milliseconds(has_fds ? left : std::min(left, kWaitWithoutFd)));
    }
  }

 private:
  const UniqueFd fd_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  absl::Mutex mu_;
  std::optional<absl::StatusOr<Answer>> answer_ ABSL_GUARDED_BY(mu_);
};

// How the thread's start went; lives until it is told.
struct McpChannel::Opened {
  absl::Status status;
  absl::Notification is_known;
};

McpChannel::McpChannel(Events events) : events_(std::move(events)), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

absl::StatusOr<std::unique_ptr<McpChannel>> McpChannel::Open(const std::function<absl::StatusOr<McpPeer>()>& launch,
                                                             Events events) {
  std::unique_ptr<McpChannel> channel(new McpChannel(std::move(events)));
  if (channel->wake_fd_.get() < 0) return absl::InternalError("no descriptor is left");
  Opened opened;
  try {
    channel->thread_ = std::thread([&launch, &opened, self = channel.get()] { self->Work(launch, opened); });
  } catch (const std::system_error&) {
    return absl::InternalError("the system gives no more threads");
  }
  opened.is_known.WaitForNotification();
  if (!opened.status.ok()) return opened.status;
  return channel;
}

McpChannel::~McpChannel() {
  {
    absl::MutexLock lock(&mu_);
    is_stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

bool McpChannel::is_open() const {
  absl::MutexLock lock(&mu_);
  return is_open_ && !is_stopping_;
}

// ---- callers ----------------------------------------------------------------------------------------------------

absl::Status McpChannel::Enqueue(const std::string& line) {
  if (!is_open_ || is_stopping_) return absl::UnavailableError("the tool server has ended");
  if (outbox_.size() + line.size() > kMaxOutboxBytes) {
    is_stopping_ = true;
    Wake();
    return absl::UnavailableError("the tool server does not read what it is sent");
  }
  outbox_ += line;
  Wake();
  return absl::OkStatus();
}

absl::StatusOr<McpChannel::Answer> McpChannel::Request(const Ask& ask, const Cancellation& cancellation) {
  auto waiter = std::make_shared<Waiter>();
  int64_t id = 0;
  {
    absl::MutexLock lock(&mu_);
    id = ++last_id_;
    absl::StatusOr<std::string> line = RpcRequestLine(id, ask.method, ask.params);
    if (!line.ok()) return line.status();
    if (absl::Status status = Enqueue(*line); !status.ok()) return status;
    waiters_[id] = waiter;
  }
  absl::StatusOr<Answer> answer = waiter->Wait(ask.deadline, cancellation);
  bool is_abandoned = false;
  {
    absl::MutexLock lock(&mu_);
    is_abandoned = waiters_.erase(id) > 0;
  }
  if (!answer.ok() && is_abandoned && ask.on_abandon == OnAbandon::kTellServer) {
    TemplateValue params = TemplateValue::Dict();
    params.as_dict().Set("requestId", TemplateValue::Int(id));
    params.as_dict().Set("reason", TemplateValue::Text(std::string(answer.status().message())));
    // Where even that cannot be sent, the server is beyond hearing it.
    (void)Notify("notifications/cancelled", params);
  }
  return answer;
}

absl::Status McpChannel::Send(std::string_view method, const TemplateValue& params) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<std::string> line = RpcRequestLine(++last_id_, method, params);
  return line.ok() ? Enqueue(*line) : line.status();
}

absl::Status McpChannel::Notify(std::string_view method, const TemplateValue& params) {
  const absl::StatusOr<std::string> line = RpcNotificationLine(method, params);
  if (!line.ok()) return line.status();
  absl::MutexLock lock(&mu_);
  return Enqueue(*line);
}

void McpChannel::Wake() const { Raise(wake_fd_.get()); }

// ---- the channel's thread ---------------------------------------------------------------------------------------

void McpChannel::Work(const std::function<absl::StatusOr<McpPeer>()>& launch, Opened& opened) {
  // Writing to a server that has ended is an error like others.
  sigset_t broken_pipe;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  absl::StatusOr<McpPeer> peer = launch();
  opened.status = peer.status();
  if (peer.ok()) {
    absl::MutexLock lock(&mu_);
    is_open_ = true;
  }
  opened.is_known.Notify();  // both `launch` and `opened` may be gone from here on
  if (!peer.ok()) return;
  Converse(*peer);
  std::map<int64_t, std::shared_ptr<Waiter>> waiters;
  {
    absl::MutexLock lock(&mu_);
    is_open_ = false;
    waiters.swap(waiters_);
  }
  for (const auto& [id, waiter] : waiters) waiter->Give(absl::UnavailableError("the tool server has ended"));
  End(*peer);
}

void McpChannel::Converse(McpPeer& peer) {
  LineSplitter splitter(kMaxRpcLineBytes);
  while (true) {
    bool has_output = false;
    {
      absl::MutexLock lock(&mu_);
      if (is_stopping_) return;
      has_output = !outbox_.empty();
    }
    pollfd ends[] = {{wake_fd_.get(), POLLIN, 0},
                     {peer.output.get(), POLLIN, 0},
                     {peer.errors.get(), POLLIN, 0},
                     {peer.process.pidfd.get(), POLLIN, 0},
                     {has_output ? peer.input.get() : -1, POLLOUT, 0}};
    if (poll(ends, std::size(ends), -1) < 0) continue;
    Clear(wake_fd_.get());
    if (ends[2].revents != 0) ReadErrors(peer);
    const bool is_over = ends[3].revents != 0;  // whoever else holds its pipes: they say nothing more that counts
    if ((ends[1].revents != 0 || is_over) && !ReadOutput(peer, splitter)) return;
    if (is_over || (ends[4].revents != 0 && !WriteInput(peer))) return;
  }
}

// What is there, but no more than one round's share, so that nobody who floods keeps us from everything else. False:
// there will be nothing more.
bool McpChannel::ReadOutput(const McpPeer& peer, LineSplitter& splitter) {
  std::string piece(kPieceBytes, '\0');
  std::vector<std::string> lines;
  for (int round = 0; round < 16; ++round) {
    const ssize_t bytes = read(peer.output.get(), piece.data(), piece.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EAGAIN) return true;
    if (bytes <= 0) return false;
    lines.clear();
    const absl::Status status = splitter.Push(std::string_view(piece).substr(0, static_cast<size_t>(bytes)), lines);
    for (const std::string& line : lines) {
      if (!Handle(line)) return false;
    }
    if (status.ok()) continue;
    Fault(std::string(status.message()));
    return false;
  }
  return true;
}

void McpChannel::ReadErrors(McpPeer& peer) {
  char piece[4096];
  for (int round = 0; round < 16; ++round) {
    const ssize_t bytes = read(peer.errors.get(), piece, sizeof(piece));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EAGAIN) return;
    if (bytes <= 0) return peer.errors.Close();
    for (const char byte : std::string_view(piece, static_cast<size_t>(bytes))) {
      if (byte != '\n' && error_line_.size() < kMaxErrorLineBytes) error_line_ += byte;
      if (byte != '\n') continue;
      const std::string line = std::exchange(error_line_, {});
      if (!line.empty() && events_.on_error_line) events_.on_error_line(line);
    }
  }
}

bool McpChannel::WriteInput(const McpPeer& peer) {
  absl::MutexLock lock(&mu_);
  while (!outbox_.empty()) {
    const ssize_t bytes = write(peer.input.get(), outbox_.data(), std::min(outbox_.size(), kPieceBytes));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EAGAIN) return true;
    if (bytes < 0) return false;
    outbox_.erase(0, static_cast<size_t>(bytes));
  }
  return true;
}

// False: there is no point in going on.
bool McpChannel::Handle(std::string_view line) {
  absl::StatusOr<RpcMessage> message = ParseRpcMessage(line);
  if (!message.ok()) {
    Fault(std::string(message.status().message()));
    return true;
  }
  if (const auto* request = std::get_if<RpcRequest>(&*message)) return HandleRequest(*request);
  if (const auto* notification = std::get_if<RpcNotification>(&*message)) {
    const bool is_change = notification->method == "notifications/tools/list_changed";
    if (is_change && events_.on_tools_changed) events_.on_tools_changed();
    return true;
  }
  auto* result = std::get_if<RpcResult>(&*message);
  const int64_t id = result != nullptr ? result->id : std::get<RpcFailure>(*message).id;
  std::shared_ptr<Waiter> waiter;
  {
    absl::MutexLock lock(&mu_);
    const auto found = waiters_.find(id);
    // Never asked, answered before, or given up on: the last is nobody's fault.
    if (found == waiters_.end()) return true;
    waiter = std::move(found->second);
    waiters_.erase(found);
  }
  waiter->Give(result != nullptr ? Answer(std::move(*result)) : Answer(std::move(std::get<RpcFailure>(*message))));
  return true;
}

// We declare no capability, so nothing but a ping has an answer. Who asks and does not read is given up.
bool McpChannel::HandleRequest(const RpcRequest& request) {
  const std::string line = request.method == "ping"
                               ? RpcEmptyResultLine(request.id)
                               : RpcFailureLine(request.id, kRpcMethodNotFound, "this client does not support it");
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    status = Enqueue(line);
  }
  if (!status.ok()) Fault(std::string(status.message()));
  return status.ok();
}

void McpChannel::Fault(std::string_view what) {
  if (num_faults_++ < kMaxFaults && events_.on_fault) events_.on_fault(what);
}

// Politely first: its input has ended, then SIGTERM. Then all of its group, which keeps its number until the process is
// reaped.
void McpChannel::End(McpPeer& peer) const {
  peer.input.Close();
  const LaunchedProcess& process = peer.process;
  if (process.pid <= 0) return;
  pollfd end{process.pidfd.get(), POLLIN, 0};
  const auto has_left = [&end] { return poll(&end, 1, Milliseconds(kPoliteTime)) > 0; };
  if (!has_left()) {
    kill(-process.pid, SIGTERM);
    (void)has_left();
  }
  kill(-process.pid, SIGKILL);
  siginfo_t info{};
  while (syscall(SYS_waitid, P_PIDFD, process.pidfd.get(), &info, WEXITED, nullptr) != 0 && errno == EINTR) {
  }
}

}  // namespace millrace
