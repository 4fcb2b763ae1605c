// SPDX-License-Identifier: Apache-2.0
// Stored responses: tenants, limits, restarts, and files that are not what they should be.
#include "server/storage/response_store.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/server/scratch_dir.h"

namespace millrace {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

StoredResponse Response(const std::string& id, const std::string& previous = "", size_t num_bytes = 10) {
  return {.id = id, .previous_id = previous, .body = std::string(num_bytes, 'b'), .input = "[]"};
}

std::unique_ptr<ResponseStore> Open(const ResponseStoreOptions& options) {
  auto store = ResponseStore::Open(options);
  INFO(store.status().message());
  REQUIRE(store.ok());
  return *std::move(store);
}

std::string ReadFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void Execute(const std::string& path, const char* sql) {
  sqlite3* connection = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &connection) == SQLITE_OK);
  CHECK(sqlite3_exec(connection, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(connection);
}

TEST_CASE("ResponseStore: what was put is found, with what came before it", "[storage]") {
  const auto store = Open({});
  REQUIRE(store->Put("a", Response("r1"), {"i1", "i2"}, kNow).ok());
  REQUIRE(store->Put("a", Response("r2", "r1"), {}, kNow).ok());
  CHECK(store->Get("a", "r2", kNow)->previous_id == "r1");
  CHECK(store->FindItem("a", "i2", kNow)->id == "r1");
  const auto chain = store->Chain("a", "r2", kNow);
  REQUIRE(chain.ok());
  REQUIRE(chain->size() == 2);
  CHECK(chain->front().id == "r1");
  CHECK(absl::IsAlreadyExists(store->Put("a", Response("r2"), {}, kNow)));
}

TEST_CASE("ResponseStore: another tenant's responses do not exist", "[storage]") {
  const auto store = Open({});
  REQUIRE(store->Put("a", Response("r1"), {"i1"}, kNow).ok());
  for (const char* other : {"b", "", "A", "a "}) {
    CHECK(absl::IsNotFound(store->Get(other, "r1", kNow).status()));
    CHECK(absl::IsNotFound(store->Chain(other, "r1", kNow).status()));
    CHECK(absl::IsNotFound(store->FindItem(other, "i1", kNow).status()));
    CHECK(absl::IsNotFound(store->Delete(other, "r1", kNow)));
  }
  // The same ids may belong to two: neither sees the other's.
  REQUIRE(store->Put("b", Response("r1", "", 99), {"i1"}, kNow).ok());
  CHECK(store->Get("a", "r1", kNow)->body.size() == 10);
  CHECK(store->FindItem("b", "i1", kNow)->body.size() == 99);
  REQUIRE(store->Delete("b", "r1", kNow).ok());
  CHECK(store->Get("a", "r1", kNow).ok());
}

TEST_CASE("ResponseStore: a conversation whose beginning was deleted is not found", "[storage]") {
  const auto store = Open({});
  REQUIRE(store->Put("a", Response("r1"), {"i1"}, kNow).ok());
  REQUIRE(store->Put("a", Response("r2", "r1"), {}, kNow).ok());
  REQUIRE(store->Delete("a", "r1", kNow).ok());
  CHECK(absl::IsNotFound(store->Chain("a", "r2", kNow).status()));
  CHECK(absl::IsNotFound(store->FindItem("a", "i1", kNow).status()));
  CHECK(absl::IsNotFound(store->Delete("a", "r1", kNow)));
}

TEST_CASE("ResponseStore: a response expires, and its bytes with it", "[storage]") {
  const auto store = Open({.lifetime = absl::Hours(1), .max_bytes = 3000});
  REQUIRE(store->Put("a", Response("old", "", 1000), {"i1"}, kNow).ok());
  const absl::Time later = kNow + absl::Hours(1);
  CHECK(store->Get("a", "old", later - absl::Seconds(1)).ok());
  CHECK(absl::IsNotFound(store->Get("a", "old", later).status()));
  CHECK(absl::IsNotFound(store->FindItem("a", "i1", later).status()));
  REQUIRE(store->Put("a", Response("new1", "", 1400), {}, later).ok());
  REQUIRE(store->Put("a", Response("new2", "", 1400), {}, later).ok());
  CHECK(store->Get("a", "new1", later).ok());
}

TEST_CASE("ResponseStore: where there is no room the largest tenant's oldest make it", "[storage]") {
  const auto store = Open({.max_bytes = 5000});
  REQUIRE(store->Put("small", Response("s", "", 900), {}, kNow).ok());
  for (int i = 0; i < 20; ++i) {
    REQUIRE(store->Put("large", Response(absl::StrCat("l", i), "", 900), {}, kNow + absl::Seconds(i)).ok());
  }
  CHECK(store->Get("small", "s", kNow).ok());
  CHECK(store->Get("large", "l19", kNow).ok());
  CHECK(absl::IsNotFound(store->Get("large", "l0", kNow).status()));
  CHECK(absl::IsResourceExhausted(store->Put("small", Response("huge", "", 6000), {}, kNow)));
  CHECK(store->Get("large", "l19", kNow).ok());
}

TEST_CASE("ResponseStore: a circle of responses ends", "[storage]") {
  const auto store = Open({});
  REQUIRE(store->Put("a", Response("r1", "r2"), {}, kNow).ok());
  REQUIRE(store->Put("a", Response("r2", "r1"), {}, kNow).ok());
  CHECK(absl::IsOutOfRange(store->Chain("a", "r1", kNow).status()));
}

TEST_CASE("ResponseStore: survives a restart, counts what is there, and only its owner may read it", "[storage]") {
  const ScratchDir dir;
  const std::string path = dir.path() + "/responses.db";
  {
    const auto store = Open({.path = path});
    REQUIRE(store->Put("a", Response("r1", "", 3000), {"i1"}, kNow).ok());
  }
  struct stat facts{};
  REQUIRE(stat(path.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0600);
  const auto store = Open({.path = path, .max_bytes = 5000});
  CHECK(store->FindItem("a", "i1", kNow)->body.size() == 3000);
  REQUIRE(store->Put("a", Response("r2", "", 3000), {}, kNow + absl::Seconds(1)).ok());
  CHECK(absl::IsNotFound(store->Get("a", "r1", kNow).status()));
}

TEST_CASE("ResponseStore: a deleted response leaves no byte behind", "[storage]") {
  const ScratchDir dir;
  const std::string path = dir.path() + "/responses.db";
  const auto store = Open({.path = path});
  StoredResponse response = Response("r1");
  for (int i = 0; i < 1000; ++i) response.body += "a secret marker,";
  REQUIRE(store->Put("a", response, {}, kNow).ok());
  REQUIRE(store->Delete("a", "r1", kNow).ok());
  for (const auto& file : std::filesystem::directory_iterator(dir.path())) {
    INFO(file.path().string());
    CHECK(ReadFile(file.path()).find("secret marker") == std::string::npos);
  }
}

TEST_CASE("ResponseStore: two servers cannot share a file", "[storage]") {
  const ScratchDir dir;
  const auto store = Open({.path = dir.path() + "/responses.db"});
  const auto second = ResponseStore::Open({.path = dir.path() + "/responses.db"});
  CHECK(absl::IsUnavailable(second.status()));
}

TEST_CASE("ResponseStore: a file that is not ours is refused with its name", "[storage]") {
  const ScratchDir dir;
  const std::string path = dir.path() + "/responses.db";
  const auto refused = [&path] {
    const auto store = ResponseStore::Open({.path = path});
    REQUIRE(!store.ok());
    INFO(store.status().message());
    CHECK(absl::IsFailedPrecondition(store.status()));
    CHECK(std::string(store.status().message()).find(path) != std::string::npos);
  };
  SECTION("text") {
    std::ofstream(path) << std::string(5000, 'x');
    refused();
  }
  SECTION("another program's database") {
    Execute(path, "CREATE TABLE t (x)");
    refused();
  }
  SECTION("another version") {
    Open({.path = path});
    Execute(path, "PRAGMA user_version=77");
    refused();
  }
  SECTION("a trigger that someone added") {
    Open({.path = path});
    Execute(path, "CREATE TRIGGER t AFTER INSERT ON responses BEGIN DELETE FROM responses; END");
    refused();
  }
  SECTION("damaged pages") {
    {
      const auto store = Open({.path = path});
      for (int i = 0; i < 50; ++i) REQUIRE(store->Put("a", Response(absl::StrCat(i), "", 2000), {"i"}, kNow).ok());
    }
    std::string bytes = ReadFile(path);
    for (size_t i = 4096; i < bytes.size(); i += 3) bytes[i] = static_cast<char>(i * 7);
    std::ofstream(path, std::ios::binary) << bytes;
    refused();
  }
  SECTION("a directory") {
    std::filesystem::create_directory(path);
    refused();
  }
  SECTION("a folder that does not exist") {
    const auto store = ResponseStore::Open({.path = dir.path() + "/none/responses.db"});
    CHECK(absl::IsFailedPrecondition(store.status()));
  }
}

TEST_CASE("ResponseStore: a full disk fails the request, not those after it", "[storage]") {
  const ScratchDir dir;
  const auto store = Open({.path = dir.path() + "/responses.db"});
  REQUIRE(store->Put("a", Response("r1"), {}, kNow).ok());
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{.rlim_cur = 256 << 10, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  const absl::Status status = store->Put("a", Response("r2", "", 4 << 20), {"i"}, kNow);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, old_handler);
  CHECK(!status.ok());
  CHECK(store->Get("a", "r1", kNow).ok());
  CHECK(absl::IsNotFound(store->Get("a", "r2", kNow).status()));
  CHECK(store->Put("a", Response("r2", "", 4 << 20), {"i"}, kNow).ok());
}

}  // namespace
}  // namespace millrace
