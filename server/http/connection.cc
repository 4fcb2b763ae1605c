// SPDX-License-Identifier: Apache-2.0
#include "server/http/connection.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/http/connection_accounts.h"
#include "server/http/response_channel.h"

namespace millrace {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using RequestParser = http::request_parser<http::string_body>;

constexpr size_t kWatchBytes = 512;       // read area while a response is under way: kept small, one per stream
constexpr size_t kReadBytes = 16 * 1024;  // read area while a request arrives
constexpr size_t kMaxPipelinedBytes = 64 * 1024;
constexpr size_t kWritePieceBytes = 256 * 1024;
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

Clock::duration ToStd(absl::Duration duration) {
  return duration == absl::InfiniteDuration() ? std::chrono::hours(24 * 365) : absl::ToChronoNanoseconds(duration);
}

bool IsTls(const tcp::socket&) { return false; }
bool IsTls(const asio::ssl::stream<tcp::socket>&) { return true; }
tcp::socket& Lowest(tcp::socket& stream) { return stream; }
tcp::socket& Lowest(asio::ssl::stream<tcp::socket>& stream) { return stream.next_layer(); }

// What reading a request came to.
struct ReadOutcome {
  bool is_request = false;
  int refuse_status = 0;  // not 0: answer that and close
  std::string message;
  std::optional<HttpResponse> refusal;  // the handler's own
};

template <class Stream>
class ConnectionImpl : public Connection, public std::enable_shared_from_this<ConnectionImpl<Stream>> {
 public:
  ConnectionImpl(std::shared_ptr<ConnectionShared> shared, std::shared_ptr<asio::io_context> io, Stream stream)
      : shared_owner_(std::move(shared)),
        shared_(*shared_owner_),
        io_(std::move(io)),
        stream_(std::move(stream)),
        wake_(*io_),
        deadline_timer_(*io_) {
    ++shared_.num_connections;
    error_code error;
    const auto peer = Lowest(stream_).remote_endpoint(error);
    if (!error) remote_ = absl::StrCat(peer.address().to_string(), ":", peer.port());
  }
  ~ConnectionImpl() override { --shared_.num_connections; }

  void Start() {
    auto run = Run(this->shared_from_this());
    asio::co_spawn(*io_, std::move(run), asio::detached);
  }

  void Close() override {
    error_code ignored;
    is_dead_ = true;
    Lowest(stream_).close(ignored);
    deadline_timer_.cancel();
    Notify();
  }
  void CloseIfIdle() override {
    if (is_idle_) Close();
  }

 private:
  using Self = std::shared_ptr<ConnectionImpl>;

  asio::awaitable<void> Run(Self self) {
    bool is_open = true;
    if constexpr (!std::is_same_v<Stream, tcp::socket>) {
      SetDeadline(shared_.limits.header_timeout);
      auto [error] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kToken);
      is_open = !error;
    }
    while (is_open && !is_dead_) is_open = co_await ServeOne();
    if (!is_dead_) co_await Finish();
    Close();
  }

  // One request and its response. False: the connection ends.
  asio::awaitable<bool> ServeOne() {
    HttpRequest request;
    auto outcome = co_await ReadRequest(request);
    if (!outcome.is_request) {
      if (outcome.refuse_status == 0) co_return false;
      HttpResponse response = outcome.refusal ? *std::move(outcome.refusal)
                                              : shared_.handler.TransportError(outcome.refuse_status, outcome.message);
      keep_alive_ = false;
      std::string bytes = Head(response, response.body.size(), request.id);
      bytes += response.body;
      (void)co_await WriteAll(bytes);
      must_drain_ = true;
      co_return false;
    }
    ActiveRequest active(shared_);
    ClearDeadline();
    large_.reset();
    auto weak = this->weak_from_this();
    auto channel = std::make_shared<ResponseChannel>(shared_.limits, [weak, io = io_] {
      asio::post(*io, [weak] {
        if (auto self = weak.lock()) self->Notify();
      });
    });
    const std::string id = request.id;
    shared_.handler.Handle(std::move(request), std::make_shared<ChannelWriter>(channel));
    const bool is_ok = co_await Respond(*channel, id);
    if (channel->was_slow()) ++shared_.num_slow_readers;
    if (is_ok) {
      channel->Complete();
    } else {
      channel->Close();
      is_cut_ = true;
    }
    co_return is_ok&& keep_alive_;
  }

  // ---- reading -----------------------------------------------------------------------------------------------

  asio::awaitable<ReadOutcome> ReadRequest(HttpRequest& request) {
    ReadOutcome outcome;
    is_idle_ = true;
    if (input_.empty()) SetDeadline(num_served_ > 0 ? shared_.limits.idle_timeout : shared_.limits.header_timeout);
    while (input_.empty()) {
      if (shared_.is_draining && num_served_ > 0) co_return outcome;
      if (!co_await ReadMore()) co_return outcome;
    }
    is_idle_ = false;
    SetDeadline(shared_.limits.header_timeout);
    RequestParser parser;
    parser.header_limit(static_cast<uint32_t>(shared_.limits.max_header_bytes));
    parser.body_limit(shared_.limits.max_body_bytes);
    parser.eager(false);
    while (!parser.is_header_done()) {
      if (!Feed(parser, outcome)) co_return outcome;
      if (!parser.is_header_done() && !co_await ReadMore()) {
        if (is_timed_out_) outcome = {.refuse_status = 408, .message = "the request's headers took too long"};
        co_return outcome;
      }
    }
    FillRequest(parser, request);
    if (outcome.refusal = shared_.handler.CheckHeaders(request); outcome.refusal) {
      outcome.refuse_status = outcome.refusal->status;
      co_return outcome;
    }
    SetDeadline(shared_.limits.body_timeout);
    co_await ReadBody(parser, request, outcome);
    ++num_served_;
    co_return outcome;
  }

  asio::awaitable<void> ReadBody(RequestParser& parser, HttpRequest& request, ReadOutcome& outcome) {
    if (!parser.is_done() && absl::EqualsIgnoreCase(std::string(request.Header("expect")), "100-continue") &&
        input_.empty() && !(co_await WriteAll("HTTP/1.1 100 Continue\r\n\r\n"))) {
      co_return;
    }
    auto charge = std::make_shared<BodyCharge>(shared_owner_);
    int64_t charged = 0;
    while (true) {
      // A body of announced length is reserved by the parser at once, one in chunks grows: charge either.
      const int64_t bytes = static_cast<int64_t>(parser.get().body().capacity());
      if (bytes > charged && !charge->Add(bytes - std::exchange(charged, bytes))) {
        outcome = {.refuse_status = 503, .message = "too many request bodies are being received"};
        co_return;
      }
      if (parser.is_done()) break;
      if (!Feed(parser, outcome)) co_return;
      if (!parser.is_done() && !co_await ReadMore()) {
        if (is_timed_out_) outcome = {.refuse_status = 408, .message = "the request's body took too long"};
        co_return;
      }
    }
    request.body = std::move(parser.get().body());
    request.body_charge = std::move(charge);
    request.received = absl::Now();
    outcome.is_request = true;
  }

  // Gives the parser what was read. False: it refused, and `outcome` says how.
  bool Feed(RequestParser& parser, ReadOutcome& outcome) {
    while (!input_.empty() && !parser.is_done()) {
      error_code error;
      const bool was_header_done = parser.is_header_done();
      const size_t used = parser.put(asio::const_buffer(input_.data(), input_.size()), error);
      input_.erase(0, used);
      if (error == http::error::need_more) {
        if (used == 0) return true;
        continue;
      }
      if (error) {
        if (error == http::error::header_limit) {
          outcome.refuse_status = 431;
          outcome.message = absl::StrCat("the headers are larger than ", shared_.limits.max_header_bytes, " bytes");
        } else if (error == http::error::body_limit) {
          outcome.refuse_status = 413;
          outcome.message = absl::StrCat("the body is larger than ", shared_.limits.max_body_bytes, " bytes");
        } else {
          outcome.refuse_status = 400;
          outcome.message = absl::StrCat("malformed HTTP request: ", error.message());
        }
        return false;
      }
      if (!was_header_done && parser.is_header_done()) return true;
      if (used == 0) return true;
    }
    return true;
  }

  void FillRequest(const RequestParser& parser, HttpRequest& request) {
    const auto& message = parser.get();
    const std::string_view target(message.target().data(), message.target().size());
    const size_t question = target.find('?');
    request.method.assign(message.method_string().data(), message.method_string().size());
    request.path = PercentDecode(target.substr(0, question));
    if (question != std::string_view::npos) request.query = std::string(target.substr(question + 1));
    for (const auto& field : message) {
      request.headers.push_back({std::string(field.name_string().data(), field.name_string().size()),
                                 std::string(field.value().data(), field.value().size())});
    }
    const std::string_view id = request.Header("x-request-id");
    request.id = IsValidRequestId(id) ? std::string(id) : RandomId();
    request.remote = remote_;
    request.received = absl::Now();
    keep_alive_ = message.keep_alive();
    is_http10_ = message.version() < 11;
    is_head_ = request.method == "HEAD";
  }

  // Waits until more bytes are in input_. False: the client is gone, or time is up.
  asio::awaitable<bool> ReadMore() {
    const size_t before = input_.size();
    if (!large_) large_ = std::make_unique<char[]>(kReadBytes);
    StartRead();
    while (input_.size() == before && !is_eof_ && !is_dead_) co_await Wait(Clock::time_point::max());
    co_return input_.size() > before;
  }

  // At most one read is pending; it may outlive the request during which it began, so it owns its area.
  void StartRead() {
    if (is_reading_ || is_eof_ || is_dead_ || input_.size() > kMaxPipelinedBytes) return;
    is_reading_ = true;
    const auto area = large_ ? asio::mutable_buffer(large_.get(), kReadBytes) : asio::buffer(small_);
    is_reading_large_ = large_ != nullptr;
    stream_.async_read_some(area, [self = this->shared_from_this()](error_code error, size_t num_bytes) {
      self->is_reading_ = false;
      self->input_.append(self->is_reading_large_ ? self->large_.get() : self->small_.data(), num_bytes);
      if (error) self->is_eof_ = true;
      self->Notify();
    });
  }

  // ---- writing -----------------------------------------------------------------------------------------------

  asio::awaitable<bool> Respond(ResponseChannel& channel, const std::string& id) {
    Clock::time_point next_keep_alive = Clock::time_point::max();
    StreamOptions stream;
    bool is_stream = false;
    while (true) {
      ChannelBatch batch = channel.Take();
      std::string out;
      if (batch.whole) {
        out = Head(*batch.whole, batch.whole->body.size(), id);
        if (!is_head_) out += batch.whole->body;
        co_return co_await WriteAll(out);
      }
      if (batch.begin) {
        is_stream = true;
        stream = *std::move(batch.begin);
        out = StreamHead(stream, id);
      }
      if (is_stream) {
        AppendChunk(batch.bytes, out);
        if (batch.is_abandoned) co_return false;
        if (out.empty() && !batch.is_ended && Clock::now() >= next_keep_alive) AppendChunk(stream.keep_alive, out);
        if (batch.is_ended && !is_http10_) out += "0\r\n\r\n";
        if (!out.empty()) {
          if (!co_await WriteAll(out)) co_return false;
          next_keep_alive = Clock::now() + ToStd(stream.keep_alive_interval);
        }
        if (batch.is_ended) co_return true;
      } else if (batch.is_ended) {
        co_return false;
      }
      StartRead();  // notices the client's leaving, and takes pipelined requests
      // The client closed: its handler is told at once, but an answer that comes all the same is still written.
      if (is_eof_ && !batch.is_ended) channel.Close();
      if (is_dead_ || (is_eof_ && is_stream)) co_return false;
      co_await Wait(next_keep_alive);
    }
  }

  void AppendChunk(std::string_view bytes, std::string& out) {
    if (bytes.empty()) return;
    if (is_http10_) {
      out += bytes;
    } else {
      absl::StrAppend(&out, absl::Hex(bytes.size()), "\r\n", absl::string_view(bytes.data(), bytes.size()), "\r\n");
    }
  }

  std::string CommonHead(int status, const std::string& content_type, const std::vector<HttpHeader>& headers,
                         const std::string& id) {
    if (shared_.is_draining) keep_alive_ = false;
    const std::string_view reason = HttpReason(status);
    std::string head = absl::StrCat("HTTP/1.1 ", status, " ", absl::string_view(reason.data(), reason.size()),
                                    "\r\ncontent-type: ", content_type, "\r\nserver: millrace\r\ndate: ",
                                    absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()));
    if (!id.empty()) absl::StrAppend(&head, "\r\nx-request-id: ", id);
    for (const HttpHeader& header : headers) absl::StrAppend(&head, "\r\n", header.name, ": ", header.value);
    return head;
  }
  std::string Head(const HttpResponse& response, size_t body_bytes, const std::string& id) {
    std::string head = CommonHead(response.status, response.content_type, response.headers, id);
    absl::StrAppend(&head, "\r\ncontent-length: ", body_bytes,
                    keep_alive_ ? (is_http10_ ? "\r\nconnection: keep-alive" : "") : "\r\nconnection: close",
                    "\r\n\r\n");
    return head;
  }
  std::string StreamHead(const StreamOptions& stream, const std::string& id) {
    if (is_http10_) keep_alive_ = false;
    std::string head = CommonHead(200, stream.content_type, stream.headers, id);
    absl::StrAppend(&head, "\r\ncache-control: no-cache\r\nx-accel-buffering: no",
                    is_http10_ ? "" : "\r\ntransfer-encoding: chunked", keep_alive_ ? "" : "\r\nconnection: close",
                    "\r\n\r\n");
    return head;
  }

  // Each piece has the write time-out to itself, so that a long answer to a slow but willing reader gets through.
  asio::awaitable<bool> WriteAll(std::string_view bytes) {
    while (!bytes.empty() && !is_dead_) {
      const std::string_view piece = bytes.substr(0, kWritePieceBytes);
      SetDeadline(shared_.limits.write_timeout);
      auto [error, num_bytes] = co_await asio::async_write(stream_, asio::buffer(piece.data(), piece.size()), kToken);
      ClearDeadline();
      if (error) co_return false;
      bytes.remove_prefix(num_bytes);
    }
    co_return !is_dead_;
  }

  // Says goodbye. After a refusal the client may still be sending; closing at once would reset the connection and
  // lose our reply, so its bytes are thrown away for a moment.
  asio::awaitable<void> Finish() {
    SetDeadline(absl::Seconds(2));
    if constexpr (!std::is_same_v<Stream, tcp::socket>) {
      // A read may be pending: the stream lets one of the two wait for the other's bytes. An answer that was cut gets
      // no goodbye, which could pass for its end.
      if (!is_cut_) (void)co_await stream_.async_shutdown(kToken);
    }
    error_code ignored;
    Lowest(stream_).shutdown(tcp::socket::shutdown_send, ignored);
    while (must_drain_ && !is_eof_ && !is_dead_) {
      input_.clear();
      if (!co_await ReadMore()) break;
    }
  }

  // ---- waiting -----------------------------------------------------------------------------------------------

  void Notify() {
    is_notified_ = true;
    wake_.cancel();
  }

  asio::awaitable<void> Wait(Clock::time_point until) {
    if (!std::exchange(is_notified_, false)) {
      wake_.expires_at(until);
      (void)co_await wake_.async_wait(kToken);
      is_notified_ = false;
    }
  }

  // When the deadline passes the socket is shut for reading (a late request still gets its 408), then closed. The
  // timer is set anew only when the deadline moves nearer, so that the many short writes of a stream cost nothing.
  void SetDeadline(absl::Duration duration) {
    deadline_ = Clock::now() + ToStd(duration);
    is_timed_out_ = false;
    if (deadline_ < armed_until_) ArmTimer();
  }
  void ClearDeadline() { deadline_ = Clock::time_point::max(); }

  void ArmTimer() {
    armed_until_ = deadline_;
    deadline_timer_.expires_at(deadline_);
    deadline_timer_.async_wait([weak = this->weak_from_this()](error_code error) {
      auto self = weak.lock();
      if (error || !self || self->is_dead_) return;
      self->armed_until_ = Clock::time_point::max();
      if (self->deadline_ == Clock::time_point::max()) return;
      if (Clock::now() < self->deadline_) return self->ArmTimer();
      self->OnDeadline();
    });
  }

  void OnDeadline() {
    is_timed_out_ = true;
    if (is_idle_ || IsTls(stream_) || is_eof_) return Close();
    error_code ignored;
    is_eof_ = true;
    deadline_ = Clock::now() + std::chrono::seconds(2);
    ArmTimer();
    Lowest(stream_).cancel(ignored);  // a pending write fails with it
    Notify();
  }

  const std::shared_ptr<ConnectionShared> shared_owner_;
  ConnectionShared& shared_;
  const std::shared_ptr<asio::io_context> io_;
  Stream stream_;
  asio::steady_timer wake_;
  asio::steady_timer deadline_timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point armed_until_ = Clock::time_point::max();
  std::string remote_;
  std::string input_;  // read, not yet parsed
  std::array<char, kWatchBytes> small_;
  std::unique_ptr<char[]> large_;  // only while a request is being read
  int num_served_ = 0;
  bool is_reading_ = false;
  bool is_reading_large_ = false;
  bool is_notified_ = false;
  bool is_eof_ = false;
  bool is_dead_ = false;
  bool is_idle_ = true;
  bool is_timed_out_ = false;
  bool keep_alive_ = true;
  bool is_http10_ = false;
  bool is_head_ = false;
  bool must_drain_ = false;
  bool is_cut_ = false;
};

}  // namespace

std::shared_ptr<Connection> StartConnection(std::shared_ptr<ConnectionShared> shared,
                                            std::shared_ptr<asio::io_context> io, int descriptor,
                                            AddressFamily family) {
  tcp::socket socket(*io);
  error_code error;
  socket.assign(family == AddressFamily::kIpv6 ? tcp::v6() : tcp::v4(), descriptor, error);
  if (error) return nullptr;
  socket.set_option(tcp::no_delay(true), error);
  if (shared->tls == nullptr) {
    using Plain = ConnectionImpl<tcp::socket>;
    auto connection = std::make_shared<Plain>(std::move(shared), std::move(io), std::move(socket));
    connection->Start();
    return connection;
  }
  using TlsStream = asio::ssl::stream<tcp::socket>;
  TlsStream stream(std::move(socket), *shared->tls);
  auto connection = std::make_shared<ConnectionImpl<TlsStream>>(std::move(shared), std::move(io), std::move(stream));
  connection->Start();
  return connection;
}

}  // namespace millrace
