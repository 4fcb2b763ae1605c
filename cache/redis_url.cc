// SPDX-License-Identifier: Apache-2.0
#include "cache/redis_url.h"

#include <charconv>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr std::string_view kScheme = "redis://";

absl::Status Fault(const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat("not a Redis URL (redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]): ", what));
}

bool ReadNumber(std::string_view text, int base, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc() && end == text.data() + text.size() && out >= 0;
}

bool Unescape(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = static_cast<unsigned char>(text[i]);
    if (text[i] == '%') {
      if (i + 2 >= text.size() || !ReadNumber(text.substr(i + 1, 2), 16, byte)) return false;
      i += 2;
    }
    out += static_cast<char>(byte);
  }
  return true;
}

absl::Status ReadHost(std::string_view text, RedisAddress& address) {
  size_t end = text.rfind(':');
  if (text.starts_with('[')) {
    const size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) return Fault("a bracket is not closed");
    address.host = text.substr(1, bracket - 1);
    end = bracket + 1 < text.size() ? bracket + 1 : std::string_view::npos;
    if (end != std::string_view::npos && text[end] != ':') return Fault("what follows the address is no port");
  } else {
    address.host = text.substr(0, end);
  }
  if (address.host.empty()) return Fault("the host is missing");
  if (end == std::string_view::npos) return absl::OkStatus();
  const std::string_view port = text.substr(end + 1);
  const bool is_port = ReadNumber(port, 10, address.port) && address.port >= 1 && address.port <= 65535;
  return is_port ? absl::OkStatus() : Fault("the port is not a number from 1 to 65535");
}

}  // namespace

absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url) {
  if (url.starts_with("rediss://")) return Fault("TLS is not spoken; put a proxy beside the server");
  if (!url.starts_with(kScheme)) return Fault("it does not begin with redis://");
  url.remove_prefix(kScheme.size());
  RedisAddress address;
  if (const size_t at = url.rfind('@'); at != std::string_view::npos) {
    const std::string_view secret = url.substr(0, at);
    const size_t colon = secret.find(':');
    if (colon == std::string_view::npos) return Fault("a colon before the password is missing");
    if (!Unescape(secret.substr(0, colon), address.user) || !Unescape(secret.substr(colon + 1), address.password)) {
      return Fault("a % in user or password is not followed by two hexadecimal digits");
    }
    url.remove_prefix(at + 1);
  }
  if (const size_t slash = url.find('/'); slash != std::string_view::npos) {
    const std::string_view database = url.substr(slash + 1);
    if (!database.empty() && !ReadNumber(database, 10, address.database)) {
      return Fault("the database is not a number");
    }
    url = url.substr(0, slash);
  }
  if (absl::Status status = ReadHost(url, address); !status.ok()) return status;
  return address;
}

}  // namespace millrace
