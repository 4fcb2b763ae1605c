// SPDX-License-Identifier: Apache-2.0
#include "server/open_answer_store.h"

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cache/memory_store.h"
#include "cache/redis_store.h"
#include "cache/redis_url.h"

namespace millrace {
namespace {

// The file's URL if there is one, or else what the flag says.
absl::StatusOr<std::string> Choice(const ResponseCacheOptions& options) {
  if (options.url_file.empty()) return options.store;
  std::ifstream file(options.url_file);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::InvalidArgumentError(absl::StrCat("--response-cache-url-file: cannot read ", options.url_file));
  }
  return std::string(absl::StripAsciiWhitespace(text.str()));
}

bool IsRedis(const std::string& choice) { return choice != "off" && choice != "memory"; }

absl::StatusOr<RedisAddress> Address(const std::string& choice) {
  if (choice.find("://") == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--response-cache: 'off', 'memory' or redis://HOST[:PORT][/DATABASE], not '", choice, "'"));
  }
  return ParseRedisUrl(choice);
}

}  // namespace

absl::Status CheckResponseCache(const ResponseCacheOptions& options) {
  auto choice = Choice(options);
  if (!choice.ok()) return choice.status();
  return IsRedis(*choice) ? Address(*choice).status() : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AnswerStore>> OpenAnswerStore(const ResponseCacheOptions& options) {
  auto choice = Choice(options);
  if (!choice.ok()) return choice.status();
  const absl::Duration ttl = absl::Seconds(options.ttl_seconds);
  if (*choice == "off") return nullptr;
  if (*choice == "memory") return MakeMemoryStore({.max_bytes = options.max_bytes, .ttl = ttl});
  auto address = Address(*choice);
  if (!address.ok()) return address.status();
  return RedisStore::Start({.address = *std::move(address), .ttl = ttl});
}

}  // namespace millrace
