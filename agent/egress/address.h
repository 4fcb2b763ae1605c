// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <string>

#include "absl/status/status.h"

namespace millrace {

// PermissionDenied, with the address and its kind, unless it is an ordinary public one: private, loopback, link-local,
// shared, metadata, multicast, documentation and reserved ranges are refused, and so are IPv6 addresses that carry an
// IPv4 one (mapped, compatible, NAT64, 6to4, Teredo), whatever they carry.
absl::Status CheckPublicAddress(const sockaddr* address);

}  // namespace millrace
