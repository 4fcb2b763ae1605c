// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

#include <atomic>
#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "agent/mcp/channel.h"
#include "agent/mcp/launch_peer.h"
#include "tests/agent/scripted_peer.h"

namespace millrace {
namespace {

const TemplateValue kNoParams = TemplateValue::Dict();
const absl::Duration kLong = absl::Seconds(60);

std::unique_ptr<McpChannel> Open(ScriptedPeer& peer, McpChannel::Events events = {}) {
  auto channel = McpChannel::Open([&peer] { return peer.Launch(); }, std::move(events));
  REQUIRE(channel.ok());
  return *std::move(channel);
}

absl::StatusOr<McpChannel::Answer> Ask(McpChannel& channel, std::string_view method, absl::Duration limit = kLong) {
  const Cancellation never;
  return channel.Request({.method = method, .params = kNoParams, .deadline = absl::Now() + limit}, never);
}

// The answer's "is", or what went wrong.
std::string Is(const absl::StatusOr<McpChannel::Answer>& answer) {
  if (!answer.ok()) return std::string(absl::StatusCodeToString(answer.status().code()));
  if (const auto* failure = std::get_if<RpcFailure>(&*answer)) return absl::StrCat("failure ", failure->code);
  const TemplateValue* is = std::get<RpcResult>(*answer).result.as_dict().Find("is");
  return is != nullptr && is->is_string() ? std::string(is->text()) : "?";
}

TEST_CASE("McpChannel: answers find their requests, in whatever order and pieces they come") {
  std::vector<ScriptedPeer::Line> held;
  ScriptedPeer peer([&held](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    held.push_back(line);
    if (held.size() < 8) return;
    for (size_t i = held.size(); i-- > 0;) {
      const std::string answer =
          absl::StrCat(R"({"jsonrpc":"2.0","id":)", held[i].id, R"(,"result":{"is":")", held[i].method, "\"}}\n");
      for (const char& byte : answer) self.Write({&byte, 1});
    }
  });
  const auto channel = Open(peer);
  std::atomic<int> num_right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const std::string method = absl::StrCat("m", i);
      if (Is(Ask(*channel, method)) == method) ++num_right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_right == 8);
}

TEST_CASE("McpChannel: junk, wrong ids, answers before the question and answers twice do no harm") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    self.Write("Listening on stdio\n\xFF\xFE\n[]\n{\"half\":\n");
    self.Write(R"({"jsonrpc":"2.0","id":99,"result":{"is":"nobody's"}})"
               "\n");
    self.Write(R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse"}})"
               "\n");
    self.Write(absl::StrCat(R"({"jsonrpc":"2.0","id":")", line.id, R"(","result":{"is":"text for a number"}})", "\n"));
    self.Write(R"({"jsonrpc":"2.0","id":2,"result":{"is":"too early"}})"
               "\n");
    self.Result(line, absl::StrCat(R"({"is":")", line.method, "\"}"));
    self.Result(line, R"({"is":"again"})");
  });
  std::atomic<int> num_faults = 0;
  const auto channel = Open(peer, {.on_fault = [&num_faults](std::string_view) { ++num_faults; }});
  CHECK(Is(Ask(*channel, "first")) == "first");
  CHECK(Is(Ask(*channel, "second")) == "too early");  // asked by now, whoever else says what it is
  CHECK(Is(Ask(*channel, "third")) == "third");
  CHECK(num_faults >= 5);
}

TEST_CASE("McpChannel: faults are told, but not without end") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    for (int i = 0; i < 1000; ++i) self.Write("junk\n");
    self.Result(line, R"({"is":"done"})");
  });
  std::atomic<int> num_faults = 0;
  const auto channel = Open(peer, {.on_fault = [&num_faults](std::string_view) { ++num_faults; }});
  CHECK(Is(Ask(*channel, "m")) == "done");
  CHECK(num_faults == McpChannel::kMaxFaults);
}

TEST_CASE("McpChannel: a line of a gigabyte ends the server, and takes no memory") {
  std::atomic<int64_t> num_written = 0;
  ScriptedPeer peer([&num_written](ScriptedPeer& self, const ScriptedPeer::Line&) {
    const std::string piece(1 << 20, 'x');
    for (; num_written < 1024; ++num_written) {
      if (!self.Write(piece)) return;
    }
  });
  const auto channel = Open(peer);
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
  CHECK_FALSE(channel->is_open());
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
  CHECK(num_written < 16);
}

TEST_CASE("McpChannel: a server that never answers costs the deadline, and hears of it") {
  ScriptedPeer peer([](ScriptedPeer&, const ScriptedPeer::Line&) {});
  const auto channel = Open(peer);
  CHECK(Is(Ask(*channel, "slow", absl::Milliseconds(5))) == "DEADLINE_EXCEEDED");
  CHECK(peer.WaitFor(R"("method":"notifications/cancelled","params":{"requestId":1,)"));
  CHECK(channel->is_open());
}

TEST_CASE("McpChannel: an opening question is not cancelled") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    if (line.method == "next") self.Result(line, R"({"is":"next"})");
  });
  const auto channel = Open(peer);
  const Cancellation never;
  CHECK_FALSE(channel
                  ->Request({.method = "initialize",
                             .params = kNoParams,
                             .deadline = absl::Now(),
                             .on_abandon = McpChannel::OnAbandon::kSayNothing},
                            never)
                  .ok());
  CHECK(Is(Ask(*channel, "next")) == "next");
  CHECK(peer.lines().size() == 2);
}

TEST_CASE("McpChannel: a cancelled call returns at once, and the server hears of it") {
  Cancellation cancellation;
  ScriptedPeer peer([&cancellation](ScriptedPeer&, const ScriptedPeer::Line& line) {
    if (line.method == "m") cancellation.Cancel();
  });
  const auto channel = Open(peer);
  const auto answer =
      channel->Request({.method = "m", .params = kNoParams, .deadline = absl::Now() + absl::Hours(1)}, cancellation);
  CHECK(absl::IsCancelled(answer.status()));
  CHECK(peer.WaitFor("notifications/cancelled"));
}

TEST_CASE("McpChannel: a server that leaves in the middle of a call fails the call, and all after it") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line&) {
    self.Write(R"({"jsonrpc":"2.0","id":1,"resu)");
    self.Close();
  });
  const auto channel = Open(peer);
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
}

TEST_CASE("McpChannel: a ping is answered; what we cannot do is refused") {
  std::vector<std::string> answers;
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    if (line.method == "m") {
      self.Write(R"({"jsonrpc":"2.0","id":"p","method":"ping"})"
                 "\n");
      for (const char* method : {"sampling/createMessage", "elicitation/create", "roots/list"}) {
        self.Write(absl::StrCat(R"({"jsonrpc":"2.0","id":7,"method":")", method, R"(","params":{}})", "\n"));
      }
      self.Result(line, "{}");
    }
  });
  const auto channel = Open(peer);
  CHECK(Is(Ask(*channel, "m")) == "?");
  CHECK(peer.WaitFor(R"({"jsonrpc":"2.0","id":"p","result":{}})"));
  CHECK(peer.WaitFor(R"({"jsonrpc":"2.0","id":7,"error":{"code":-32601,)"));
}

TEST_CASE("McpChannel: a server that asks without listening is given up") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line&) {
    const std::string ping =
        absl::StrCat(R"({"jsonrpc":"2.0","id":")", std::string(200, 'p'), R"(","method":"ping"})", "\n");
    for (int i = 0; i < 100000; ++i) {
      if (!self.Write(ping)) return;
    }
  });
  std::atomic<int> num_faults = 0;
  const auto channel = Open(peer, {.on_fault = [&num_faults](std::string_view) { ++num_faults; }});
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
  CHECK(num_faults == 1);
}

TEST_CASE("McpChannel: a server that does not read is given up") {
  absl::Notification is_over;
  ScriptedPeer peer([&is_over](ScriptedPeer&, const ScriptedPeer::Line&) { is_over.WaitForNotification(); });
  const auto channel = Open(peer);
  TemplateValue large = TemplateValue::Dict();
  large.as_dict().Set("a", TemplateValue::Text(std::string(1 << 20, 'a')));
  int num_taken = 0;
  while (num_taken < 100 && channel->Notify("m", large).ok()) ++num_taken;
  CHECK(num_taken < 10);
  CHECK_FALSE(channel->is_open());
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
  is_over.Notify();
}

TEST_CASE("McpChannel: what the server says to people comes in lines, cut where they are long") {
  ScriptedPeer peer([](ScriptedPeer& self, const ScriptedPeer::Line& line) {
    self.WriteError("one\ntw");
    self.WriteError(absl::StrCat("o\n", std::string(100000, 'x'), "\n"));
    self.Result(line, "{}");
  });
  absl::Mutex mu;
  std::vector<std::string> lines;
  auto channel = Open(peer, {.on_error_line = [&](std::string_view line) {
                        absl::MutexLock lock(&mu);
                        lines.emplace_back(line);
                      }});
  CHECK(Ask(*channel, "m").ok());
  const auto are_all = [&lines] { return lines.size() == 3; };
  absl::MutexLock lock(&mu);
  REQUIRE(mu.AwaitWithTimeout(absl::Condition(&are_all), absl::Seconds(30)));
  CHECK(lines[1] == "two");
  CHECK(lines[2].size() == McpChannel::kMaxErrorLineBytes);
}

// ---- servers that are processes -----------------------------------------------------------------------------------

// `script` has the request's id in $id and its line in $line.
std::unique_ptr<McpChannel> OpenShell(const std::string& script, McpChannel::Events events = {}) {
  const std::string loop =
      absl::StrCat("while read -r line; do id=${line##*'\"id\":'}; id=${id%\\}}\n", script, "\ndone");
  auto channel = McpChannel::Open(
      [loop] {
        return LaunchMcpPeer(
            {.command = {"/bin/sh", "-c", loop}, .environment = {"PATH=/usr/bin:/bin", "TOKEN=t0ken"}});
      },
      std::move(events));
  REQUIRE(channel.ok());
  return *std::move(channel);
}
constexpr char kAnswer[] = R"(printf '{"jsonrpc":"2.0","id":%s,"result":{"is":"%s"}}\n' "$id" )";

TEST_CASE("LaunchMcpPeer: it has the variables of its configuration, none of our files, and a group of its own") {
  setenv("MILLRACE_TEST_SECRET", "s3cret", 1);
  const UniqueFd ours(fcntl(STDERR_FILENO, F_DUPFD, 100));  // which children would inherit
  REQUIRE(ours.get() >= 100);
  const auto channel = OpenShell(absl::StrCat("[ -e /proc/$$/fd/", ours.get(), " ] && file=open || file=closed\n",
                                              "set -- $(cat /proc/$$/stat); [ $5 = $$ ] && group=own || group=ours\n",
                                              kAnswer, "\"$TOKEN ${MILLRACE_TEST_SECRET-none} $file $group\""));
  CHECK(Is(Ask(*channel, "m")) == "t0ken none closed own");
  unsetenv("MILLRACE_TEST_SECRET");
}

TEST_CASE("McpChannel: a program that is not there is a fault of starting, not of asking") {
  const auto channel = McpChannel::Open([] { return LaunchMcpPeer({.command = {"/nonexistent/server"}}); }, {});
  CHECK(absl::StrContains(channel.status().message(), "not started: execve: No such file"));
  CHECK_FALSE(
      McpChannel::Open([] { return LaunchMcpPeer({.command = {"/bin/sh"}, .folder = "/nonexistent"}); }, {}).ok());
}

TEST_CASE("McpChannel: a crash in the middle of a call fails it, though a grandchild keeps the pipes") {
  const auto channel = OpenShell("sleep 1000 & kill -9 $$");
  CHECK(Is(Ask(*channel, "m")) == "UNAVAILABLE");
}

TEST_CASE("McpChannel: what was said before the end still counts") {
  const auto channel = OpenShell(absl::StrCat(kAnswer, "last; exit 3"));
  CHECK(Is(Ask(*channel, "m")) == "last");
}

TEST_CASE("McpChannel: a server that will not leave is ended with its children") {
  int server = 0;
  UniqueFd child;
  {
    const auto channel = OpenShell(
        absl::StrCat("trap '' TERM HUP; sleep 1000 & ", kAnswer, "\"$$ $!\"\n", "while :; do read -r x; done"));
    int child_pid = 0;
    REQUIRE(std::sscanf(Is(Ask(*channel, "m")).c_str(), "%d %d", &server, &child_pid) == 2);
    child = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, child_pid, 0)));
    REQUIRE(child.get() >= 0);
  }
  CHECK(kill(server, 0) != 0);
  pollfd end{child.get(), POLLIN, 0};
  CHECK(poll(&end, 1, 30000) == 1);
}

}  // namespace
}  // namespace millrace
