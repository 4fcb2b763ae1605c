// SPDX-License-Identifier: Apache-2.0
#pragma once
// The page at "/": a console for people, in the binary. Static texts without anything of a tenant; the page asks for a
// key and calls the same routes as every client. Any thread.
#include <string_view>

#include "server/http/http_message.h"

namespace millrace {

// Generated from the files of this folder.
extern const std::string_view kConsole_index_html, kConsole_console_css, kConsole_console_js;

// REQUIRES: `path` is "/", "/console.css" or "/console.js".
HttpResponse ConsoleResponse(std::string_view path);

}  // namespace millrace
