// SPDX-License-Identifier: Apache-2.0
#include "server/http/http_server.h"

#include <sys/socket.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/http/connection.h"

namespace millrace {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using WorkGuard = asio::executor_work_guard<asio::io_context::executor_type>;

// One io_context with its one thread, and the connections that live on it (touched by that thread only).
struct IoThread {
  std::shared_ptr<asio::io_context> io = std::make_shared<asio::io_context>(1);
  std::optional<WorkGuard> work;
  std::vector<std::weak_ptr<Connection>> connections;
  size_t prune_at = 64;
  std::thread thread;
};

absl::StatusOr<std::shared_ptr<asio::ssl::context>> LoadTls(const TlsConfig& tls) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  error_code error;
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                           asio::ssl::context::no_tlsv1_1 | asio::ssl::context::single_dh_use,
                       error);
  context->use_certificate_chain_file(tls.certificate_file, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(tls.certificate_file, ": ", error.message()));
  context->use_private_key_file(tls.key_file, asio::ssl::context::pem, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(tls.key_file, ": ", error.message()));
  return context;
}

class HttpServerImpl : public HttpServer {
 public:
  HttpServerImpl(const HttpServerOptions& options, HttpHandler& handler)
      : options_(options), shared_(std::make_shared<ConnectionShared>(options.limits, handler)) {}

  ~HttpServerImpl() override {
    for (auto& io_thread : io_threads_) {
      asio::post(*io_thread->io, [this, &io = *io_thread] {
        if (&io == io_threads_.front().get()) CloseListener();
        for (const auto& weak : io.connections) {
          if (auto connection = weak.lock()) connection->Close();
        }
        io.work.reset();
      });
    }
    for (auto& io_thread : io_threads_) {
      if (io_thread->thread.joinable()) io_thread->thread.join();
    }
  }

  absl::Status Listen() {
    if (options_.tls) {
      auto context = LoadTls(*options_.tls);
      if (!context.ok()) return context.status();
      shared_->tls = *std::move(context);
    }
    for (int i = 0; i < std::max(1, options_.num_io_threads); ++i) {
      io_threads_.push_back(std::make_unique<IoThread>());
      io_threads_.back()->work.emplace(io_threads_.back()->io->get_executor());
    }
    if (absl::Status status = Bind(); !status.ok()) return status;
    Accept();
    for (auto& io_thread : io_threads_) {
      io_thread->thread = std::thread([io = io_thread->io] { io->run(); });
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  int num_connections() const override { return shared_->num_connections; }
  uint64_t num_slow_readers() const override { return shared_->num_slow_readers; }
  int num_active_requests() const override {
    absl::MutexLock lock(&shared_->mu);
    return shared_->num_active_requests;
  }

  void BeginDrain() override {
    shared_->is_draining = true;
    for (auto& io_thread : io_threads_) {
      asio::post(*io_thread->io, [&io = *io_thread] {
        for (const auto& weak : io.connections) {
          if (auto connection = weak.lock()) connection->CloseIfIdle();
        }
      });
    }
  }

  bool WaitIdle(absl::Time deadline) override {
    const auto is_idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(shared_->mu) { return shared_->num_active_requests == 0; };
    absl::MutexLock lock(&shared_->mu);
    return shared_->mu.AwaitWithDeadline(absl::Condition(&is_idle), deadline);
  }

 private:
  absl::Status Bind() {
    asio::io_context& io = *io_threads_.front()->io;
    error_code error;
    tcp::resolver resolver(io);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port), tcp::resolver::passive, error);
    if (error || found.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("host '", options_.host, "': ", error.message()));
    }
    const tcp::endpoint endpoint = *found.begin();
    acceptor_.emplace(io);
    retry_timer_.emplace(io);
    acceptor_->open(endpoint.protocol(), error);
    if (!error) acceptor_->set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_->bind(endpoint, error);
    if (!error) acceptor_->listen(4096, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", options_.host, ":", options_.port, ": ", error.message()));
    }
    port_ = acceptor_->local_endpoint(error).port();
    return absl::OkStatus();
  }

  void CloseListener() {
    error_code ignored;
    if (acceptor_) acceptor_->close(ignored);
    if (retry_timer_) retry_timer_->cancel();
  }

  void Accept() {
    acceptor_->async_accept([this](error_code error, tcp::socket socket) {
      if (!acceptor_->is_open()) return;
      if (error) {
        // Out of descriptors, most likely: breathe, then go on.
        retry_timer_->expires_after(std::chrono::milliseconds(50));
        retry_timer_->async_wait([this](error_code stopped) {
          if (!stopped && acceptor_->is_open()) Accept();
        });
        return;
      }
      Take(std::move(socket));
      Accept();
    });
  }

  void Take(tcp::socket socket) {
    error_code error;
    if (shared_->num_connections >= options_.limits.max_connections) {
      const std::string body = shared_->handler.TransportError(503, "too many connections").body;
      const std::string reply = absl::StrCat(
          "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
          "connection: close\r\ncontent-length: ",
          body.size(), "\r\n\r\n", body);
      if (!shared_->tls) (void)send(socket.native_handle(), reply.data(), reply.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      return;
    }
    const tcp::endpoint endpoint = socket.local_endpoint(error);
    const AddressFamily family = endpoint.address().is_v6() ? AddressFamily::kIpv6 : AddressFamily::kIpv4;
    const int descriptor = socket.release(error);
    if (error) return;
    IoThread& target = *io_threads_[next_thread_++ % io_threads_.size()];
    asio::post(*target.io, [shared = shared_, &target, descriptor, family] {
      if (target.connections.size() >= target.prune_at) {
        std::erase_if(target.connections, [](const auto& weak) { return weak.expired(); });
        target.prune_at = 2 * target.connections.size() + 64;
      }
      target.connections.push_back(StartConnection(shared, target.io, descriptor, family));
    });
  }

  const HttpServerOptions options_;
  const std::shared_ptr<ConnectionShared> shared_;
  std::vector<std::unique_ptr<IoThread>> io_threads_;
  std::optional<tcp::acceptor> acceptor_;  // lives on the first io thread
  std::optional<asio::steady_timer> retry_timer_;
  size_t next_thread_ = 0;
  int port_ = 0;
};

}  // namespace

absl::Status CheckTls(const TlsConfig& tls) { return LoadTls(tls).status(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options, HttpHandler& handler) {
  auto server = std::make_unique<HttpServerImpl>(options, handler);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace millrace
