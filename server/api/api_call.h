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
  std::string argument;  // what follows a route's prefix: the {id} of /v1/models/{id}

  void Send(std::string body) { writer->Send({.body = std::move(body)}); }
};

struct ApiHandler::Route {
  // kAside: a thread of its own, for what must answer while every worker is busy with long prompts.
  enum class Place : uint8_t { kIo, kWorker, kAside };
  enum class Access : uint8_t { kProbe, kMetrics, kKey };

  const char* path;  // ends with '/' when an argument follows
  const char* method;
  Endpoint endpoint;
  Place place;
  Access access;
};

}  // namespace millrace
