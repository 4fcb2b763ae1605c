// SPDX-License-Identifier: Apache-2.0
#pragma once
// A client that sends exactly the bytes it is told to: for limits, slow writers, pipelining and hang-ups. One thread.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace millrace {

class RawClient {
 public:
  explicit RawClient(int port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool is_connected() const { return is_connected_; }
  bool is_closed_by_peer() const { return is_eof_; }
  void Close() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  // A hang-up with a reset instead of a goodbye.
  void Reset() {
    linger hard{1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    Close();
  }
  void SetReceiveBuffer(int num_bytes) { setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &num_bytes, sizeof(num_bytes)); }

  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Everything received so far, waiting until `done(text)` or the peer closes or the time is up.
  template <typename Done>
  std::string ReadUntil(Done done, absl::Duration limit = absl::Seconds(20)) {
    const absl::Time deadline = absl::Now() + limit;
    while (!done(received_) && !is_eof_ && absl::Now() < deadline) {
      pollfd poller{socket_, POLLIN, 0};
      const auto left = static_cast<int>(absl::ToInt64Milliseconds(deadline - absl::Now())) + 1;
      if (poll(&poller, 1, left) <= 0) continue;
      char bytes[65536];
      const ssize_t count = recv(socket_, bytes, sizeof(bytes), 0);
      if (count <= 0) {
        is_eof_ = true;
      } else {
        received_.append(bytes, static_cast<size_t>(count));
      }
    }
    return received_;
  }
  std::string ReadUntilText(std::string_view text, absl::Duration limit = absl::Seconds(20)) {
    return ReadUntil([&](const std::string& all) { return all.find(text) != std::string::npos; }, limit);
  }
  std::string ReadToEnd(absl::Duration limit = absl::Seconds(20)) {
    return ReadUntil([](const std::string&) { return false; }, limit);
  }
  // One response with a content-length; it is taken out of what was received.
  std::string ReadResponse(absl::Duration limit = absl::Seconds(20)) {
    size_t end = 0;
    ReadUntil(
        [&](const std::string& all) {
          const size_t head = all.find("\r\n\r\n");
          if (head == std::string::npos) return false;
          const size_t field = all.find("content-length: ");
          if (field == std::string::npos || field > head) {
            end = head + 4;
            return true;
          }
          size_t num_bytes = 0;
          (void)absl::SimpleAtoi(all.substr(field + 16, all.find("\r\n", field) - field - 16), &num_bytes);
          end = head + 4 + num_bytes;
          return all.size() >= end;
        },
        limit);
    std::string response = received_.substr(0, end);
    received_.erase(0, end);
    return response;
  }

 private:
  int socket_;
  bool is_connected_ = false;
  bool is_eof_ = false;
  std::string received_;
};

inline int StatusOf(std::string_view response) {
  int status = 0;
  if (response.size() > 12) (void)absl::SimpleAtoi(std::string(response.substr(9, 3)), &status);
  return status;
}

inline std::string BodyOf(const std::string& response) {
  const size_t head = response.find("\r\n\r\n");
  return head == std::string::npos ? "" : response.substr(head + 4);
}

// The body of a chunked response.
inline std::string Dechunk(const std::string& body) {
  std::string out;
  for (size_t at = 0; at < body.size();) {
    const size_t line = body.find("\r\n", at);
    if (line == std::string::npos) break;
    const size_t num_bytes = std::stoul(body.substr(at, line - at), nullptr, 16);
    if (num_bytes == 0) break;
    out += body.substr(line + 2, num_bytes);
    at = line + 2 + num_bytes + 2;
  }
  return out;
}

}  // namespace millrace
