// SPDX-License-Identifier: Apache-2.0
// The server as a process: each hidden case is one, run by this very program in a child, with an engine that
// misbehaves.
#include "server/app.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "absl/synchronization/notification.h"
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

// One of the hidden cases as a child process; its standard error is read here.
class ChildServer {
 public:
  explicit ChildServer(const std::string& tag) {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    std::string program = "/proc/self/exe", test = tag;
    char* arguments[] = {program.data(), test.data(), nullptr};
    REQUIRE(posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    log_end_ = ends[0];
  }
  ~ChildServer() {
    if (!is_over_) {
      Signal(SIGKILL);
      waitpid(process_, nullptr, 0);
    }
    close(log_end_);
  }

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

}  // namespace
}  // namespace millrace
