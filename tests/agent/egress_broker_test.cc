// SPDX-License-Identifier: Apache-2.0
// The broker against a server on loopback, which only a test's hook lets it reach.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "agent/egress/address.h"
#include "agent/egress/broker.h"
#include "agent/tools/http_get.h"

namespace millrace {
namespace {

// Answers every connection's first request by its path.
class LoopbackServer {
 public:
  LoopbackServer() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), bytes) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~LoopbackServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }
  int requests() const { return requests_; }

 private:
  void Serve() {
    for (int client; (client = accept(listener_, nullptr, nullptr)) >= 0; close(client)) {
      std::string request;
      char piece[1024];
      while (request.find("\r\n\r\n") == request.npos) {
        const ssize_t bytes = read(client, piece, sizeof(piece));
        if (bytes <= 0) break;
        request.append(piece, bytes);
      }
      ++requests_;
      Answer(client, request.substr(4, request.find(' ', 4) - 4));
    }
  }
  static bool Send(int client, const std::string& text) {
    return send(client, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  void Answer(int client, const std::string& path) const {
    if (path == "/plain") {
      Send(client, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
    } else if (path.starts_with("/to?")) {
      Send(client, "HTTP/1.1 302 Found\r\nLocation: " + path.substr(4) + "\r\nContent-Length: 0\r\n\r\n");
    } else if (path == "/endless") {
      Send(client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      while (Send(client, "400\r\n" + std::string(1024, 'x') + "\r\n")) {
      }
    } else if (path == "/headers") {
      Send(client, "HTTP/1.1 200 OK\r\n");
      while (Send(client, "X-More: " + std::string(1024, 'x') + "\r\n")) {
      }
    } else if (path == "/silent") {
      pollfd gone{client, POLLRDHUP, 0};
      poll(&gone, 1, 60'000);  // until the broker hangs up
    } else if (path == "/long") {
      Send(client, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'));
    } else if (path == "/packed") {
      Send(client, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x01");
    } else {
      Send(client, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
  }

  const int listener_;
  int port_ = 0;
  std::atomic<int> requests_{0};
  std::thread thread_;
};

// Loopback and what is public may be dialled; all else is refused as ever.
absl::Status AllowLoopback(const sockaddr* address) {
  const auto* ip4 = reinterpret_cast<const sockaddr_in*>(address);
  if (address->sa_family == AF_INET && ip4->sin_addr.s_addr == htonl(INADDR_LOOPBACK)) return absl::OkStatus();
  return CheckPublicAddress(address);
}

struct Network {
  Network() {
    policy.hosts = {absl::StrCat("good.test:", server.port()), absl::StrCat("inner.test:", server.port()),
                    absl::StrCat("both.test:", server.port()), absl::StrCat("*.wild.test:", server.port())};
    hook.check_address = AllowLoopback;
    hook.resolved = {absl::StrCat("good.test:", server.port(), ":127.0.0.1"),
                     absl::StrCat("a.wild.test:", server.port(), ":127.0.0.1"),
                     absl::StrCat("inner.test:", server.port(), ":10.0.0.1"),
                     absl::StrCat("both.test:", server.port(), ":[fd00::1],127.0.0.1")};
  }
  std::string Url(const std::string& host, const std::string& target) const {
    return absl::StrCat("http://", host, ":", server.port(), target);
  }
  absl::StatusOr<EgressAnswer> Get(const std::string& url, absl::Duration limit = absl::Minutes(1)) const {
    return EgressBroker(policy, hook).Get(url, absl::Now() + limit, cancellation);
  }
  LoopbackServer server;
  EgressPolicy policy;
  EgressTestHook hook;
  Cancellation cancellation;
};

absl::StatusCode Code(const absl::StatusOr<EgressAnswer>& answer) { return answer.status().code(); }

}  // namespace

TEST_CASE("egress: a host on the list answers") {
  const Network network;
  const absl::StatusOr<EgressAnswer> answer = network.Get(network.Url("good.test", "/plain"));
  INFO(answer.status());
  REQUIRE(answer.ok());
  CHECK(answer->code == 200);
  CHECK(answer->body == "hello");
  CHECK(answer->content_type == "text/plain");
  CHECK(network.Get(network.Url("a.wild.test", "/plain")).ok());
  CHECK(network.Get(network.Url("good.test", "/nothing"))->code == 404);
}

TEST_CASE("egress: without a list nobody is asked, and a host's other ports are other hosts") {
  Network network;
  CHECK(Code(network.Get("http://good.test/plain")) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(network.Get(network.Url("wild.test", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(network.Get(network.Url("evilwild.test", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(network.Get(network.Url("good.test.evil.org", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(network.Get(network.Url("127.0.0.1", "/plain"))) == absl::StatusCode::kPermissionDenied);
  network.policy.hosts.clear();
  CHECK(Code(network.Get(network.Url("good.test", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(network.server.requests() == 0);
}

TEST_CASE("egress: loopback and private addresses are refused even for a host on the list") {
  Network network;
  absl::StatusOr<EgressAnswer> answer = network.Get(network.Url("inner.test", "/plain"));
  CHECK(Code(answer) == absl::StatusCode::kPermissionDenied);
  CHECK(answer.status().message() == "10.0.0.1 is private; tools may reach public addresses only");
  network.hook.check_address = nullptr;  // as in earnest
  for (const char* host : {"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "good.test"}) {
    std::string entry = host;
    if (entry.starts_with('[')) entry = entry.substr(1, entry.size() - 2);
    network.policy.hosts = {absl::StrCat(entry, ":", network.server.port())};
    INFO(host);
    CHECK(Code(network.Get(network.Url(host, "/plain"))) == absl::StatusCode::kPermissionDenied);
  }
  CHECK(network.server.requests() == 0);
}

TEST_CASE("egress: of a name's addresses only the allowed one is dialled") {
  const Network network;
  CHECK(network.Get(network.Url("both.test", "/plain")).ok());
}

TEST_CASE("egress: each redirect is checked like a first request") {
  const Network network;
  const auto redirect = [&](const std::string& to) { return network.Get(network.Url("good.test", "/to?" + to)); };
  CHECK(redirect("/plain")->body == "hello");
  CHECK(redirect(network.Url("a.wild.test", "/plain"))->url == network.Url("a.wild.test", "/plain"));
  CHECK(Code(redirect(network.Url("inner.test", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(redirect(network.Url("127.0.0.1", "/plain"))) == absl::StatusCode::kPermissionDenied);
  CHECK(Code(redirect("http://169.254.169.254/")) == absl::StatusCode::kPermissionDenied);
  for (const char* to : {"file:///etc/passwd", "gopher://good.test/", "ftp://good.test/", "http://2130706433/"}) {
    CHECK(Code(redirect(to)) == absl::StatusCode::kInvalidArgument);
  }
  CHECK(Code(redirect("/to?/to?/to?/plain")) == absl::StatusCode::kResourceExhausted);
  CHECK(redirect("/to?/to?/plain")->body == "hello");
}

TEST_CASE("egress: an answer is bounded in bytes, head and time, and is not unpacked") {
  const Network network;
  CHECK(Code(network.Get(network.Url("good.test", "/endless"))) == absl::StatusCode::kResourceExhausted);
  CHECK_FALSE(network.Get(network.Url("good.test", "/headers")).ok());
  CHECK(Code(network.Get(network.Url("good.test", "/silent"), absl::Milliseconds(100))) ==
        absl::StatusCode::kDeadlineExceeded);
  CHECK(network.Get(network.Url("good.test", "/packed"))->body == "\x1f\x8b\x08\x01");
}

TEST_CASE("egress: cancelling ends a request that waits") {
  Network network;
  std::thread other([&] {
    while (network.server.requests() == 0) std::this_thread::yield();
    network.cancellation.Cancel();
  });
  CHECK(Code(network.Get(network.Url("good.test", "/silent"))) == absl::StatusCode::kCancelled);
  other.join();
}

TEST_CASE("egress: a proxy that the environment names is not asked") {
  const Network network;
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
  CHECK(network.Get(network.Url("good.test", "/plain")).ok());
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
}

TEST_CASE("http_get tool: the model reads code, type and text, and an error where there is none") {
  const Network network;
  HttpGetTool tool(EgressBroker(network.policy, network.hook));
  const auto call = [&](const std::string& url) {
    return tool.Call(absl::StrCat("{\"url\":\"", url, "\"}"), absl::Now() + absl::Minutes(1), network.cancellation);
  };
  CHECK(call(network.Url("good.test", "/plain")).text == "HTTP 200 text/plain\n\nhello");
  CHECK_FALSE(call(network.Url("good.test", "/plain")).is_error);
  CHECK(call(network.Url("good.test", "/nothing")).is_error);
  CHECK(call(network.Url("good.test", "/long")).text.size() == kMaxToolResultBytes);
  CHECK(call("http://other.test/").text == "other.test:80 is not among the hosts that this tool may ask");
  CHECK(tool.Call("{}", absl::InfiniteFuture(), network.cancellation).is_error);
}

}  // namespace millrace
