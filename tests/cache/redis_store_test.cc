// SPDX-License-Identifier: Apache-2.0
#include "cache/redis_store.h"

#include <catch2/catch.hpp>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "cache/redis_connection.h"
#include "tests/cache/redis_process.h"

namespace millrace {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

CacheKey Key(const std::string& name, const std::string& tenant = "t", const std::string& model = "m") {
  return {.tenant = tenant, .model = model, .digest = Sha256(tenant + "/" + model + "/" + name)};
}

RedisStoreOptions Options(int port) {
  return {.address = {.host = "127.0.0.1", .port = port},
          .command_limit = absl::Milliseconds(500),
          .min_pause = absl::Milliseconds(1),
          .max_pause = absl::Milliseconds(20)};
}

bool Has(AnswerStore& store, const CacheKey& key) { return store.Get(key) != nullptr; }

#define REQUIRE_REDIS()                              \
  if (!RedisProcess::IsInstalled()) {                \
    WARN("[SKIPPED] redis-server is not installed"); \
    return;                                          \
  }                                                  \
  static_assert(true, "the macro takes a semicolon")

TEST_CASE("RedisStore: what one process puts another gets", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  auto one = RedisStore::Start(Options(redis.port()));
  auto two = RedisStore::Start(Options(redis.port()));
  REQUIRE(one->AwaitReady(kPatience));
  REQUIRE(two->AwaitReady(kPatience));
  const std::string value("any\0bytes\r\n", 11);
  CHECK_FALSE(Has(*two, Key("a")));
  one->Put(Key("a"), value);
  REQUIRE(one->AwaitReady(kPatience));
  const auto got = two->Get(Key("a"));
  REQUIRE(got != nullptr);
  CHECK(*got == value);
  CHECK_FALSE(Has(*two, Key("a", "u")));
  CHECK_FALSE(Has(*two, Key("a", "t", "n")));
  CHECK(one->stats().num_errors == 0);
  CHECK(two->stats().num_errors == 0);
}

TEST_CASE("RedisStore: Redis itself drops an entry when its time is over", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  RedisStoreOptions options = Options(redis.port());
  options.ttl = absl::Seconds(1000);
  auto store = RedisStore::Start(options);
  REQUIRE(store->AwaitReady(kPatience));
  store->Put(Key("a"), "x");
  REQUIRE(store->AwaitReady(kPatience));
  auto connection = RedisConnection::Open(options.address, kPatience).value();
  const RedisReply keys = connection->Run({"KEYS", "*"}).value();
  REQUIRE(keys.items.size() == 1);
  const int64_t left = connection->Run({"PTTL", keys.items[0].text}).value().number;
  CHECK(left > 900'000);
  CHECK(left <= 1'000'000);
}

TEST_CASE("RedisStore: a purge takes what it names, and names may hold anything", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  auto store = RedisStore::Start(Options(redis.port()));
  REQUIRE(store->AwaitReady(kPatience));
  const std::string tenants[] = {"", "t", "*", "t:m", "[a-z]", "\xC3\xA9"};
  for (const std::string& tenant : tenants) {
    for (const char* model : {"m", "org/name", "?"}) store->Put(Key("a", tenant, model), "x");
  }
  for (int i = 0; i < 3000; ++i) store->Put(Key(std::to_string(i), "many"), "x");
  REQUIRE(store->AwaitReady(kPatience));
  CHECK(store->Purge({.tenant = "*"}).value() == 3);
  CHECK(store->Purge({.tenant = "", .model = "m"}).value() == 1);
  CHECK(Has(*store, Key("a", "t", "m")));
  CHECK(store->Purge({.model = "?"}).value() == 5);
  CHECK(store->Purge({.tenant = "many"}).value() == 3000);
  CHECK(store->Purge({}).value() == 9);
  CHECK(store->Purge({}).value() == 0);
}

TEST_CASE("RedisStore: what was put before a purge is not written after it", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  auto store = RedisStore::Start(Options(redis.port()));
  REQUIRE(store->AwaitReady(kPatience));
  for (int i = 0; i < 3000; ++i) store->Put(Key(std::to_string(i)), "x");
  REQUIRE(store->Purge({}).ok());
  REQUIRE(store->AwaitReady(kPatience));
  CHECK(store->Purge({}).value() == 0);
  store->Put(Key("a"), "x");
  REQUIRE(store->AwaitReady(kPatience));
  CHECK(Has(*store, Key("a")));
}

TEST_CASE("RedisStore: a server that dies and comes back costs misses and nothing else", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  auto store = RedisStore::Start(Options(redis.port()));
  REQUIRE(store->AwaitReady(kPatience));
  store->Put(Key("a"), "x");
  REQUIRE(store->AwaitReady(kPatience));
  CHECK(Has(*store, Key("a")));
  const int port = redis.port();
  redis.Kill();
  for (int i = 0; i < 100; ++i) {
    CHECK_FALSE(Has(*store, Key("a")));
    store->Put(Key("b"), "y");
  }
  CHECK(store->stats().num_errors > 0);
  CHECK(absl::IsUnavailable(store->Purge({}).status()));
  REQUIRE(redis.Start({}, port));
  REQUIRE(store->AwaitReady(kPatience));
  store->Put(Key("a"), "z");
  REQUIRE(store->AwaitReady(kPatience));
  const auto got = store->Get(Key("a"));
  REQUIRE(got != nullptr);
  CHECK(*got == "z");
}

TEST_CASE("RedisStore: a server that does not answer holds one reader for one command, the next not at all",
          "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  RedisStoreOptions options = Options(redis.port());
  options.min_pause = options.max_pause = absl::Hours(1);
  auto store = RedisStore::Start(options);
  REQUIRE(store->AwaitReady(kPatience));
  redis.Freeze();
  CHECK_FALSE(Has(*store, Key("a")));
  const uint64_t num_errors = store->stats().num_errors;
  CHECK(num_errors >= 1);
  for (int i = 0; i < 1000; ++i) CHECK_FALSE(Has(*store, Key("a")));
  CHECK(store->stats().num_errors <= num_errors + 1);  // nothing was asked; at most a new connection was tried
  redis.Thaw();
}

TEST_CASE("RedisStore: passwords, and a wrong one", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start({"--requirepass", "open sesame"}));
  RedisAddress address{.host = "127.0.0.1", .port = redis.port(), .password = "open sesame"};
  CHECK(RedisConnection::Open(address, kPatience).ok());
  address.password = "wrong";
  CHECK(absl::IsPermissionDenied(RedisConnection::Open(address, kPatience).status()));
  address.password = "";
  CHECK(absl::IsFailedPrecondition(RedisConnection::Open(address, kPatience).status()));
  auto store = RedisStore::Start(Options(redis.port()));  // without a password everything is a miss
  CHECK_FALSE(Has(*store, Key("a")));
}

TEST_CASE("RedisStore: a value of another kind under our key is a miss", "[cache][redis]") {
  REQUIRE_REDIS();
  RedisProcess redis;
  REQUIRE(redis.Start());
  const RedisStoreOptions options = Options(redis.port());
  auto store = RedisStore::Start(options);
  REQUIRE(store->AwaitReady(kPatience));
  store->Put(Key("a"), "x");
  REQUIRE(store->AwaitReady(kPatience));
  auto connection = RedisConnection::Open(options.address, kPatience).value();
  const std::string name = connection->Run({"KEYS", "*"}).value().items.at(0).text;
  REQUIRE(connection->Run({"DEL", name}).ok());
  REQUIRE(connection->Run({"RPUSH", name, "a", "b"}).ok());
  CHECK_FALSE(Has(*store, Key("a")));
  CHECK(store->stats().num_errors == 1);
  REQUIRE(store->AwaitReady(kPatience));  // the connection stands
}

// Says its bytes to whoever connects, and again after each thing it hears.
class Babbler {
 public:
  explicit Babbler(std::string words) : words_(std::move(words)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    signal(SIGPIPE, SIG_IGN);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t num_bytes = sizeof(address);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), num_bytes);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &num_bytes);
    port_ = ntohs(address.sin_port);
    listen(listener_, 16);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Babbler() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }

 private:
  void Serve() {
    while (true) {
      const int client = accept(listener_, nullptr, nullptr);
      if (client < 0) return;
      char heard[4096];
      while (read(client, heard, sizeof(heard)) > 0) {
        if (write(client, words_.data(), words_.size()) < 0) break;
      }
      close(client);
    }
  }

  const std::string words_;
  const int listener_;
  int port_ = 0;
  std::thread thread_;
};

TEST_CASE("RedisStore: a server that speaks something else is a server that is not there", "[cache][redis]") {
  const std::string words = GENERATE(as<std::string>{}, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
                                     "-ERR no\r\n", "$-2\r\n", "*-7\r\n", ":1\r\n", "*1000000000000\r\n",
                                     "$99999999999999999999\r\nx", "\r\n", "*2\r\n$1\r\na\r\n*1\r\n*1\r\n*1\r\n*1\r\n");
  CAPTURE(words);
  Babbler babbler(words);
  RedisStoreOptions options = Options(babbler.port());
  options.command_limit = absl::Milliseconds(20);
  auto store = RedisStore::Start(options);
  for (int i = 0; i < 20; ++i) {
    CHECK_FALSE(Has(*store, Key("a")));
    store->Put(Key("a"), "x");
    store->AwaitReady(absl::Milliseconds(2));
    CHECK_FALSE(store->Purge({.tenant = "t"}).value_or(0) > 0);
  }
}

}  // namespace
}  // namespace millrace
