// SPDX-License-Identifier: Apache-2.0
#include "cache/memory_store.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

namespace millrace {
namespace {

CacheKey Key(const std::string& name, const std::string& tenant = "t", const std::string& model = "m") {
  return {.tenant = tenant, .model = model, .digest = Sha256(tenant + "/" + model + "/" + name)};
}

struct Fixture {
  explicit Fixture(int64_t max_bytes = 10'000)
      : store(MakeMemoryStore({.max_bytes = max_bytes, .ttl = absl::Seconds(60), .now = [this] { return now; }})) {}
  bool Has(const CacheKey& key) { return store->Get(key) != nullptr; }

  absl::Time now = absl::FromUnixSeconds(1000);
  std::unique_ptr<AnswerStore> store;
};

TEST_CASE("MemoryStore: gives back what was put, the latest of a key", "[cache]") {
  Fixture f;
  CHECK(f.store->Get(Key("a")) == nullptr);
  f.store->Put(Key("a"), "one");
  f.store->Put(Key("a"), "two");
  const auto held = f.store->Get(Key("a"));
  REQUIRE(held != nullptr);
  CHECK(*held == "two");
  CHECK(f.store->stats().num_entries == 1);
  f.store->Put(Key("a"), "three");
  CHECK(*held == "two");  // a reader keeps what it has
}

TEST_CASE("MemoryStore: an entry ends with its time", "[cache]") {
  Fixture f;
  f.store->Put(Key("a"), "one");
  f.now += absl::Seconds(60) - absl::Milliseconds(1);
  CHECK(f.Has(Key("a")));
  f.now += absl::Milliseconds(1);
  CHECK_FALSE(f.Has(Key("a")));
  CHECK(f.store->stats().num_entries == 0);
  CHECK(f.store->stats().num_bytes == 0);
  CHECK(f.store->stats().num_evictions == 0);
}

TEST_CASE("MemoryStore: without room the least recently used goes", "[cache]") {
  Fixture f(4000);
  const std::string value(1000, 'x');
  for (const char* name : {"a", "b", "c"}) f.store->Put(Key(name), value);
  CHECK(f.Has(Key("a")));
  f.store->Put(Key("d"), value);
  CHECK(f.Has(Key("a")));
  CHECK_FALSE(f.Has(Key("b")));
  CHECK(f.Has(Key("c")));
  CHECK(f.Has(Key("d")));
  CHECK(f.store->stats().num_evictions == 1);
  f.store->Put(Key("huge"), std::string(4000, 'x'));  // cannot fit, and costs nobody a place
  CHECK(f.store->stats().num_entries == 3);
}

TEST_CASE("MemoryStore: a key of another tenant is another key, whatever its digest", "[cache]") {
  Fixture f;
  f.store->Put(Key("a"), "secret");
  CacheKey forged = Key("a");
  forged.tenant = "other";
  CHECK_FALSE(f.Has(forged));
  forged = Key("a");
  forged.model = "other";
  CHECK_FALSE(f.Has(forged));
}

TEST_CASE("MemoryStore: a purge takes what it names", "[cache]") {
  Fixture f;
  const auto fill = [&] {
    for (const char* tenant : {"t", "u"}) {
      for (const char* model : {"m", "n"}) f.store->Put(Key("a", tenant, model), "x");
    }
  };
  fill();
  CHECK(f.store->Purge({.tenant = "t", .model = "m"}).value() == 1);
  CHECK_FALSE(f.Has(Key("a", "t", "m")));
  CHECK(f.Has(Key("a", "t", "n")));
  CHECK(f.store->Purge({.model = "n"}).value() == 2);
  CHECK(f.Has(Key("a", "u", "m")));
  fill();
  CHECK(f.store->Purge({.tenant = "u"}).value() == 2);
  CHECK(f.store->Purge({}).value() == 2);
  CHECK(f.store->Purge({}).value() == 0);
  CHECK(f.store->stats().num_bytes == 0);
}

TEST_CASE("MemoryStore: never holds more than it may, and counts what it holds", "[cache]") {
  Fixture f(20'000);
  std::mt19937 random(7);
  for (int i = 0; i < 5000; ++i) {
    const CacheKey key = Key(std::to_string(random() % 40), random() % 2 == 0 ? "t" : "u");
    if (random() % 3 == 0) {
      f.Has(key);
    } else if (random() % 500 == 0) {
      f.store->Purge({.tenant = key.tenant}).value();
    } else {
      f.store->Put(key, std::string(random() % 2000, 'x'));
    }
    f.now += absl::Milliseconds(random() % 500);
    const StoreStats stats = f.store->stats();
    REQUIRE(stats.num_bytes <= 20'000);
    REQUIRE(stats.num_bytes >= stats.num_entries);
    REQUIRE(stats.num_entries <= 80);
  }
  f.store->Purge({}).value();
  CHECK(f.store->stats().num_bytes == 0);
  CHECK(f.store->stats().num_entries == 0);
}

}  // namespace
}  // namespace millrace
