// SPDX-License-Identifier: Apache-2.0
#include "server/http/http_server.h"

#include <catch2/catch.hpp>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/http/response_channel.h"
#include "tests/server/raw_client.h"

namespace millrace {
namespace {

// /echo answers with method, query and body; /hold keeps the writer; /stream begins a stream and keeps it; /queue keeps
// the request, too.
class TestHandler : public HttpHandler {
 public:
  std::optional<HttpResponse> CheckHeaders(const HttpRequest& request) override {
    if (request.path == "/forbidden") return HttpResponse{.status = 403, .body = "no"};
    return std::nullopt;
  }
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) override {
    if (request.path == "/echo") {
      writer->Send({.content_type = "text/plain", .body = request.method + "|" + request.query + "|" + request.body});
    } else if (request.path == "/drop") {
      writer.reset();
    } else {
      if (request.path == "/stream") {
        StreamOptions options;
        options.keep_alive_interval = absl::Milliseconds(50);
        writer->BeginStream(options);
      }
      writer->OnClose([this] {
        absl::MutexLock lock(&mu);
        ++num_closed;
      });
      absl::MutexLock lock(&mu);
      held.push_back(std::move(writer));
      if (request.path == "/queue") queued = std::move(request);
    }
  }
  HttpResponse TransportError(int status, const std::string& message) override {
    return {.status = status, .body = message};
  }
  std::shared_ptr<ResponseWriter> TakeHeld() {
    const auto has_one = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu) { return !held.empty(); };
    absl::MutexLock lock(&mu);
    mu.Await(absl::Condition(&has_one));
    auto writer = held.back();
    held.pop_back();
    return writer;
  }
  bool WaitClosed(int count, absl::Duration limit = absl::Seconds(10)) {
    const auto is_reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu) { return num_closed >= count; };
    absl::MutexLock lock(&mu);
    return mu.AwaitWithTimeout(absl::Condition(&is_reached), limit);
  }

  absl::Mutex mu;
  std::vector<std::shared_ptr<ResponseWriter>> held ABSL_GUARDED_BY(mu);
  std::optional<HttpRequest> queued ABSL_GUARDED_BY(mu);
  int num_closed ABSL_GUARDED_BY(mu) = 0;
};

HttpServerOptions Options() {
  HttpServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  return options;
}

struct Fixture {
  explicit Fixture(HttpServerOptions options = Options()) {
    auto started = HttpServer::Start(options, handler);
    REQUIRE(started.ok());
    server = *std::move(started);
  }
  TestHandler handler;
  std::unique_ptr<HttpServer> server;
};

TEST_CASE("HttpServer: a request is answered with its id, and the connection goes on", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  client.Send("POST /ec%68o?a=1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id.1\r\nContent-Length: 5\r\n\r\nhello");
  const std::string first = client.ReadResponse();
  CHECK(StatusOf(first) == 200);
  CHECK(first.find("x-request-id: my-id.1\r\n") != std::string::npos);
  CHECK(BodyOf(first) == "POST|a=1|hello");
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: bad id!\r\n\r\n");
  const std::string second = client.ReadResponse();
  CHECK(BodyOf(second) == "GET||");
  CHECK(second.find("bad id") == std::string::npos);
}

TEST_CASE("HttpServer: pipelined requests are answered in order", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  std::string bytes;
  for (int i = 0; i < 20; ++i) bytes += "GET /echo?" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Send(bytes);
  for (int i = 0; i < 20; ++i) CHECK(BodyOf(client.ReadResponse()) == "GET|" + std::to_string(i) + "|");
}

TEST_CASE("HttpServer: bytes may come one at a time, and bodies in chunks", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  const std::string request =
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
  for (const char c : request) client.Send(std::string_view(&c, 1));
  CHECK(BodyOf(client.ReadResponse()) == "POST||abcdefg");
}

TEST_CASE("HttpServer: HEAD has no body, HTTP/1.0 closes", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  client.Send("HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /echo HTTP/1.0\r\n\r\n");
  const std::string all = client.ReadToEnd();
  CHECK(all.find("content-length: 6\r\n") != std::string::npos);
  CHECK(all.find("HEAD||") == std::string::npos);
  CHECK(all.find("GET||") != std::string::npos);
  CHECK(client.is_closed_by_peer());
}

TEST_CASE("HttpServer: Expect: 100-continue is answered before the body", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  CHECK(client.ReadResponse().substr(0, 25) == "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  CHECK(BodyOf(client.ReadResponse()) == "POST||ok");
  client.Send("POST /forbidden HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
  CHECK(StatusOf(client.ReadResponse()) == 403);
}

TEST_CASE("HttpServer: what is too large or malformed is refused with its status", "[http]") {
  HttpServerOptions options = Options();
  options.limits.max_body_bytes = 1000;
  options.limits.max_header_bytes = 4096;
  Fixture f(options);
  const auto refused = [&](const std::string& bytes) {
    RawClient client(f.server->port());
    client.Send(bytes);
    const std::string all = client.ReadToEnd();
    CHECK(client.is_closed_by_peer());
    return StatusOf(all);
  };
  CHECK(refused("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + std::string(1001, 'x')) == 413);
  CHECK(refused("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n") == 413);
  CHECK(refused("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" +
                std::string(4095, 'x')) == 413);
  CHECK(refused("GET /echo HTTP/1.1\r\nHost: x\r\nA: " + std::string(5000, 'a') + "\r\n\r\n") == 431);
  CHECK(refused("GET /" + std::string(5000, 'a')) == 431);
  CHECK(refused("nonsense\r\n\r\n") == 400);
  CHECK(refused("GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n") == 400);
  CHECK(refused("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n") == 400);
  CHECK(refused("GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n") == 400);
  CHECK(refused("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") == 400);
}

TEST_CASE("HttpServer: slow clients lose their connection", "[http]") {
  HttpServerOptions options = Options();
  options.limits.header_timeout = absl::Milliseconds(150);
  options.limits.body_timeout = absl::Milliseconds(150);
  options.limits.idle_timeout = absl::Milliseconds(150);
  Fixture f(options);
  RawClient silent(f.server->port()), header(f.server->port()), body(f.server->port()), idle(f.server->port());
  header.Send("GET /echo HTTP/1.1\r\nHo");
  body.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  idle.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(StatusOf(idle.ReadResponse()) == 200);
  CHECK(StatusOf(header.ReadToEnd()) == 408);
  CHECK(StatusOf(body.ReadToEnd()) == 408);
  CHECK(silent.ReadToEnd().empty());
  CHECK(idle.ReadToEnd().empty());
  CHECK(silent.is_closed_by_peer());
  CHECK(idle.is_closed_by_peer());
}

TEST_CASE("HttpServer: a drip of header bytes does not extend the time", "[http]") {
  HttpServerOptions options = Options();
  options.limits.header_timeout = absl::Milliseconds(200);
  Fixture f(options);
  RawClient client(f.server->port());
  const absl::Time begin = absl::Now();
  client.Send("GET /echo HTTP/1.1\r\n");
  while (!client.is_closed_by_peer() && absl::Now() - begin < absl::Seconds(10)) {
    client.Send("A: b\r\n");
    client.ReadToEnd(absl::Milliseconds(20));
  }
  CHECK(absl::Now() - begin < absl::Seconds(5));
}

TEST_CASE("HttpServer: too many connections get 503", "[http]") {
  HttpServerOptions options = Options();
  options.limits.max_connections = 2;
  Fixture f(options);
  RawClient one(f.server->port()), two(f.server->port());
  one.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  two.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(StatusOf(one.ReadResponse()) == 200);
  CHECK(StatusOf(two.ReadResponse()) == 200);
  RawClient three(f.server->port());
  CHECK(StatusOf(three.ReadToEnd()) == 503);
}

TEST_CASE("HttpServer: a stream arrives in chunks, with keep-alives while nothing else is written", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  auto writer = f.handler.TakeHeld();
  client.ReadUntilText(": keep-alive\n\n");
  CHECK(writer->Write("data: a\n\n"));
  CHECK(writer->Write("data: b\n\n"));
  writer->End();
  const std::string all = client.ReadUntilText("0\r\n\r\n");
  CHECK(all.find("content-type: text/event-stream\r\n") != std::string::npos);
  const std::string body = Dechunk(BodyOf(all));
  CHECK(body.find("data: a\n\ndata: b\n\n") != std::string::npos);
  client.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.ReadUntilText("GET||").find("GET||") != std::string::npos);
}

TEST_CASE("HttpServer: a client's leaving is noticed before anything is written", "[http]") {
  Fixture f;
  {
    RawClient polite(f.server->port());
    polite.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    auto writer = f.handler.TakeHeld();
    polite.Close();
    CHECK(f.handler.WaitClosed(1));
    CHECK(writer->is_closed());
  }
  RawClient rude(f.server->port());
  rude.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  auto writer = f.handler.TakeHeld();
  rude.Reset();
  CHECK(f.handler.WaitClosed(2));
  CHECK_FALSE(writer->Write("data: late\n\n"));
}

TEST_CASE("HttpServer: a reader that does not read is cut off", "[http]") {
  HttpServerOptions options = Options();
  options.limits.max_queued_frames = 16;
  Fixture f(options);
  RawClient client(f.server->port());
  client.SetReceiveBuffer(4096);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  auto writer = f.handler.TakeHeld();
  const std::string frame(64 * 1024, 'x');
  bool is_open = true;
  for (int i = 0; i < 100000 && is_open; ++i) is_open = writer->Write(frame);
  CHECK_FALSE(is_open);
  CHECK(writer->is_closed());
}

TEST_CASE("HttpServer: a body counts while its request waits, not while the answer streams", "[http]") {
  HttpServerOptions options = Options();
  options.limits.max_buffered_body_bytes = 1000;
  Fixture f(options);
  const auto post = [](const std::string& path) {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n" + std::string(800, 'x');
  };
  const auto echo = [&] {
    RawClient client(f.server->port());
    client.Send(post("/echo"));
    return StatusOf(client.ReadResponse());
  };
  RawClient streaming(f.server->port()), queued(f.server->port());
  streaming.Send(post("/stream"));
  auto writer = f.handler.TakeHeld();
  CHECK(echo() == 200);
  queued.Send(post("/queue"));
  auto late = f.handler.TakeHeld();
  CHECK(echo() == 503);
  {
    absl::MutexLock lock(&f.handler.mu);
    f.handler.queued.reset();
  }
  CHECK(echo() == 200);
}

TEST_CASE("ResponseChannel: a stream of several choices may queue as many frames of each", "[http]") {
  HttpLimits limits;
  limits.max_queued_frames = 16;
  limits.max_queued_bytes = 1000;
  const auto num_frames = [&](int64_t num_choices, std::string_view frame) {
    ResponseChannel channel(limits, [] {});
    channel.BeginStream({.headers = {}, .num_choices = num_choices});
    int count = 0;
    while (channel.Write(frame)) ++count;
    CHECK(channel.was_slow());
    return count;
  };
  CHECK(num_frames(1, "x") == 16);
  CHECK(num_frames(8, "x") == 128);
  CHECK(num_frames(1000, "1234567890") == 100);
  ResponseChannel channel(limits, [] {});
  channel.BeginStream({});
  CHECK(channel.Write("a"));
  CHECK(channel.Write("b"));
  CHECK(channel.Take().bytes == "ab");
}

TEST_CASE("HttpServer: a dropped writer answers 500, a dropped stream is cut", "[http]") {
  Fixture f;
  RawClient client(f.server->port());
  client.Send("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(StatusOf(client.ReadResponse()) == 500);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  f.handler.TakeHeld()->Write("data: a\n\n");
  const std::string all = client.ReadToEnd();
  CHECK(client.is_closed_by_peer());
  CHECK(all.find("0\r\n\r\n") == std::string::npos);
}

TEST_CASE("HttpServer: draining closes idle connections and lets requests finish", "[http]") {
  Fixture f;
  RawClient idle(f.server->port()), busy(f.server->port());
  idle.Send("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(StatusOf(idle.ReadResponse()) == 200);
  busy.Send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  auto writer = f.handler.TakeHeld();
  f.server->BeginDrain();
  CHECK(idle.ReadToEnd().empty());
  CHECK(idle.is_closed_by_peer());
  CHECK_FALSE(f.server->WaitIdle(absl::Now() + absl::Milliseconds(50)));
  writer->Send({.body = "done"});
  const std::string last = busy.ReadToEnd();
  CHECK(BodyOf(last) == "done");
  CHECK(last.find("connection: close") != std::string::npos);
  CHECK(f.server->WaitIdle(absl::Now() + absl::Seconds(5)));
}

TEST_CASE("HttpServer: writers may outlive the server", "[http]") {
  std::shared_ptr<ResponseWriter> writer;
  {
    Fixture f;
    RawClient client(f.server->port());
    client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    writer = f.handler.TakeHeld();
    f.server.reset();
    CHECK(f.handler.WaitClosed(1));
  }
  CHECK_FALSE(writer->Write("data: late\n\n"));
}

TEST_CASE("HttpServer: a taken port and a bad certificate are errors", "[http]") {
  Fixture f;
  HttpServerOptions options = Options();
  options.port = f.server->port();
  CHECK(HttpServer::Start(options, f.handler).status().code() == absl::StatusCode::kUnavailable);
  options.port = 0;
  options.tls = TlsConfig{"/nonexistent.pem", "/nonexistent.key"};
  CHECK(HttpServer::Start(options, f.handler).status().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
