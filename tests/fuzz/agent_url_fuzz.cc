// SPDX-License-Identifier: Apache-2.0
// Any text as a URL and as a redirect's target: what is taken has a plain host, and reads the same when written again.
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/egress/url.h"
#include "agent/tool_arguments.h"
#include "kernels/check.h"

namespace {

void Check(const absl::StatusOr<millrace::WebUrl>& url) {
  if (!url.ok()) return;
  MILLRACE_CHECK(url->host.find_first_of("@/\\?#%[] \r\n\t") == std::string::npos, "an odd host is taken");
  MILLRACE_CHECK(url->port != 0 && url->target.starts_with('/'), "a URL without a port or a path");
  MILLRACE_CHECK(url->target.find_first_of(" \r\n#\\") == std::string::npos, "an odd target is taken");
  const std::string text = millrace::ToString(*url);
  const auto again = millrace::ParseWebUrl(text);
  MILLRACE_CHECK(text.size() > 2048 || (again.ok() && millrace::ToString(*again) == text), "a URL reads differently");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), num_bytes);
  Check(millrace::ParseWebUrl(text));
  Check(millrace::ResolveLocation({.is_https = true, .host = "example.com", .port = 443, .target = "/a"}, text));
  (void)millrace::ParseStringArguments(text, {"url"});
  return 0;
}
