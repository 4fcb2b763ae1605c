// SPDX-License-Identifier: Apache-2.0
// The HTTP transport behind TLS: the same requests, and how a connection begins and ends.
#include <openssl/ssl.h>
#include <sys/time.h>

#include <catch2/catch.hpp>

#include "absl/synchronization/mutex.h"
#include "server/http/http_server.h"
#include "tests/server/raw_client.h"
#include "tests/server/test_certificate.h"

namespace millrace {
namespace {

// /stream begins a stream and keeps its writer; everything else is echoed.
class TlsHandler : public HttpHandler {
 public:
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> given) override {
    if (request.path != "/stream") return given->Send({.content_type = "text/plain", .body = request.body});
    given->BeginStream({});
    given->OnClose([this] {
      absl::MutexLock lock(&mu);
      is_client_gone = true;
    });
    absl::MutexLock lock(&mu);
    writer = std::move(given);
  }
  HttpResponse TransportError(int status, const std::string& message) override {
    return {.status = status, .body = message};
  }
  std::shared_ptr<ResponseWriter> TakeWriter() {
    const auto has_one = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu) { return writer != nullptr; };
    absl::MutexLock lock(&mu);
    mu.Await(absl::Condition(&has_one));
    return std::move(writer);
  }
  bool WaitGone() {
    absl::MutexLock lock(&mu);
    return mu.AwaitWithTimeout(absl::Condition(&is_client_gone), absl::Seconds(20));
  }

  absl::Mutex mu;
  std::shared_ptr<ResponseWriter> writer ABSL_GUARDED_BY(mu);
  bool is_client_gone ABSL_GUARDED_BY(mu) = false;
};

struct TlsFixture {
  explicit TlsFixture(HttpLimits limits = {}) {
    HttpServerOptions options{.host = "127.0.0.1", .port = 0, .limits = limits};
    options.tls = TlsConfig{certificate.certificate_file, certificate.key_file};
    auto started = HttpServer::Start(options, handler);
    REQUIRE(started.ok());
    server = *std::move(started);
  }
  ~TlsFixture() {
    server.reset();
    std::filesystem::remove_all(folder);
  }
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("millrace_http_tls_" + std::to_string(getpid()));
  const TestCertificate certificate{folder};
  TlsHandler handler;
  std::unique_ptr<HttpServer> server;
};

// A client that trusts the fixture's certificate and nothing else.
class TlsClient {
 public:
  TlsClient(const TlsFixture& fixture) : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_load_verify_locations(context_, fixture.certificate.certificate_file.c_str(), nullptr);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    ssl_ = SSL_new(context_);
    SSL_set1_host(ssl_, "localhost");
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{.tv_sec = 20, .tv_usec = 0};  // turns a hang into a failure
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(fixture.server->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    SSL_set_fd(ssl_, socket_);
    is_connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    HangUp();
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool is_connected() const { return is_connected_; }
  // Whether the server has said that nothing more comes.
  bool is_told_end() const { return (SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN) != 0; }
  void SayGoodbye() { (void)SSL_shutdown(ssl_); }
  void HangUp() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  bool Send(const std::string& bytes) {
    return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
  }
  // What comes until `text` is there, or the end.
  std::string ReadUntilText(std::string_view text) {
    std::string all;
    char bytes[4096];
    while (all.find(text) == std::string::npos) {
      const int count = SSL_read(ssl_, bytes, sizeof(bytes));
      if (count <= 0) break;
      all.append(bytes, static_cast<size_t>(count));
    }
    return all;
  }
  std::string ReadToEnd() { return ReadUntilText(std::string_view("\0no such text", 13)); }

 private:
  SSL_CTX* const context_;
  SSL* ssl_ = nullptr;
  int socket_ = -1;
  bool is_connected_ = false;
};

std::string Post(const std::string& body, const std::string& headers = "") {
  return "POST /echo HTTP/1.1\r\nHost: x\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

TEST_CASE("HttpServer: TLS serves request after request, and says when it is done", "[http][tls]") {
  TlsFixture f;
  TlsClient client(f);
  REQUIRE(client.is_connected());
  REQUIRE(client.Send(Post("one")));
  CHECK(StatusOf(client.ReadUntilText("\r\n\r\none")) == 200);
  const std::string large(300000, 'x');
  REQUIRE(client.Send(Post(large)));
  CHECK(BodyOf(client.ReadUntilText(large)) == large);
  REQUIRE(client.Send(Post("last", "Connection: close\r\n")));
  CHECK(BodyOf(client.ReadToEnd()) == "last");
  CHECK(client.is_told_end());
}

TEST_CASE("HttpServer: a stream over TLS ends with its last chunk, then with a goodbye", "[http][tls]") {
  TlsFixture f;
  TlsClient client(f);
  REQUIRE(client.Send("GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  auto writer = f.handler.TakeWriter();
  CHECK(writer->Write("data: a\n\n"));
  client.ReadUntilText("data: a\n\n");
  CHECK(writer->Write("data: b\n\n"));
  writer->End();
  const std::string rest = client.ReadToEnd();
  CHECK(rest.find("data: b\n\n") != std::string::npos);
  CHECK(rest.find("\r\n0\r\n\r\n") != std::string::npos);
  CHECK(client.is_told_end());
}

TEST_CASE("HttpServer: a stream over TLS that breaks off has no goodbye", "[http][tls]") {
  TlsFixture f;
  TlsClient client(f);
  REQUIRE(client.Send("GET /stream HTTP/1.0\r\nHost: x\r\n\r\n"));
  auto writer = f.handler.TakeWriter();
  CHECK(writer->Write("data: a\n\n"));
  client.ReadUntilText("data: a\n\n");
  writer.reset();
  client.ReadToEnd();
  CHECK_FALSE(client.is_told_end());
}

TEST_CASE("HttpServer: a client that leaves a TLS stream is noticed, polite or not", "[http][tls]") {
  const bool is_polite = GENERATE(true, false);
  TlsFixture f;
  TlsClient client(f);
  REQUIRE(client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"));
  auto writer = f.handler.TakeWriter();
  CHECK(writer->Write("data: a\n\n"));
  client.ReadUntilText("data: a\n\n");
  if (is_polite) {
    client.SayGoodbye();
  } else {
    client.HangUp();
  }
  CHECK(f.handler.WaitGone());
  CHECK_FALSE(writer->Write("data: late\n\n"));
}

TEST_CASE("HttpServer: a handshake that does not come, or is none, ends the connection", "[http][tls]") {
  HttpLimits limits;
  limits.header_timeout = absl::Milliseconds(100);
  TlsFixture f(limits);
  RawClient silent(f.server->port()), half(f.server->port()), plain(f.server->port());
  half.Send(std::string_view("\x16\x03\x01", 3));
  plain.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(silent.ReadToEnd().empty());
  CHECK(half.ReadToEnd().empty());
  CHECK(plain.ReadToEnd().find("HTTP/1.1") == std::string::npos);
  CHECK(silent.is_closed_by_peer());
  CHECK(half.is_closed_by_peer());
  CHECK(plain.is_closed_by_peer());
}

}  // namespace
}  // namespace millrace
