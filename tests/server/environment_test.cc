// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>

#include <catch2/catch.hpp>

#include "server/config/serve_options.h"

namespace millrace {
namespace {

// Sets a variable, or unsets it, for as long as it lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    const char* before = getenv(name);
    was_set_ = before != nullptr;
    if (was_set_) before_ = before;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~Variable() { was_set_ ? setenv(name_, before_.c_str(), 1) : unsetenv(name_); }

 private:
  const char* const name_;
  bool was_set_ = false;
  std::string before_;
};

std::string CaFile(const char* requests, const char* openssl) {
  const Variable first("REQUESTS_CA_BUNDLE", requests), second("SSL_CERT_FILE", openssl);
  HubOptions hub;
  ApplyEnvironment(hub);
  return hub.ca_file;
}

}  // namespace

TEST_CASE("Environment: the hub's authorities are where Hugging Face's own tools look for them", "[config]") {
  CHECK(CaFile(nullptr, nullptr).empty());
  CHECK(CaFile(nullptr, "b.pem") == "b.pem");
  CHECK(CaFile("a.pem", "b.pem") == "a.pem");
  CHECK(CaFile("", "b.pem") == "b.pem");
}

}  // namespace millrace
