// SPDX-License-Identifier: Apache-2.0
#include "server/console/console.h"

namespace millrace {

HttpResponse ConsoleResponse(std::string_view path) {
  const bool is_style = path == "/console.css", is_script = path == "/console.js";
  HttpResponse response;
  response.content_type = is_style    ? "text/css; charset=utf-8"
                          : is_script ? "text/javascript; charset=utf-8"
                                      : "text/html; charset=utf-8";
  response.body = is_style ? kConsole_console_css : is_script ? kConsole_console_js : kConsole_index_html;
  // Nothing from elsewhere, nothing inline, in nobody's frame.
  response.headers = {{"content-security-policy",
                       "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                      {"x-content-type-options", "nosniff"},
                      {"referrer-policy", "no-referrer"},
                      {"cache-control", "no-cache"}};
  return response;
}

}  // namespace millrace
