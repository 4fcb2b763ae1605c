// SPDX-License-Identifier: Apache-2.0
#include "agent/egress/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

struct Range4 {
  uint32_t first;  // host order
  int prefix_bits;
  const char* kind;
};
constexpr uint32_t Ip4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return a << 24 | b << 16 | c << 8 | d; }

// IANA's special-purpose registry, and the address of a cloud's metadata that lies outside of it.
constexpr Range4 kRefused4[] = {
    {Ip4(0, 0, 0, 0), 8, "this network"},        {Ip4(10, 0, 0, 0), 8, "private"},
    {Ip4(100, 64, 0, 0), 10, "shared"},          {Ip4(127, 0, 0, 0), 8, "loopback"},
    {Ip4(168, 63, 129, 16), 32, "metadata"},     {Ip4(169, 254, 0, 0), 16, "link-local"},
    {Ip4(172, 16, 0, 0), 12, "private"},         {Ip4(192, 0, 0, 0), 24, "reserved"},
    {Ip4(192, 0, 2, 0), 24, "documentation"},    {Ip4(192, 88, 99, 0), 24, "reserved"},
    {Ip4(192, 168, 0, 0), 16, "private"},        {Ip4(198, 18, 0, 0), 15, "benchmarking"},
    {Ip4(198, 51, 100, 0), 24, "documentation"}, {Ip4(203, 0, 113, 0), 24, "documentation"},
    {Ip4(224, 0, 0, 0), 4, "multicast"},         {Ip4(240, 0, 0, 0), 4, "reserved"},
};

struct Range6 {
  uint8_t first[16];
  int prefix_bits;
  const char* kind;
};
// All of 2000::/3 but these is public; all else is not.
constexpr Range6 kRefused6[] = {
    {{0x20, 0x01, 0x00}, 23, "reserved"},  // Teredo, benchmarking, ORCHID and others
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "documentation"},
    {{0x20, 0x02}, 16, "6to4"},
    {{0x3f, 0xff}, 20, "documentation"},
};

bool IsIn(const uint8_t* address, const Range6& range) {
  for (int bit = 0; bit < range.prefix_bits; ++bit) {
    if (((address[bit / 8] ^ range.first[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  }
  return true;
}

const char* RefusedKind4(uint32_t address) {
  for (const Range4& range : kRefused4) {
    if ((address ^ range.first) >> (32 - range.prefix_bits) == 0) return range.kind;
  }
  return nullptr;
}

const char* RefusedKind6(const uint8_t* address) {
  if ((address[0] & 0xe0) != 0x20) return "not public";
  for (const Range6& range : kRefused6) {
    if (IsIn(address, range)) return range.kind;
  }
  return nullptr;
}

}  // namespace

absl::Status CheckPublicAddress(const sockaddr* address) {
  const char* kind = "of an unknown family";
  char text[INET6_ADDRSTRLEN] = "an address";
  if (address->sa_family == AF_INET) {
    sockaddr_in ip4;
    std::memcpy(&ip4, address, sizeof(ip4));
    inet_ntop(AF_INET, &ip4.sin_addr, text, sizeof(text));
    kind = RefusedKind4(ntohl(ip4.sin_addr.s_addr));
  } else if (address->sa_family == AF_INET6) {
    sockaddr_in6 ip6;
    std::memcpy(&ip6, address, sizeof(ip6));
    inet_ntop(AF_INET6, &ip6.sin6_addr, text, sizeof(text));
    kind = RefusedKind6(ip6.sin6_addr.s6_addr);
  }
  if (kind == nullptr) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(text, " is ", kind, "; tools may reach public addresses only"));
}

}  // namespace millrace
