// SPDX-License-Identifier: Apache-2.0
#pragma once
// The HTTP/1.1 transport: sockets, TLS, limits, time-outs, pipelining, streamed responses. It knows bytes, not routes.
// A handler is called on an io thread and must not block; a ResponseWriter may be used from any one thread at a time.
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/http_message.h"

namespace millrace {

struct StreamOptions {
  std::string content_type = "text/event-stream";
  std::vector<HttpHeader> headers;
  int64_t num_choices = 1;                                 // answers that share it: a step writes a frame of each
  std::string keep_alive = ": keep-alive\n\n";             // written when nothing else was for that long
  absl::Duration keep_alive_interval = absl::Seconds(15);  // infinite: never
};

// Answers one request: either Send once, or BeginStream, Write*, End. No call blocks. Dropping it unanswered sends a
// 500; dropping an open stream cuts the connection, so that the client sees that the answer is not whole.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  virtual void Send(HttpResponse response) = 0;
  virtual void BeginStream(StreamOptions options) = 0;
  // Queues bytes. False: the client is gone or reads too slowly; the stream is closed and more writes are pointless.
  virtual bool Write(std::string_view bytes) = 0;
  virtual void End() = 0;
  // Called once (any thread, no lock held) if the client goes away before the response is complete; at once if it
  // already has; not if Write has told it. Replaces an earlier callback. It must not block; the writer may be dropped
  // in it.
  virtual void OnClose(std::function<void()> callback) = 0;
  virtual bool is_closed() const = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Io thread, before the body is read: a response refuses the request (its body is then not read).
  virtual std::optional<HttpResponse> CheckHeaders(const HttpRequest& request) { return std::nullopt; }
  // Io thread; hand work that takes longer than microseconds to other threads.
  virtual void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) = 0;
  // The response to a request that the transport itself refuses (400, 408, 413, 431, 503).
  virtual HttpResponse TransportError(int status, const std::string& message) = 0;
};

struct HttpLimits {
  size_t max_header_bytes = 32 * 1024;                 // beyond: 431
  size_t max_body_bytes = 32 << 20;                    // beyond: 413
  int64_t max_buffered_body_bytes = int64_t{1} << 30;  // of all connections together; beyond: 503
  int max_connections = 10000;                         // beyond: 503 and closed
  int max_queued_frames = 256;                         // Write()s the socket has not taken, per choice of a stream
  size_t max_queued_bytes = 8 << 20;                   // likewise in bytes, of the stream; beyond either: a slow reader
  absl::Duration header_timeout = absl::Seconds(10);   // first byte of a request to the end of its headers
  absl::Duration body_timeout = absl::Seconds(60);     // end of headers to the end of the body
  absl::Duration idle_timeout = absl::Seconds(75);     // between requests
  absl::Duration write_timeout = absl::Seconds(30);    // one write
};

struct TlsConfig {
  std::string certificate_file;  // PEM chain
  std::string key_file;          // PEM
};

// Whether certificate and key can be read and belong together. InvalidArgument names the file.
absl::Status CheckTls(const TlsConfig& tls);

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  int port = 8000;  // 0: the system chooses
  int num_io_threads = 2;
  HttpLimits limits;
  std::optional<TlsConfig> tls;
};

class HttpServer {
 public:
  // Listens and starts the io threads. `handler` must outlive the server.
  // InvalidArgument: bad host or certificate; Unavailable: the port is taken.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options, HttpHandler& handler);
  virtual ~HttpServer() = default;  // closes every connection and joins

  virtual int port() const = 0;
  virtual int num_connections() const = 0;
  virtual int num_active_requests() const = 0;  // handled and not yet fully answered
  virtual uint64_t num_slow_readers() const = 0;
  // From now on every response ends its connection; idle connections close; new ones are still answered.
  virtual void BeginDrain() = 0;
  // Blocks until no request is active. False: `deadline` came first.
  virtual bool WaitIdle(absl::Time deadline) = 0;
};

}  // namespace millrace
