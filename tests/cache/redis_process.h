// SPDX-License-Identifier: Apache-2.0
#pragma once
// A redis-server on a loopback port of its own, for as long as the object lives. One thread.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace millrace {

// A port that nobody listens on now. Another process may take it: whoever starts a server tries again.
inline int FreePort() {
  const int socket_number = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t num_bytes = sizeof(address);
  bind(socket_number, reinterpret_cast<sockaddr*>(&address), num_bytes);
  getsockname(socket_number, reinterpret_cast<sockaddr*>(&address), &num_bytes);
  close(socket_number);
  return ntohs(address.sin_port);
}

class RedisProcess {
 public:
  RedisProcess() { signal(SIGPIPE, SIG_IGN); }
  ~RedisProcess() { Kill(); }
  RedisProcess(const RedisProcess&) = delete;
  RedisProcess& operator=(const RedisProcess&) = delete;

  static bool IsInstalled() { return access("/usr/bin/redis-server", X_OK) == 0; }

  // On a free port, or on the one given. False: it does not come up.
  bool Start(std::vector<std::string> more = {}, int port = 0) {
    for (int i = 0; i < 5; ++i) {
      port_ = port != 0 ? port : FreePort();
      if (Launch(more)) return true;
      Kill();
    }
    return false;
  }
  // As a crash: at once, and its clients notice only by their sockets.
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // Neither answers nor closes anything.
  void Freeze() const { kill(pid_, SIGSTOP); }
  void Thaw() const { kill(pid_, SIGCONT); }
  int port() const { return port_; }

 private:
  bool Launch(const std::vector<std::string>& more) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    std::vector<std::string> words = {
        "redis-server", "--port", std::to_string(port_), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir",        "/tmp",   "--maxclients",        "64"};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      execv("/usr/bin/redis-server", arguments.data());
      _exit(127);
    }
    close(ends[1]);
    const bool is_up = pid_ > 0 && AwaitReady(ends[0]);
    close(ends[0]);
    return is_up;
  }
  // Until it says so, or ends.
  static bool AwaitReady(int descriptor) {
    std::string said;
    char buffer[1024];
    while (said.find("eady to accept connections") == std::string::npos) {
      const ssize_t num_read = read(descriptor, buffer, sizeof(buffer));
      if (num_read <= 0) return false;
      said.append(buffer, static_cast<size_t>(num_read));
    }
    return true;
  }

  pid_t pid_ = -1;
  int port_ = 0;
};

}  // namespace millrace
