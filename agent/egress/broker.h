// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/cancellation.h"
#include "agent/egress/url.h"

namespace millrace {

struct EgressPolicy {
  // Whom a tool may ask: "example.com", "*.example.com" (its subdomains), or either with ":port"; without one, the
  // scheme's own port is meant. None, none may be asked.
  std::vector<std::string> hosts;
  int64_t max_body_bytes = 1 << 20;
  int64_t max_header_bytes = 64 << 10;
  int max_redirects = 3;
};

struct EgressAnswer {
  int code = 0;
  std::string content_type;
  std::string body;  // as it came: nothing is decompressed
  std::string url;   // the last, after redirects
};

// Stand-ins for the network, for tests: which addresses may be dialled, and names that need not be resolved, as curl's
// CURLOPT_RESOLVE wants them ("name:port:address").
struct EgressTestHook {
  std::function<absl::Status(const sockaddr*)> check_address;
  std::vector<std::string> resolved;
};

// The only way by which a tool reaches the network. A host must be on the list; the address that is dialled is the one
// that was checked, after the name was resolved, so that a name cannot mean something else a moment later. Redirects
// are new requests, checked like the first. Proxies, cookies, credentials and other protocols are not used. Any thread.
class EgressBroker {
 public:
  explicit EgressBroker(EgressPolicy policy, EgressTestHook hook = {})
      : policy_(std::move(policy)), hook_(std::move(hook)) {}

  // InvalidArgument for a URL that is odd, PermissionDenied for a host or an address that is not allowed,
  // ResourceExhausted beyond a limit, DeadlineExceeded, Cancelled, Unavailable where the other side failed.
  absl::StatusOr<EgressAnswer> Get(std::string_view url, absl::Time deadline, const Cancellation& cancellation) const;

 private:
  absl::Status CheckHost(const WebUrl& url) const;

  const EgressPolicy policy_;
  const EgressTestHook hook_;
};

}  // namespace millrace
