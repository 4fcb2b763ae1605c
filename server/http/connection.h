// SPDX-License-Identifier: Apache-2.0
#pragma once
// One client connection, alive on one io thread: reads requests, calls the handler, writes responses in order.
// Internal to server/http; Asio's types are only named here, never included.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/http/http_server.h"

namespace boost::asio {
class io_context;
namespace ssl {
class context;
}
}  // namespace boost::asio

namespace millrace {

// What all connections share; the handler outlives them.
struct ConnectionShared {
  ConnectionShared(const HttpLimits& http_limits, HttpHandler& http_handler)
      : limits(http_limits), handler(http_handler) {}

  const HttpLimits limits;
  HttpHandler& handler;
  std::shared_ptr<boost::asio::ssl::context> tls;  // null: plain text
  std::atomic<bool> is_draining{false};
  std::atomic<int> num_connections{0};
  std::atomic<int64_t> buffered_body_bytes{0};
  std::atomic<uint64_t> num_slow_readers{0};
  absl::Mutex mu;
  int num_active_requests ABSL_GUARDED_BY(mu) = 0;
};

class Connection {
 public:
  virtual ~Connection() = default;
  // Io thread. Ends the connection now, or (idle) after its current response.
  virtual void Close() = 0;
  virtual void CloseIfIdle() = 0;
};

enum class AddressFamily { kIpv4, kIpv6 };

// Takes over the connected socket and serves it on `io`, whose single thread calls this. It keeps itself alive until
// the client or a limit ends it; writers that live longer keep `io`.
std::shared_ptr<Connection> StartConnection(std::shared_ptr<ConnectionShared> shared,
                                            std::shared_ptr<boost::asio::io_context> io, int descriptor,
                                            AddressFamily family);

}  // namespace millrace
