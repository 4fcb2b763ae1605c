// SPDX-License-Identifier: Apache-2.0
// The server as a process: each hidden case is one, run by this very program in a child, with an engine that
// misbehaves.
#include "server/app.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "agent/sandbox/sandbox.h"
#include "tests/server/fake_engine.h"
#include "tests/server/raw_client.h"

namespace millrace {
namespace {

[[noreturn]] void WaitForEver() {
  absl::Notification never;
  never.WaitForNotification();
  abort();
}

// Its thread is inside a step that never ends, so that taking it down never ends either.
class EndlessEngine : public FakeEngine {
 public:
  explicit EndlessEngine(EngineHealth health) : FakeEngine({}), health_(health) {}
  ~EndlessEngine() override { WaitForEver(); }
  EngineHealth CheckHealth(absl::Duration) override { return health_; }

 private:
  const EngineHealth health_;
};

const std::string kResult = "11111";

ServeOptions Options() {
  ServeOptions options{.model = "fake"};
  options.http.host = "127.0.0.1";
  options.http.port = 0;
  return options;
}

EngineLoader Endless(EngineHealth health) {
  return [health](EngineOptions, Log&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    return std::make_unique<EndlessEngine>(health);
  };
}

constexpr char kTurnMayBegin[] = "go\n";

// Calls python with `code`; its second turn begins when the parent says so on standard input, and tells the result.
FakeEngine::Options CallsPython(const std::string& code) {
  const nlohmann::json call = {{"name", "python"}, {"arguments", {{"code", code}}}};
  FakeEngine::Options options;
  options.script = [first = "<tool_call>" + call.dump() + "</tool_call>"](const Request& request, int32_t position) {
    // The result alone holds the number.
    const std::vector<int32_t>& prompt = request.prompt_tokens;
    const bool has_result = std::search(prompt.begin(), prompt.end(), kResult.begin(), kResult.end()) != prompt.end();
    const std::string answer = has_result ? "it is " + kResult : first;
    return position < static_cast<int32_t>(answer.size()) ? answer[static_cast<size_t>(position)] : kFakeEos;
  };
  options.on_submit = [num_turns = 0]() mutable {
    char line[sizeof(kTurnMayBegin) - 1];
    if (++num_turns == 2 && read(STDIN_FILENO, line, sizeof(line)) < 0) abort();
  };
  return options;
}

// One of the hidden cases as a child process; its standard error is read here, its standard input written.
class ChildServer {
 public:
  explicit ChildServer(const std::string& tag) {
    int ends[2], input[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    REQUIRE(pipe2(input, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    std::string program = "/proc/self/exe", test = tag;
    char* arguments[] = {program.data(), test.data(), nullptr};
    REQUIRE(posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    close(input[0]);
    log_end_ = ends[0];
    input_end_ = input[1];
  }
  ~ChildServer() {
    if (!is_over_) {
      Signal(SIGKILL);
      waitpid(process_, nullptr, 0);
    }
    close(log_end_);
    close(input_end_);
  }

  void Say(std::string_view line) const { REQUIRE(write(input_end_, line.data(), line.size()) > 0); }
  void Signal(int number) const { kill(process_, number); }
  // False: the process ended, or said nothing for twenty seconds, without that text.
  bool WaitForLog(std::string_view text) {
    while (log_.find(text) == std::string::npos) {
      if (!ReadLog()) return false;
    }
    return true;
  }
  int port() const {
    const size_t at = log_.find("\"port\":");
    return at == std::string::npos ? 0 : std::stoi(log_.substr(at + 7));
  }
  // -1: it did not end, or a signal ended it.
  int ExitCode() {
    while (ReadLog()) continue;
    if (!is_log_over_) return -1;
    int status = 0;
    waitpid(process_, &status, 0);
    is_over_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& log() const { return log_; }

 private:
  bool ReadLog() {
    pollfd poller{log_end_, POLLIN, 0};
    if (poll(&poller, 1, 20000) <= 0) return false;
    char bytes[4096];
    const ssize_t count = read(log_end_, bytes, sizeof(bytes));
    is_log_over_ = count <= 0;
    if (count > 0) log_.append(bytes, static_cast<size_t>(count));
    return count > 0;
  }

  pid_t process_ = 0;
  int log_end_ = -1;
  int input_end_ = -1;
  bool is_log_over_ = false;
  bool is_over_ = false;
  std::string log_;
};

int StatusOfProbe(int port, const std::string& path) {
  RawClient client(port);
  client.Send("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
  return StatusOf(client.ReadResponse());
}

TEST_CASE("child: stuck in a step", "[.][child-stuck]") {
  CHECK(RunServe(Options(), Endless(EngineHealth::kStuck)) == 0);
}

TEST_CASE("App: a step that never ends does not keep the process", "[app]") {
  ChildServer child("[child-stuck]");
  REQUIRE(child.WaitForLog("a step does not end"));
  CHECK(StatusOfProbe(child.port(), "/livez") == 503);
  child.Signal(SIGTERM);
  CHECK(child.ExitCode() == 1);
  CHECK(child.log().find("leaving without waiting") != std::string::npos);
}

TEST_CASE("child: taken down for ever", "[.][child-endless]") {
  CHECK(RunServe(Options(), Endless(EngineHealth::kReady)) == 0);
}

TEST_CASE("App: a second signal ends what hangs after the drain", "[app]") {
  ChildServer child("[child-endless]");
  REQUIRE(child.WaitForLog("\"ready\""));
  child.Signal(SIGTERM);
  REQUIRE(child.WaitForLog("\"drained\""));
  child.Signal(SIGINT);
  CHECK(child.ExitCode() == 128 + SIGINT);
}

TEST_CASE("child: taken down for ever, with little time", "[.][child-limited]") {
  ServeOptions options = Options();
  options.drain_seconds = 0;
  options.step_seconds = 0.1;
  CHECK(RunServe(options, Endless(EngineHealth::kReady)) == 0);
}

TEST_CASE("App: taking the parts down has a limit", "[app]") {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  WARN("[SKIPPED] ThreadSanitizer keeps the timer's signal back while the main thread waits");
  return;
#endif
#endif
  ChildServer child("[child-limited]");
  REQUIRE(child.WaitForLog("\"ready\""));
  child.Signal(SIGTERM);
  CHECK(child.ExitCode() == 1);
  CHECK(child.log().find("stopping takes too long") != std::string::npos);
}

TEST_CASE("child: loading for ever", "[.][child-loading]") {
  ServeOptions options = Options();
  options.load_seconds = 0.01;
  const auto load = [](EngineOptions, Log&) -> absl::StatusOr<std::unique_ptr<Engine>> { WaitForEver(); };
  CHECK(RunServe(options, load) == 0);
}

TEST_CASE("App: loading that makes no progress is told by the probes", "[app]") {
  ChildServer child("[child-loading]");
  REQUIRE(child.WaitForLog("loading makes no progress"));
  CHECK(StatusOfProbe(child.port(), "/livez") == 503);
  CHECK(StatusOfProbe(child.port(), "/readyz") == 503);
  child.Signal(SIGTERM);
  CHECK(child.ExitCode() == 1);
}

bool HasSandbox() {
  if (ProbeSandbox().is_complete() && access("/usr/bin/python3", X_OK) == 0) return true;
  WARN("SKIPPED: no sandbox for programs here, or no python");
  return false;
}

std::string StartRun() {
  const std::string body =
      R"({"input":"hi","stream":true,"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]})";
  return absl::StrCat("POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

int ServeRuns(const std::string& code, int drain_seconds) {
  ServeOptions options = Options();
  options.tools.enabled = {"python"};
  options.drain_seconds = drain_seconds;
  return RunServe(options, [&code](EngineOptions, Log&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    return std::make_unique<FakeEngine>(CallsPython(code));
  });
}

TEST_CASE("child: a run with a slow tool", "[.][child-slow-tool]") {
  CHECK(ServeRuns("import time\ntime.sleep(0.3)\nprint(5 * 2222 + 1)", 60) == 0);
}

TEST_CASE("App: an agent run goes on through the drain, its tool and its next turn included; new ones are refused",
          "[app]") {
  if (!HasSandbox()) return;
  ChildServer child("[child-slow-tool]");
  REQUIRE(child.WaitForLog("\"ready\""));
  RawClient client(child.port());
  client.Send(StartRun());
  REQUIRE(absl::StrContains(client.ReadUntilText("interpreting"), "interpreting"));
  child.Signal(SIGTERM);
  REQUIRE(child.WaitForLog("\"draining\""));
  RawClient late(child.port());
  late.Send(StartRun());
  CHECK(StatusOf(late.ReadResponse()) == 503);
  CHECK(StatusOfProbe(child.port(), "/readyz") == 503);
  child.Say(kTurnMayBegin);
  const std::string stream = Dechunk(BodyOf(client.ReadToEnd()));
  CHECK(absl::StrContains(stream, "event: response.completed"));
  CHECK(absl::StrContains(stream, absl::StrCat("it is ", kResult)));
  CHECK(absl::EndsWith(stream, "data: [DONE]\n\n"));
  CHECK(child.ExitCode() == 0);
  CHECK(absl::StrContains(child.log(), "\"cut_requests\":0"));
}

TEST_CASE("child: a run whose tool never ends", "[.][child-endless-tool]") {
  CHECK(ServeRuns("while True: pass", 0) == 0);
}

TEST_CASE("App: an agent run that outlasts the drain ends with an error that says why, and its program ends", "[app]") {
  if (!HasSandbox()) return;
  ChildServer child("[child-endless-tool]");
  REQUIRE(child.WaitForLog("\"ready\""));
  RawClient client(child.port());
  client.Send(StartRun());
  REQUIRE(absl::StrContains(client.ReadUntilText("interpreting"), "interpreting"));
  child.Signal(SIGTERM);
  const std::string stream = Dechunk(BodyOf(client.ReadToEnd()));
  CHECK(absl::StrContains(stream, "event: error\n"));
  CHECK(absl::StrContains(stream, "the server is shutting down"));
  CHECK(absl::StrContains(stream, "event: response.failed"));
  CHECK(absl::EndsWith(stream, "data: [DONE]\n\n"));
  CHECK(child.ExitCode() == 0);
  CHECK(absl::StrContains(child.log(), "\"end\":\"cancelled\""));
}

}  // namespace
}  // namespace millrace
