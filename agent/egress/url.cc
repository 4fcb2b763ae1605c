// SPDX-License-Identifier: Apache-2.0
#include "agent/egress/url.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr size_t kMaxUrlBytes = 2048;
constexpr size_t kMaxHostBytes = 253;

absl::Status Refuse(const char* why) { return absl::InvalidArgumentError(absl::StrCat("the URL ", why)); }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameCharacter(char c) { return (c >= 'a' && c <= 'z') || IsDigit(c) || c == '-' || c == '.'; }

// A name whose last label begins with a digit is a number in one of its many spellings; only the usual one is taken.
absl::Status CheckHost(const std::string& host) {
  if (host.empty() || host.size() > kMaxHostBytes) return Refuse("has no host, or too long a one");
  if (host.find(':') != host.npos) {
    in6_addr address;
    return inet_pton(AF_INET6, host.c_str(), &address) == 1 ? absl::OkStatus() : Refuse("has a host that is none");
  }
  if (!std::all_of(host.begin(), host.end(), IsNameCharacter)) {
    return Refuse("has a host with other characters than letters, digits, '-' and '.'");
  }
  if (host.front() == '.' || host.back() == '.' || host.find("..") != host.npos) return Refuse("has an empty label");
  if (IsDigit(host[host.rfind('.') == host.npos ? 0 : host.rfind('.') + 1])) {
    in_addr address;
    if (inet_pton(AF_INET, host.c_str(), &address) != 1) return Refuse("has a host that is an odd number");
  }
  return absl::OkStatus();
}

absl::Status TakeAuthority(std::string_view authority, WebUrl& url) {
  if (authority.find('@') != authority.npos) return Refuse("has a user name");
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == authority.npos) return Refuse("has a bracket that is not closed");
    url.host = authority.substr(1, end - 1);
    if (url.host.find(':') == url.host.npos) return Refuse("has brackets around no address");
    port = authority.substr(end + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  for (char& c : url.host) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  if (absl::Status status = CheckHost(url.host); !status.ok()) return status;
  url.port = url.is_https ? 443 : 80;
  if (port.empty()) return absl::OkStatus();
  int number = 0;
  const std::string digits(port.substr(1));
  if (port[0] != ':' || digits.empty() || digits.size() > 5 || !std::all_of(digits.begin(), digits.end(), IsDigit) ||
      !absl::SimpleAtoi(digits, &number) || number < 1 || number > 65535) {
    return Refuse("has a port that is none");
  }
  url.port = static_cast<uint16_t>(number);
  return absl::OkStatus();
}

absl::Status CheckCharacters(std::string_view url) {
  if (url.size() > kMaxUrlBytes) return Refuse("is too long");
  for (const char c : url) {
    if (c <= ' ' || c >= 0x7f || c == '\\') return Refuse("has a character that must be escaped");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WebUrl> ParseWebUrl(std::string_view text) {
  if (absl::Status status = CheckCharacters(text); !status.ok()) return status;
  WebUrl url;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!text.starts_with(scheme)) continue;
    url.is_https = scheme == "https://";
    text = text.substr(0, text.find('#'));
    text.remove_prefix(scheme.size());
    const size_t end = std::min(text.find_first_of("/?"), text.size());
    if (absl::Status status = TakeAuthority(text.substr(0, end), url); !status.ok()) return status;
    url.target = text.substr(end);
    if (!url.target.starts_with('/')) url.target.insert(0, "/");
    return url;
  }
  return Refuse("must begin with http:// or https://");
}

absl::StatusOr<WebUrl> ResolveLocation(const WebUrl& base, std::string_view location) {
  if (absl::Status status = CheckCharacters(location); !status.ok()) return status;
  if (location.starts_with("//"))
    return ParseWebUrl(absl::StrCat(base.is_https ? "https:" : "http:", std::string(location)));
  if (location.starts_with('/')) {
    WebUrl url = base;
    url.target = location.substr(0, location.find('#'));
    return url;
  }
  return ParseWebUrl(location);
}

std::string ToString(const WebUrl& url) {
  const bool is_ip6 = url.host.find(':') != url.host.npos;
  return absl::StrCat(url.is_https ? "https://" : "http://", is_ip6 ? "[" : "", url.host, is_ip6 ? "]:" : ":",
                      static_cast<int>(url.port), url.target);
}

}  // namespace millrace
