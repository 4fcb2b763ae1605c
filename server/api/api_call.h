// SPDX-License-Identifier: Apache-2.0
#pragma once
// One request inside the handler, and the table that says what serves it. Internal to server/api.
#include <memory>
#include <string>
#include <string_view>

#include "server/api/api_handler.h"

namespace millrace {

struct ApiHandler::Call {
  HttpRequest request;
  std::shared_ptr<ResponseWriter> writer;
  Tenant tenant;
  std::string key_name;                // of the key that asks
  std::shared_ptr<const Quota> quota;  // what that key has left; null: no limits
  std::string argument;                // what follows a route's prefix: the {id} of /v1/models/{id}

  void Send(std::string body) { writer->Send({.body = std::move(body)}); }
};

struct ApiHandler::Route {
  // kAside: a thread of its own, for what must answer while every worker is busy with long prompts.
  enum class Place : uint8_t { kIo, kWorker, kAside };
  // Has no default, so that a route which does not say whom it serves does not compile.
  struct Whom {
    constexpr Whom(Access to) : access(to) {}  // NOLINT(google-explicit-constructor)
    Access access;
  };

  const char* path;  // ends with '/' when an argument follows
  const char* method;
  Endpoint endpoint;
  Place place;
  Whom whom;
};

}  // namespace millrace
