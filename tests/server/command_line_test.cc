// SPDX-License-Identifier: Apache-2.0
#include "server/cli/command_line.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "server/auth/api_keys.h"
#include "server/cli/http_client.h"
#include "server/cli/load_svg.h"
#include "server/cli/load_trace.h"
#include "server/cli/percentiles.h"
#include "server/config/config_file.h"
#include "server/config/descriptor_limit.h"
#include "tests/server/test_certificate.h"

namespace millrace {
namespace {

std::string ErrorOf(const std::vector<std::string>& arguments) {
  const auto line = ParseCommandLine(arguments);
  return line.ok() ? "" : std::string(line.status().message());
}

// A file that lives as long as the test.
class TempFile {
 public:
  explicit TempFile(const std::string& text) {
    char name[] = "/tmp/millrace-test-XXXXXX";
    const int descriptor = mkstemp(name);
    REQUIRE(descriptor >= 0);
    close(descriptor);
    path_ = name;
    std::ofstream(path_) << text;
  }
  ~TempFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_CASE("CommandLine: serve takes vLLM's flags", "[cli]") {
  const auto line = ParseCommandLine({"serve",
                                      "some/model",
                                      "--port",
                                      "9000",
                                      "--served-model-name",
                                      "a",
                                      "--served-model-name=b",
                                      "--api-key",
                                      "k",
                                      "--max-num-seqs",
                                      "7",
                                      "--max-num-batched-tokens",
                                      "512",
                                      "--max-model-len",
                                      "4096",
                                      "--dtype",
                                      "float32",
                                      "--quantization",
                                      "int8",
                                      "--kv-cache-dtype",
                                      "int8",
                                      "--kv-cache-memory-bytes",
                                      "64MB",
                                      "--block-size",
                                      "32",
                                      "--gpu-memory-utilization",
                                      "0.5",
                                      "--no-enable-prefix-caching",
                                      "--disable-log-requests",
                                      "--max-num-queued-reqs",
                                      "5",
                                      "--shutdown-timeout",
                                      "3",
                                      "--dummy-seed",
                                      "11",
                                      "--host",
                                      "127.0.0.1",
                                      "--sse-keep-alive-interval",
                                      "0",
                                      "--threads",
                                      "3",
                                      "--log-level",
                                      "debug",
                                      "--grpc-port",
                                      "9001"});
  REQUIRE(line.ok());
  CHECK(line->command == Command::kServe);
  const ServeOptions& serve = line->serve;
  CHECK(serve.model == "some/model");
  CHECK(serve.http.port == 9000);
  CHECK(serve.served_model_names == std::vector<std::string>{"a", "b"});
  CHECK(serve.engine.scheduler.max_sequences == 7);
  CHECK(serve.engine.scheduler.max_step_tokens == 512);
  CHECK(serve.engine.scheduler.page_tokens == 32);
  CHECK_FALSE(serve.engine.scheduler.enable_prefix_caching);
  CHECK(serve.engine.max_model_tokens == 4096);
  CHECK(serve.engine.kv_cache_bytes == 64 << 20);
  CHECK(serve.engine.memory_utilization == 0.5);
  CHECK_FALSE(serve.logs_requests);
  CHECK(serve.drain_seconds == 3);
  CHECK(serve.keep_alive_seconds == 0);
  CHECK(CheckServeOptions(serve).ok());
}

TEST_CASE("CommandLine: the model is divided among as many ranks as are asked for, from 1 to 64", "[cli]") {
  CHECK(ParseCommandLine({"serve", "m"})->serve.engine.tensor_parallel_size == 1);
  CHECK(ParseCommandLine({"serve", "m", "--tensor-parallel-size", "4"})->serve.engine.tensor_parallel_size == 4);
  for (const char* number : {"0", "65", "-1", "two"}) {
    const std::string error = ErrorOf({"serve", "m", "--tensor-parallel-size", number});
    CHECK(error.find("--tensor-parallel-size") != std::string::npos);
  }
}

TEST_CASE("CommandLine: tools are named, and what reaches beyond arithmetic only when asked for", "[cli]") {
  using Names = std::vector<std::string>;
  CHECK(ParseCommandLine({"serve", "m"})->serve.tools.enabled == Names{"calculator", "clock"});
  const auto line = ParseCommandLine({"serve", "--enable-tools", "clock,http_get", "--http-get-hosts", "a.example",
                                      "--http-get-hosts", "*.b.example", "--max-run-turns", "3", "m"});
  REQUIRE(line.ok());
  CHECK(line->serve.model == "m");
  CHECK(line->serve.tools.enabled == Names{"clock", "http_get"});
  CHECK(line->serve.tools.http_get_hosts == Names{"a.example", "*.b.example"});
  CHECK(line->serve.run_limits.max_turns == 3);
  const TempFile config("enable-tools: [clock, http_get]\nhttp-get-hosts: [a.example, b.example]\n");
  const auto from_file = ParseCommandLine({"serve", "m", "--config", config.path()});
  REQUIRE(from_file.ok());
  CHECK(from_file->serve.tools.enabled == Names{"clock", "http_get"});
  CHECK(from_file->serve.tools.http_get_hosts.size() == 2);
  const auto fault = [](const Names& names) {
    ServeOptions options{.model = "m"};
    options.tools.enabled = names;
    return std::string(CheckServeOptions(options).message());
  };
  CHECK(fault({"rm"}).find("there is no tool 'rm'") != std::string::npos);
  CHECK(fault({"http_get"}).find("--http-get-hosts") != std::string::npos);
  CHECK(fault({}).empty());
}

TEST_CASE("CommandLine: a model after a key or a name stays the model", "[cli]") {
  const auto key = ParseCommandLine({"serve", "--api-key", "k", "./model"});
  REQUIRE(key.ok());
  CHECK(key->serve.model == "./model");
  CHECK(key->serve.api_keys == std::vector<std::string>{"k"});
  const auto name = ParseCommandLine({"serve", "--served-model-name", "a", "./model", "--api-key=k", "--api-key", "l"});
  REQUIRE(name.ok());
  CHECK(name->serve.model == "./model");
  CHECK(name->serve.served_model_names == std::vector<std::string>{"a"});
  CHECK(name->serve.api_keys == std::vector<std::string>{"k", "l"});

  const TempFile file("model: from/file\napi-key: [x, y]\n");
  const auto config = ParseCommandLine({"serve", "--config", file.path(), "--api-key", "k", "./model"});
  REQUIRE(config.ok());
  CHECK(config->serve.model == "./model");
  CHECK(config->serve.api_keys == std::vector<std::string>{"k"});
  const auto both = ParseCommandLine({"serve", "--config", file.path()});
  REQUIRE(both.ok());
  CHECK(both->serve.api_keys == std::vector<std::string>{"x", "y"});
  // Neither a second key nor a second model: refused, not guessed.
  CHECK(ErrorOf({"serve", "./model", "--api-key", "k", "./other"}).find("./other") != std::string::npos);
}

TEST_CASE("CommandLine: several names may follow one flag once the model is known", "[cli]") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"serve", "./model", "--served-model-name", "a", "b", "--port", "1"},
        {"serve", "--port", "1", "./model", "--served-model-name=a", "b"},
        {"serve", "--no-enable-prefix-caching", "./model", "--served-model-name", "a", "--served-model-name", "b"},
        {"serve", "--model", "./model", "--served-model-name", "a", "b"}}) {
    const auto line = ParseCommandLine(arguments);
    REQUIRE(line.ok());
    CHECK(line->serve.model == "./model");
    CHECK(line->serve.served_model_names == std::vector<std::string>{"a", "b"});
  }
  CHECK_FALSE(ErrorOf({"serve", "--served-model-name", "a", "./model", "b"}).empty());
}

TEST_CASE("CommandLine: a given number of connections is told from the default", "[cli]") {
  CHECK_FALSE(ParseCommandLine({"serve", "m"})->serve.is_max_connections_given);
  CHECK(ParseCommandLine({"serve", "m", "--max-connections", "7"})->serve.is_max_connections_given);
  const TempFile file("max-connections: 9\n");
  CHECK(ParseCommandLine({"serve", "m", "--config", file.path()})->serve.is_max_connections_given);
}

TEST_CASE("DescriptorLimit: the soft limit is raised as far as needed, connections fit below the hard one", "[cli]") {
  rlimit original{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &original) == 0);
  if (original.rlim_max < 400) {
    WARN("[SKIPPED] the hard limit on open files is " << original.rlim_max);
    return;
  }
  const rlimit low{.rlim_cur = 300, .rlim_max = original.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const auto enough = RaiseDescriptorLimit(10);
  const auto raised = RaiseDescriptorLimit(100);
  rlimit now{};
  getrlimit(RLIMIT_NOFILE, &now);
  setrlimit(RLIMIT_NOFILE, &original);
  REQUIRE(enough.ok());
  CHECK(enough->after == 300);
  REQUIRE(raised.ok());
  CHECK(raised->before == 300);
  CHECK(raised->after == 356);
  CHECK(now.rlim_cur == 356);
  CHECK(now.rlim_max == original.rlim_max);

  CHECK(FittingConnections(100, 356) == 100);
  CHECK(FittingConnections(1000, 600) == 344);
  CHECK(FittingConnections(10000, 1024) == 768);
  CHECK(FittingConnections(10000, 64) == 32);
  CHECK(FittingConnections(5, 1 << 20) == 5);
}

TEST_CASE("CommandLine: a file of agents is checked, but for tools, which are not made yet", "[cli]") {
  const TempFile good("agents: [{name: a, tools: [of_a_tool_server]}]"), taken("agents:\n- name: m");
  const auto line = ParseCommandLine({"serve", "m", "--agents", good.path()});
  REQUIRE(line.ok());
  CHECK(line->serve.agents_file == good.path());
  CHECK(CheckServeFiles(line->serve).ok());
  const absl::Status fault = CheckServeFiles({.model = "m", .agents_file = taken.path()});
  CHECK(fault.message() == taken.path() + ":2: 'm' is the name of a model");
  CHECK(CheckServeFiles({.model = "x", .agents_file = taken.path()}).ok());
  CHECK_FALSE(CheckServeFiles({.model = "m", .agents_file = "/nonexistent"}).ok());
}

TEST_CASE("CommandLine: the files that serving reads are checked", "[cli]") {
  const auto fault = [](const ServeOptions& options) { return std::string(CheckServeFiles(options).message()); };
  CHECK(CheckServeFiles({.model = "m"}).ok());
  const TempFile keys("alpha acme 2\n"), bad_keys("alpha acme heavy\n");
  CHECK(CheckServeFiles({.model = "m", .api_key_file = keys.path()}).ok());
  CHECK(fault({.model = "m", .api_key_file = bad_keys.path()}).find(bad_keys.path()) != std::string::npos);
  CHECK(fault({.model = "m", .api_key_file = "/nonexistent"}).find("/nonexistent") != std::string::npos);

  const auto folder = std::filesystem::temp_directory_path() / ("millrace_cli_" + std::to_string(getpid()));
  const TestCertificate one(folder / "one"), two(folder / "two");
  const auto tls = [](const std::string& certificate, const std::string& key) {
    return ServeOptions{.model = "m", .certificate_file = certificate, .key_file = key};
  };
  CHECK(CheckServeFiles(tls(one.certificate_file, one.key_file)).ok());
  CHECK(fault(tls(one.certificate_file, two.key_file)).find(two.key_file) != std::string::npos);
  CHECK(fault(tls(one.key_file, one.key_file)).find(one.key_file) != std::string::npos);
  CHECK(fault(tls("/nonexistent", one.key_file)).find("/nonexistent") != std::string::npos);
  std::filesystem::remove_all(folder);

  const TempFile chat("{{ messages[0].content }}"), broken("{% if %}");
  ServeOptions options{.model = "m"};
  options.engine.chat_template = chat.path();
  CHECK(CheckServeFiles(options).ok());
  options.engine.chat_template = broken.path();
  CHECK_FALSE(CheckServeFiles(options).ok());
  options.engine.chat_template = "/nonexistent.jinja";
  CHECK(fault(options).find("/nonexistent.jinja") != std::string::npos);
}

TEST_CASE("CommandLine: faults say what was meant", "[cli]") {
  CHECK(ErrorOf({"serve", "m", "--max-num-seq", "7"}).find("did you mean 'max-num-seqs'") != std::string::npos);
  CHECK(ErrorOf({"serve", "m", "--dtype", "float8"}).find("float8") != std::string::npos);
  CHECK(ErrorOf({"serve", "m", "--port", "70000"}).find("--port") != std::string::npos);
  CHECK(ErrorOf({"serv"}).size() > 0);
  CHECK(ErrorOf({}).size() > 0);
  CHECK(ErrorOf({"bench"}).size() > 0);
  ServeOptions options{.model = "m", .certificate_file = "c"};
  CHECK_FALSE(CheckServeOptions(options).ok());
  options = {.model = "m", .grpc_port = 8000};
  CHECK_FALSE(CheckServeOptions(options).ok());
}

TEST_CASE("CommandLine: a new key opens the door that its entry describes, and no other key does", "[cli]") {
  const CommandLine line = *ParseCommandLine(
      {"keys", "new", "--tenant", "acme", "--name", "ci", "--role", "infer,admin", "--expires", "2999-01-31"});
  CHECK(line.command == Command::kNewKey);
  const auto one = MakeNewKey(line.new_key), two = MakeNewKey(line.new_key), plain = MakeNewKey({});
  REQUIRE((one.ok() && two.ok() && plain.ok()));
  CHECK(one->key.size() == 46);  // mr- and 256 bits
  CHECK(one->key != two->key);
  CHECK(one->entry.find(one->key.substr(3)) == std::string::npos);
  ApiKeys keys;
  REQUIRE(keys.AddText(one->entry + "\n" + plain->entry + "\n", "keys").ok());
  const auto identity = keys.Authorize("Bearer " + one->key, "", Access::kAdmin);
  REQUIRE(identity.ok());
  CHECK(identity->tenant.name == "acme");
  CHECK(identity->key_name == "ci");
  CHECK(keys.Authorize("Bearer " + plain->key, "", Access::kInfer).ok());
  CHECK_FALSE(keys.Authorize("Bearer " + two->key, "", Access::kInfer).ok());
  CHECK_FALSE(MakeNewKey({.tenant = "a b"}).ok());
  CHECK_FALSE(MakeNewKey({.expires = "soon"}).ok());
  CHECK_FALSE(MakeNewKey({.name = "x\", key: \"y"}).ok());
  CHECK(ErrorOf({"keys", "new", "--role", "root"}).find("root") != std::string::npos);
}

TEST_CASE("CommandLine: help and version are printed, nothing runs", "[cli]") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"}, {"serve", "--help"}, {"bench", "serve", "--help"}, {"--version"}}) {
    const auto line = ParseCommandLine(arguments);
    REQUIRE(line.ok());
    CHECK(line->command == Command::kNone);
    CHECK(line->output.size() > 5);
  }
  CHECK(ParseCommandLine({"serve", "--help"})->output.find("--max-num-batched-tokens") != std::string::npos);
}

TEST_CASE("CommandLine: a config file gives flags, the command line wins", "[cli]") {
  const TempFile file(
      "model: from/file\nport: 1234\nserved_model_name: [x, y]\nenable-prefix-caching: false\n"
      "max-num-seqs: 9\n");
  const auto line =
      ParseCommandLine({"serve", "--config", file.path(), "--max-num-seqs", "3", "--served-model-name", "z"});
  REQUIRE(line.ok());
  CHECK(line->serve.model == "from/file");
  CHECK(line->serve.http.port == 1234);
  CHECK(line->serve.served_model_names == std::vector<std::string>{"z"});
  CHECK_FALSE(line->serve.engine.scheduler.enable_prefix_caching);
  CHECK(line->serve.engine.scheduler.max_sequences == 3);
  const auto positional = ParseCommandLine({"serve", "given", "--config", file.path()});
  REQUIRE(positional.ok());
  CHECK(positional->serve.model == "given");
}

TEST_CASE("CommandLine: faults of a config file name path and line", "[cli]") {
  const auto fault = [](const std::string& text) {
    const TempFile file(text);
    std::string message = ErrorOf({"serve", "m", "--config", file.path()});
    REQUIRE(message.find(file.path()) == 0);
    return message.substr(file.path().size());
  };
  CHECK(fault("port: 1\nmax-num-seq: 3\n") == ":2: unknown key 'max-num-seq' (did you mean 'max-num-seqs'?)");
  CHECK(fault("\nport: many\n").find(":2: ") == 0);
  CHECK(fault("port: 1\nport: 2\n").find(":2: ") == 0);
  CHECK(fault("host:\n  nested: 1\n").find(":1: ") == 0);
  CHECK(fault("- port\n").find(":1: ") == 0);
  CHECK(fault("port: [1\n").find(":") == 0);
  CHECK(ErrorOf({"serve", "m", "--config", "/nonexistent.yaml"}).find("/nonexistent.yaml") != std::string::npos);
}

TEST_CASE("Bench: arrivals, traces and percentiles", "[cli]") {
  const auto poisson = PoissonArrivals(4000, 10, 5, 6, 1);
  REQUIRE(poisson.size() == 4000);
  CHECK(poisson.front().seconds == 0);
  CHECK(poisson.back().seconds == Approx(400).epsilon(0.1));
  CHECK(PoissonArrivals(3, INFINITY, 1, 1, 1).back().seconds == 0);
  const auto trace = ParseTrace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
      "2023-11-16 18:17:04.9799600,3180,8\n",
      10, 2);
  REQUIRE(trace.ok());
  CHECK((*trace)[1].seconds == Approx(0.5));
  CHECK((*trace)[0].input_tokens == 4808);
  CHECK(ParseTrace("1.5,2,3\n2.5,4,5\n", 1, 1)->size() == 1);
  CHECK(ParseTrace("1.5,2,3\n2.5,4,5\n", 0, 1)->size() == 2);
  std::string lines;
  for (int i = 0; i < 150; ++i) lines += std::to_string(i) + ",2,3\n";
  const TempFile recorded(lines);
  CHECK(MakeArrivals({.trace = recorded.path()})->size() == 150);
  CHECK(MakeArrivals({.num_prompts = 20, .trace = recorded.path()})->size() == 20);
  CHECK(MakeArrivals({})->size() == 100);
  CHECK_FALSE(ParseTrace("1,2,3\nx,y,z\n", 10, 1).ok());
  CHECK_FALSE(ParseTrace("", 10, 1).ok());
  CHECK(Percentile({4, 1, 3, 2}, 0.5) == 2.5);
  CHECK(Percentile({}, 0.5) == 0);
  const std::string svg = LoadSvg({.title = "a<b",
                                   .first_token_seconds = {0.1, 0.2},
                                   .inter_token_seconds = {0.01},
                                   .total_seconds = {1, 2},
                                   .token_times = {0.5, 0.6}});
  CHECK(svg.find("<svg") == 0);
  CHECK(svg.find("a&lt;b") != std::string::npos);
  CHECK(LoadSvg({}).find("</svg>") != std::string::npos);
}

TEST_CASE("SseReader: payloads whatever the cuts", "[cli]") {
  const std::string bytes = ": keep-alive\n\ndata: {\"a\":1}\r\n\r\ndata:x\n\ndata: [DONE]\n\n";
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    std::vector<std::string> found;
    SseReader reader([&](std::string_view data) { found.emplace_back(data); });
    reader.Push(std::string_view(bytes).substr(0, cut));
    reader.Push(std::string_view(bytes).substr(cut));
    CHECK(found == std::vector<std::string>{"{\"a\":1}", "x", "[DONE]"});
  }
}

}  // namespace
}  // namespace millrace
