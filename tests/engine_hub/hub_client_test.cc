// SPDX-License-Identifier: Apache-2.0
#include "engine/hub/hub_client.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "engine/hub/hub_cache.h"
#include "tests/engine_hub/stand_in_hub.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Bytes(size_t count, unsigned seed) {
  std::string out(count, '\0');
  for (char& c : out) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return out;
}

// A hub with a small model and a cache of its own.
struct Fixture {
  explicit Fixture(const StandInCertificate* hub_certificate = nullptr,
                   const StandInCertificate* storage_certificate = nullptr)
      : hub(hub_certificate, storage_certificate) {
    std::string pattern = (fs::temp_directory_path() / "millrace_hub_XXXXXX").string();
    cache = mkdtemp(pattern.data());
    hub.files = {{"config.json", R"({"model_type": "llama"})"},
                 {"tokenizer.json", "{}"},
                 {"model.safetensors", Bytes(100'000, 1)},
                 {"pytorch_model.bin", "pickle"},
                 {"modeling_tiny.py", "code"},
                 {"onnx/model.onnx", "x"},
                 {"original/params.json", "{}"},
                 {"additional_chat_templates/tool_use.jinja", "{{ 1 }}"}};
    options.endpoint = hub.url();
    options.cache_dir = cache.string();
    options.retry_delay = absl::Milliseconds(1);
    options.stall_timeout = absl::Seconds(5);
  }
  ~Fixture() { fs::remove_all(cache); }

  absl::StatusOr<std::string> Resolve(const std::string& name = "org/tiny") { return ResolveModel(name, options); }
  fs::path repo() const { return cache / "models--org--tiny"; }

  StandInHub hub;
  fs::path cache;
  HubOptions options;
};

}  // namespace

TEST_CASE("Hub: a model is fetched into the usual layout, and only what is useful of it", "[hub]") {
  Fixture f;
  uint64_t last_done = 0, last_total = 0;
  const auto dir = ResolveModel("org/tiny", f.options, [&](const HubProgress& progress) {
    CHECK(progress.done_bytes >= last_done);
    last_done = progress.done_bytes;
    last_total = progress.total_bytes;
  });
  INFO(dir.status());
  REQUIRE(dir.ok());
  CHECK(*dir == (f.repo() / "snapshots" / f.hub.commit).string());
  for (const char* name :
       {"config.json", "tokenizer.json", "model.safetensors", "additional_chat_templates/tool_use.jinja"}) {
    INFO(name);
    CHECK(ReadFile(fs::path(*dir) / name) == f.hub.files[name]);
    REQUIRE(fs::is_symlink(fs::path(*dir) / name));
    CHECK(fs::read_symlink(fs::path(*dir) / name).is_relative());
  }
  CHECK(fs::read_symlink(fs::path(*dir) / "config.json") == "../../blobs/" + GitSha1Hex(f.hub.files["config.json"]));
  for (const char* name : {"pytorch_model.bin", "modeling_tiny.py", "onnx", "original"}) {
    CHECK_FALSE(fs::exists(fs::path(*dir) / name));
  }
  CHECK(ReadFile(f.repo() / "refs/main") == f.hub.commit);
  CHECK(last_done == last_total);
  CHECK(last_total == 100'000 + f.hub.files["config.json"].size() + 2 + 7);

  // A second time nothing is fetched again.
  const int before = f.hub.storage().CountRequests("GET", "/");
  CHECK(f.Resolve().ok());
  CHECK(f.hub.storage().CountRequests("GET", "/") == before);
  CHECK(f.hub.hub().CountRequests("GET", "config.json") == 1);
}

TEST_CASE("Hub: a path that exists is itself, and nonsense is refused before asking", "[hub]") {
  Fixture f;
  CHECK(*f.Resolve(f.cache.string()) == f.cache.string());
  CHECK(f.Resolve("/no/such/dir").status().code() == absl::StatusCode::kNotFound);
  CHECK(f.Resolve("./nothing").status().code() == absl::StatusCode::kNotFound);
  for (const char* name : {"a/b/c", "a//b", "../x", "org/..", "org/a--b", "org/a b", "org/", "org/.hidden", "a\n/b"}) {
    INFO(name);
    CHECK_FALSE(f.Resolve(name).ok());
  }
  for (const char* revision : {"../main", "a/../b", "/x", "a//b", ".git", "a b"}) {
    f.options.revision = revision;
    CHECK(f.Resolve().status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(f.hub.hub().requests().empty());
}

TEST_CASE("Hub: the token goes to the hub alone, never to where it redirects", "[hub]") {
  Fixture f;
  f.hub.wanted_token = "hf_secret";
  const auto refused = f.Resolve();
  CHECK(refused.status().code() == absl::StatusCode::kUnauthenticated);
  CHECK(std::string(refused.status().message()).find("HF_TOKEN") != std::string::npos);
  f.options.token = "hf_wrong";
  CHECK(f.Resolve().status().code() == absl::StatusCode::kUnauthenticated);
  CHECK(std::string(f.Resolve().status().message()).find("hf_wrong") == std::string::npos);
  f.options.token = "hf_secret";
  REQUIRE(f.Resolve().ok());
  CHECK(f.hub.storage().CountRequests("GET", "/store/") == 1);
  for (const StandInRequest& request : f.hub.storage().requests()) CHECK(request.token.empty());
}

TEST_CASE("Hub: a broken download goes on where it broke, in one run and in the next", "[hub]") {
  Fixture f;
  f.hub.num_cuts = 3;
  f.hub.cut_bytes = 20'000;
  REQUIRE(f.Resolve().ok());
  const auto requests = f.hub.storage().requests();
  REQUIRE(requests.size() == 4);
  CHECK(requests[0].range.empty());
  CHECK(requests[1].range == "bytes=20000-");
  CHECK(requests[3].range == "bytes=60000-");

  Fixture g;
  g.hub.num_cuts = 1;
  g.hub.cut_bytes = 30'000;
  g.options.max_attempts = 1;
  // An attempt that brought bytes is followed by another; so the second must fail too.
  g.hub.num_cuts = 2;
  fs::create_directories(g.repo() / "blobs");
  const std::string sha = Sha256Hex(g.hub.files["model.safetensors"]);
  std::ofstream(g.repo() / "blobs" / (sha + ".incomplete"), std::ios::binary)
      << g.hub.files["model.safetensors"].substr(0, 50'000);
  REQUIRE(g.Resolve().ok());
  CHECK(g.hub.storage().requests()[0].range == "bytes=50000-");
  CHECK_FALSE(fs::exists(g.repo() / "blobs" / (sha + ".incomplete")));
}

TEST_CASE("Hub: a server without ranges sends the whole file, and a damaged start is thrown away", "[hub]") {
  Fixture f;
  f.hub.ignores_ranges = true;
  f.hub.num_cuts = 1;
  REQUIRE(f.Resolve().ok());

  Fixture g;
  fs::create_directories(g.repo() / "blobs");
  const std::string sha = Sha256Hex(g.hub.files["model.safetensors"]);
  std::ofstream(g.repo() / "blobs" / (sha + ".incomplete"), std::ios::binary) << std::string(60'000, 'x');
  const auto dir = g.Resolve();
  REQUIRE(dir.ok());
  CHECK(ReadFile(fs::path(*dir) / "model.safetensors") == g.hub.files["model.safetensors"]);

  Fixture longer;
  fs::create_directories(longer.repo() / "blobs");
  std::ofstream(longer.repo() / "blobs" / (sha + ".incomplete"), std::ios::binary) << std::string(200'000, 'x');
  CHECK(longer.Resolve().ok());
}

TEST_CASE("Hub: a wrong checksum is tried once more, then refused, and nothing of it stays", "[hub]") {
  Fixture f;
  f.hub.num_damaged = 1;
  REQUIRE(f.Resolve().ok());
  CHECK(f.hub.storage().CountRequests("GET", "/store/") == 2);

  Fixture g;
  g.hub.num_damaged = 100;
  const auto refused = g.Resolve();
  CHECK(refused.status().code() == absl::StatusCode::kDataLoss);
  const std::string sha = Sha256Hex(g.hub.files["model.safetensors"]);
  CHECK_FALSE(fs::exists(g.repo() / "blobs" / sha));
  CHECK_FALSE(fs::exists(g.repo() / "blobs" / (sha + ".incomplete")));
  CHECK_FALSE(fs::exists(g.repo() / "refs/main"));
}

TEST_CASE("Hub: names that would leave the cache are refused", "[hub]") {
  for (const char* name :
       {"../evil.json", "a/../../evil.json", "/etc/evil.json", "a//b.json", "./x.json", "..", "a\\\\b.json"}) {
    Fixture f;
    f.hub.extra_names = {name};
    INFO(name);
    const auto refused = f.Resolve();
    CHECK(refused.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(refused.status().message()).find("leave the cache") != std::string::npos);
    CHECK_FALSE(fs::exists(f.repo()));
  }
  CHECK(IsSafeFileName("a/b.json"));
  CHECK_FALSE(IsSafeFileName("a/"));
  CHECK_FALSE(IsSafeEtag("../x"));
  CHECK_FALSE(IsSafeEtag(""));
  CHECK_FALSE(IsSafeEtag("a/b"));
}

TEST_CASE("Hub: errors say what to do", "[hub]") {
  struct Case {
    int code;
    const char* error_code;
    absl::StatusCode expected;
    const char* hint;
  };
  for (const Case& one : {Case{403, "GatedRepo", absl::StatusCode::kPermissionDenied, "HF_TOKEN"},
                          Case{401, "GatedRepo", absl::StatusCode::kPermissionDenied, "ask for it at"},
                          Case{404, "RepoNotFound", absl::StatusCode::kNotFound, "no such model"},
                          Case{404, "RevisionNotFound", absl::StatusCode::kNotFound, "no such revision"},
                          Case{400, "", absl::StatusCode::kInvalidArgument, "answered 400"}}) {
    Fixture f;
    f.hub.error_status = one.code;
    f.hub.error_code = one.error_code;
    const auto refused = f.Resolve();
    INFO(refused.status());
    CHECK(refused.status().code() == one.expected);
    CHECK(std::string(refused.status().message()).find(one.hint) != std::string::npos);
    CHECK(f.hub.hub().requests().size() == 1);
  }
  Fixture f;
  CHECK(f.Resolve("org/other").status().code() == absl::StatusCode::kNotFound);
  f.hub.redirects_in_circles = true;
  CHECK(std::string(f.Resolve().status().message()).find("circles") != std::string::npos);
  f.hub.redirects_in_circles = false;
  f.hub.files.erase("model.safetensors");
  CHECK(std::string(f.Resolve().status().message()).find("no weights") != std::string::npos);
}

TEST_CASE("Hub: what may pass is tried again, but not for ever", "[hub]") {
  Fixture f;
  f.hub.num_failures = 3;
  CHECK(f.Resolve().ok());
  f.hub.num_failures = 1000;
  f.options.cache_dir = (f.cache / "other").string();
  const auto refused = f.Resolve();
  CHECK(refused.status().code() == absl::StatusCode::kUnavailable);
  CHECK(f.hub.num_failures == 1000 - f.options.max_attempts);
}

TEST_CASE("Hub: without a connection a complete copy is used, an incomplete one is not", "[hub]") {
  Fixture f;
  REQUIRE(f.Resolve().ok());
  const std::string dir = *f.Resolve();
  const size_t before = f.hub.hub().requests().size();
  f.options.is_offline = true;
  CHECK(*f.Resolve() == dir);
  f.options.revision = f.hub.commit;
  CHECK(*f.Resolve() == dir);
  f.options.revision = "other";
  CHECK(f.Resolve().status().code() == absl::StatusCode::kNotFound);
  CHECK(f.hub.hub().requests().size() == before);
  f.options.revision = "";
  f.options.is_offline = false;
  f.options.retry_delay = absl::Seconds(1);   // a copy at hand is not waited for
  f.options.endpoint = "http://127.0.0.1:1";  // nobody listens
  CHECK(*f.Resolve() == dir);
  fs::remove(f.repo() / "blobs" / Sha256Hex(f.hub.files["model.safetensors"]));
  f.options.retry_delay = absl::Milliseconds(1);
  CHECK(f.Resolve().status().code() == absl::StatusCode::kUnavailable);
  f.options.is_offline = true;
  CHECK(std::string(f.Resolve().status().message()).find("HF_HUB_OFFLINE") != std::string::npos);
}

TEST_CASE("Hub: all shards of an index are needed offline", "[hub]") {
  Fixture f;
  f.hub.files.erase("model.safetensors");
  f.hub.files["model-1.safetensors"] = Bytes(10, 1);
  f.hub.files["model-2.safetensors"] = Bytes(10, 2);
  f.hub.files["consolidated.safetensors"] = Bytes(10, 3);
  f.hub.files["model.safetensors.index.json"] =
      R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})";
  const auto dir = f.Resolve();
  REQUIRE(dir.ok());
  CHECK_FALSE(fs::exists(fs::path(*dir) / "consolidated.safetensors"));
  f.options.is_offline = true;
  CHECK(f.Resolve().ok());
  fs::remove(fs::path(*dir) / "model-2.safetensors");
  CHECK_FALSE(f.Resolve().ok());
}

TEST_CASE("Hub: one GGUF file is chosen, by name or by kind", "[hub]") {
  Fixture f;
  f.hub.files = {{"README.md", "x"},
                 {"tiny-Q4_0.gguf", Bytes(100, 4)},
                 {"tiny-Q8_0.gguf", Bytes(200, 8)},
                 {"tiny-Q2_K-00001-of-00002.gguf", "x"}};
  auto path = f.Resolve();
  INFO(path.status());
  REQUIRE(path.ok());
  CHECK(fs::path(*path).filename() == "tiny-Q8_0.gguf");
  CHECK(ReadFile(*path) == f.hub.files["tiny-Q8_0.gguf"]);
  CHECK(fs::path(*f.Resolve("org/tiny:q4_0")).filename() == "tiny-Q4_0.gguf");
  CHECK(fs::path(*f.Resolve("org/tiny:tiny-Q4_0.gguf")).filename() == "tiny-Q4_0.gguf");
  CHECK(f.Resolve("org/tiny:Q5_K").status().code() == absl::StatusCode::kNotFound);
  CHECK_FALSE(f.Resolve("org/tiny:../x").ok());
  f.options.is_offline = true;
  CHECK(fs::path(*f.Resolve("org/tiny:q4_0")).filename() == "tiny-Q4_0.gguf");
}

TEST_CASE("Hub: over HTTPS with a trusted certificate, the token stays with the hub", "[hub]") {
  const StandInCertificate certificate("IP:127.0.0.1");
  Fixture f(&certificate, &certificate);
  f.hub.wanted_token = f.options.token = "hf_secret";
  f.options.ca_file = certificate.file();
  const auto dir = f.Resolve();
  INFO(dir.status());
  REQUIRE(dir.ok());
  CHECK(ReadFile(fs::path(*dir) / "model.safetensors") == f.hub.files["model.safetensors"]);
  CHECK(f.hub.hub().url().starts_with("https://"));
  CHECK(f.hub.storage().CountRequests("GET", "/store/") == 1);
  for (const StandInRequest& request : f.hub.storage().requests()) CHECK(request.token.empty());
}

TEST_CASE("Hub: a certificate that is not trusted, or of another name, is refused before anything is sent", "[hub]") {
  const StandInCertificate certificate("IP:127.0.0.1"), other("IP:127.0.0.1"), elsewhere("DNS:hub.example");
  for (const bool is_other_name : {false, true}) {
    Fixture f(is_other_name ? &elsewhere : &certificate);
    f.options.token = "hf_secret";
    // The system's authorities, a stranger, and one that we trust, but for another name.
    for (const std::string& ca_file : {std::string(), other.file(), elsewhere.file()}) {
      f.options.ca_file = ca_file;
      const auto refused = f.Resolve();
      INFO(ca_file << " " << refused.status());
      CHECK(refused.status().code() == absl::StatusCode::kFailedPrecondition);
      CHECK(std::string(refused.status().message()).find("SSL_CERT_FILE") != std::string::npos);
    }
    CHECK(f.hub.hub().requests().empty());
    f.options.ca_file = (f.cache / "no_such_file.pem").string();
    const auto refused = f.Resolve();
    INFO(refused.status());
    CHECK(refused.status().code() == absl::StatusCode::kFailedPrecondition);
    CHECK(std::string(refused.status().message()).find("REQUESTS_CA_BUNDLE") != std::string::npos);
  }
}

TEST_CASE("Hub: from https nobody is led to http", "[hub]") {
  const StandInCertificate certificate("IP:127.0.0.1");
  Fixture f(&certificate, nullptr);
  f.options.ca_file = certificate.file();
  const auto refused = f.Resolve();
  INFO(refused.status());
  CHECK(refused.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(refused.status().message()).find("unprotected") != std::string::npos);
  CHECK(f.hub.storage().requests().empty());
  CHECK_FALSE(fs::exists(f.repo() / "blobs" / Sha256Hex(f.hub.files["model.safetensors"])));
}

TEST_CASE("Hub: renamed repositories and revisions with a slash work", "[hub]") {
  Fixture f;
  const auto dir = f.Resolve("org/old");
  INFO(dir.status());
  CHECK(dir.ok());
  f.options.revision = "feature/x";
  CHECK(f.Resolve().ok());
  CHECK(ReadFile(f.repo() / "refs/feature/x") == f.hub.commit);
}

TEST_CASE("Hub: two at once fetch each file once", "[hub]") {
  Fixture f;
  absl::StatusOr<std::string> results[2];
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) threads[i] = std::thread([&, i] { results[i] = f.Resolve(); });
  for (std::thread& thread : threads) thread.join();
  INFO(results[0].status() << " " << results[1].status());
  CHECK(results[0].ok());
  CHECK(results[1].ok());
  CHECK(f.hub.storage().CountRequests("GET", "/store/") == 1);
}

}  // namespace millrace
