// SPDX-License-Identifier: Apache-2.0
#pragma once
// The HTTP front over a FakeEngine with a response cache before it, a clock that the test sets, and a record of what
// the observer hears. One thread of the test.
#include <string>
#include <utility>
#include <vector>

#include "cache/memory_store.h"
#include "server/caching/caching_generator.h"
#include "tests/server/api_fixture.h"

namespace millrace {

struct CacheFixture {
  explicit CacheFixture(FakeEngine::Options engine_options = {}, ApiOptions api_options = {},
                        std::unique_ptr<AnswerStore> store = nullptr)
      : engine(std::make_unique<FakeEngine>(std::move(engine_options))),
        metrics(Metrics::Create({.model_name = "fake", .version = "1.2.3"})),
        log(*Log::Create(LogLevel::kOff)),
        observer(MakeRequestObserver(*metrics, log.get())) {
    if (store == nullptr) store = MakeMemoryStore({.ttl = absl::Seconds(60), .now = [this] { return now; }});
    cache = std::make_unique<ResponseCache>(std::move(store), [this] { return now; });
    generator = MakeCachingGenerator({.inner = Generator::Create(*engine, observer.get(), Generator::Options{}),
                                      .cache = *cache,
                                      .model = {.name = "fake", .identity = Sha256("fake weights")},
                                      .observer = observer.get()});
    state.SetGenerator(generator);
    state.SetHealth(EngineHealth::kReady);
    handler = std::make_unique<ApiHandler>(ApiParts{.state = state,
                                                    .keys = keys,
                                                    .metrics = *metrics,
                                                    .log = *log,
                                                    .transport_stats = nullptr,
                                                    .agents = &agents,
                                                    .response_cache = cache.get()},
                                           api_options);
    server = *HttpServer::Start(HttpServerOptions{.host = "127.0.0.1", .port = 0, .num_io_threads = 2}, *handler);
  }
  ~CacheFixture() {
    server.reset();
    handler.reset();
    state.SetGenerator(nullptr);
    generator.reset();
  }

  JsonReply Call(const std::string& path, const nlohmann::json& body, const std::string& headers = "") const {
    RawClient client(server->port());
    client.Send(ApiFixture::Bytes("POST", path, body.dump(), headers));
    return Read(client);
  }
  static JsonReply Read(RawClient& client) {
    const std::string response = client.ReadResponse();
    JsonReply reply{.status = StatusOf(response), .head = response.substr(0, response.find("\r\n\r\n"))};
    reply.body = BodyOf(response);
    reply.json = nlohmann::json::parse(reply.body, nullptr, false);
    return reply;
  }
  // Head and events of a stream, as bytes.
  static std::pair<std::string, std::string> ReadStream(RawClient& client) {
    const std::string all = client.ReadUntilText("\r\n0\r\n\r\n");
    return {all.substr(0, all.find("\r\n\r\n")), Dechunk(BodyOf(all))};
  }
  std::pair<std::string, std::string> Stream(const std::string& path, nlohmann::json body,
                                             const std::string& headers = "") const {
    body["stream"] = true;
    RawClient client(server->port());
    client.Send(ApiFixture::Bytes("POST", path, body.dump(), headers));
    return ReadStream(client);
  }
  size_t num_generated() const { return engine->submitted().size(); }

  absl::Time now = absl::FromUnixSeconds(1'000'000);
  std::unique_ptr<FakeEngine> engine;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<Log> log;
  std::unique_ptr<RequestObserver> observer;
  std::unique_ptr<ResponseCache> cache;
  std::shared_ptr<Generator> generator;
  ServerState state{{"fake", "alias"}};
  ApiKeys keys;
  AgentCatalogue agents{"", {}};  // none
  std::unique_ptr<ApiHandler> handler;
  std::unique_ptr<HttpServer> server;
};

// The value of a header in a response's head; empty without one.
inline std::string HeaderOf(const std::string& head, const std::string& name) {
  for (absl::string_view line : absl::StrSplit(head, "\r\n")) {
    if (absl::StartsWithIgnoreCase(line, name + ": ")) return std::string(line.substr(name.size() + 2));
  }
  return "";
}

}  // namespace millrace
