// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>

#include <catch2/catch.hpp>
#include <string>

#include "agent/egress/address.h"
#include "agent/egress/url.h"

namespace millrace {
namespace {

bool IsPublic(const std::string& text) {
  sockaddr_in ip4{};
  sockaddr_in6 ip6{};
  if (inet_pton(AF_INET, text.c_str(), &ip4.sin_addr) == 1) {
    ip4.sin_family = AF_INET;
    return CheckPublicAddress(reinterpret_cast<const sockaddr*>(&ip4)).ok();
  }
  REQUIRE(inet_pton(AF_INET6, text.c_str(), &ip6.sin6_addr) == 1);
  ip6.sin6_family = AF_INET6;
  return CheckPublicAddress(reinterpret_cast<const sockaddr*>(&ip6)).ok();
}

}  // namespace

TEST_CASE("egress: private, local and special addresses are refused") {
  for (const char* address : {"0.0.0.0",
                              "0.255.255.255",
                              "10.0.0.0",
                              "10.255.255.255",
                              "100.64.0.0",
                              "100.100.100.200",
                              "100.127.255.255",
                              "127.0.0.1",
                              "127.255.255.255",
                              "168.63.129.16",
                              "169.254.169.254",
                              "169.254.170.2",
                              "172.16.0.0",
                              "172.31.255.255",
                              "192.0.0.1",
                              "192.0.2.1",
                              "192.88.99.1",
                              "192.168.0.0",
                              "192.168.255.255",
                              "198.18.0.0",
                              "198.19.255.255",
                              "198.51.100.1",
                              "203.0.113.1",
                              "224.0.0.1",
                              "239.255.255.255",
                              "240.0.0.1",
                              "255.255.255.255",
                              "::",
                              "::1",
                              "::ffff:127.0.0.1",
                              "::ffff:169.254.169.254",
                              "::ffff:8.8.8.8",
                              "::7f00:1",
                              "64:ff9b::7f00:1",
                              "64:ff9b:1::1",
                              "100::1",
                              "2001::1",
                              "2001:2::1",
                              "2001:1ff:ffff::1",
                              "2001:db8::1",
                              "2002:7f00:1::",
                              "3fff::1",
                              "fc00::1",
                              "fd00:ec2::254",
                              "fdff::1",
                              "fe80::1",
                              "fec0::1",
                              "ff02::1"}) {
    INFO(address);
    CHECK_FALSE(IsPublic(address));
  }
  const sockaddr unix_socket{.sa_family = AF_UNIX, .sa_data = {}};
  CHECK_FALSE(CheckPublicAddress(&unix_socket).ok());
}

TEST_CASE("egress: public addresses are not refused, down to the neighbours of those that are") {
  for (const char* address : {"1.1.1.1",         "8.8.8.8",     "9.255.255.255",        "11.0.0.0",
                              "100.63.255.255",  "100.128.0.0", "126.255.255.255",      "128.0.0.0",
                              "169.253.255.255", "169.255.0.0", "172.15.255.255",       "172.32.0.0",
                              "192.167.255.255", "192.169.0.0", "198.17.255.255",       "198.20.0.0",
                              "223.255.255.255", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111",
                              "2a00:1450::1"}) {
    INFO(address);
    CHECK(IsPublic(address));
  }
}

TEST_CASE("egress: a URL that two readers could understand differently is refused") {
  for (const std::string url : {"",
                                "http://",
                                "http:///x",
                                "//example.com/",
                                "example.com",
                                "HTTP://example.com/",
                                "file:///etc/passwd",
                                "gopher://example.com/",
                                "ftp://example.com/",
                                "dict://example.com/",
                                "unix:/var/run/docker.sock",
                                "http:/example.com/",
                                "http://2130706433/",
                                "http://0177.0.0.1/",
                                "http://0x7f.1/",
                                "http://127.1/",
                                "http://0x7f000001/",
                                "http://1.2.3.4.5/",
                                "http://example.0x7f/",
                                "http://127.0.0.1./",
                                "http://example.com./",
                                "http://good@127.0.0.1/",
                                "http://good:word@example.com/",
                                "http://127.0.0.1\\@example.com/",
                                "http://example.com:80:80/",
                                "http://example.com:0/",
                                "http://example.com:65536/",
                                "http://example.com:/",
                                "http://example.com:+80/",
                                "http://[::1/",
                                "http://[example]/",
                                "http://[::1%25eth0]/",
                                "http://[::1]x/",
                                "http://ex ample.com/",
                                "http://example.com/a b",
                                "http://example.com/\r\nHost: other",
                                "http://exam_ple.com/",
                                "http://%31%32%37.0.0.1/",
                                "http://a..b/",
                                "http://.a/",
                                "http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1/",
                                "http://ex\xc3\xa4mple.com/"}) {
    INFO(url);
    CHECK_FALSE(ParseWebUrl(url).ok());
  }
  CHECK_FALSE(ParseWebUrl("http://example.com/" + std::string(3000, 'a')).ok());
  CHECK_FALSE(ParseWebUrl(std::string("http://example.com/\0x", 21)).ok());
  CHECK_FALSE(ParseWebUrl("http://" + std::string(300, 'a') + ".com/").ok());
}

TEST_CASE("egress: a plain URL is read, and written so that nothing is left open") {
  const auto read = [](std::string_view url) {
    const absl::StatusOr<WebUrl> parsed = ParseWebUrl(url);
    return parsed.ok() ? ToString(*parsed) : std::string(parsed.status().message());
  };
  CHECK(read("https://Example.COM") == "https://example.com:443/");
  CHECK(read("http://example.com?a=b#c") == "http://example.com:80/?a=b");
  CHECK(read("http://example.com#@good/") == "http://example.com:80/");
  CHECK(read("http://8.8.8.8:8080/x//y") == "http://8.8.8.8:8080/x//y");
  CHECK(read("https://[2001:4860:4860::8888]:444/") == "https://[2001:4860:4860::8888]:444/");
  CHECK(read("http://xn--exmple-cua.com/%20") == "http://xn--exmple-cua.com:80/%20");
}

TEST_CASE("egress: a redirect's target is read like a URL of its own") {
  const WebUrl base = ParseWebUrl("https://example.com/a/b?c").value();
  CHECK(ToString(ResolveLocation(base, "/x?y#z").value()) == "https://example.com:443/x?y");
  CHECK(ToString(ResolveLocation(base, "//other.org/x").value()) == "https://other.org:443/x");
  CHECK(ToString(ResolveLocation(base, "http://other.org/").value()) == "http://other.org:80/");
  for (const char* location :
       {"file:///etc/passwd", "gopher://a/", "//user@host/", "http://0x7f.1/", "/a b", "\\\\host"}) {
    INFO(location);
    CHECK_FALSE(ResolveLocation(base, location).ok());
  }
}

}  // namespace millrace
