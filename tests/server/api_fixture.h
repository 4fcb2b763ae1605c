// SPDX-License-Identifier: Apache-2.0
#pragma once
// The whole HTTP front over a FakeEngine, and a client for JSON requests. One thread of the test.
#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/agents/agent_catalogue.h"
#include "server/agents/agent_runs.h"
#include "server/agents/run_observer.h"
#include "server/api/api_handler.h"
#include "server/request_observer.h"
#include "server/storage/response_store.h"
#include "tests/server/fake_engine.h"
#include "tests/server/raw_client.h"
#include "tests/server/scratch_dir.h"

namespace millrace {

struct JsonReply {
  int status = 0;
  std::string head;
  std::string body;
  nlohmann::json json;  // discarded when the body is not JSON
};

struct ApiFixture {
  explicit ApiFixture(FakeEngine::Options engine_options = {}, ApiOptions api_options = {}, HttpLimits limits = {},
                      const std::string& log_file = "")
      : engine(std::make_unique<FakeEngine>(std::move(engine_options))),
        log(*Log::Create(log_file.empty() ? LogLevel::kOff : LogLevel::kDebug, log_file)) {
    state.SetGenerator(Generator::Create(*engine, observer.get(), Generator::Options{}));
    state.SetHealth(EngineHealth::kReady);
    api_options.version = "1.2.3";
    responses = *ResponseStore::Open({});
    handler = std::make_unique<ApiHandler>(ApiParts{.state = state,
                                                    .keys = keys,
                                                    .metrics = *metrics,
                                                    .log = *log,
                                                    .transport_stats = nullptr,
                                                    .usage = &usage,
                                                    .runs = runs.get(),
                                                    .agents = &agents,
                                                    .responses = responses.get()},
                                           api_options);
    HttpServerOptions http{.host = "127.0.0.1", .port = 0, .num_io_threads = 2, .limits = limits};
    auto started = HttpServer::Start(http, *handler);
    REQUIRE(started.ok());
    server = *std::move(started);
  }
  ~ApiFixture() {
    server.reset();
    handler.reset();
    runs.reset();
    state.SetGenerator(nullptr);
  }

  static std::string Bytes(const std::string& method, const std::string& path, const std::string& body,
                           const std::string& headers = "") {
    return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n", headers,
                        "\r\n", body);
  }
  JsonReply Call(const std::string& method, const std::string& path, const std::string& body = "",
                 const std::string& headers = "") {
    RawClient client(server->port());
    client.Send(Bytes(method, path, body, headers));
    const std::string response = client.ReadResponse();
    JsonReply reply{.status = StatusOf(response), .head = response.substr(0, response.find("\r\n\r\n"))};
    reply.body = BodyOf(response);
    reply.json = nlohmann::json::parse(reply.body, nullptr, false);
    return reply;
  }
  JsonReply Post(const std::string& path, const nlohmann::json& body) { return Call("POST", path, body.dump()); }
  JsonReply Get(const std::string& path) { return Call("GET", path); }

  // The payloads of a stream, in order; the last should be "[DONE]".
  std::vector<std::string> Stream(const std::string& path, const nlohmann::json& body) {
    RawClient client(server->port());
    client.Send(Bytes("POST", path, body.dump()));
    const std::string all = client.ReadUntilText("\r\n0\r\n\r\n");
    CHECK(StatusOf(all) == 200);
    const std::string text = Dechunk(BodyOf(all));
    std::vector<std::string> events;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find("\n\n", at);
      if (end == std::string::npos) break;
      const size_t data = text.find("data: ", at);
      const bool is_named = text.compare(at, 7, "event: ") == 0;  // on a line of its own, before the data
      if (data == at || is_named) events.push_back(text.substr(data + 6, end - data - 6));
      at = end + 2;
    }
    return events;
  }

  // Puts the agents of the YAML text in the place of those before. The status says what is wrong with it.
  absl::Status DefineAgents(const std::string& yaml) {
    std::ofstream(folder.path() + "/agents.yaml") << yaml;
    return agents.Load();
  }

  ScratchDir folder;
  std::atomic<int64_t> seconds{1'000'000};  // the clock of keys and usage: it stands still unless a test moves it
  Clock clock = [this] { return absl::FromUnixSeconds(seconds); };
  std::unique_ptr<FakeEngine> engine;
  ServerState state{{"fake", "alias"}};
  ApiKeys keys{clock};
  UsageLedger usage{clock};
  std::unique_ptr<Metrics> metrics = Metrics::Create({.model_name = "fake", .version = "1.2.3"});
  std::unique_ptr<Log> log;
  std::unique_ptr<RequestObserver> observer = MakeRequestObserver(*metrics, log.get(), &usage);
  std::unique_ptr<RunObserver> run_observer = MakeRunObserver(*metrics, *observer, log.get());
  std::unique_ptr<AgentRuns> runs =
      std::make_unique<AgentRuns>(*ToolSet::Create({}), AgentRuns::Options{}, run_observer.get());
  AgentCatalogue agents{folder.path() + "/agents.yaml",
                        {.model_names = state.model_names(), .limits = runs->limits(), .tools = &runs->tools()}};
  std::unique_ptr<ResponseStore> responses;
  std::unique_ptr<ApiHandler> handler;
  std::unique_ptr<HttpServer> server;
};

inline nlohmann::json ChatBody(nlohmann::json more = {}) {
  nlohmann::json body = {{"model", "fake"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  if (more.is_object()) body.update(more);
  return body;
}

}  // namespace millrace
