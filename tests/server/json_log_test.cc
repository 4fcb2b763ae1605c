// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "server/log/log.h"
#include "server/request_observer.h"
#include "server/wire/api_error.h"
#include "server/wire/json_writer.h"

namespace millrace {
namespace {

using nlohmann::json;

TEST_CASE("JsonWriter: every string comes back, broken UTF-8 as replacement characters", "[json]") {
  std::mt19937 random(1);
  const std::string pieces[] = {"a",
                                "\"",
                                "\\",
                                "\n",
                                "\x01",
                                "\x7F",
                                "\xC3\xA9",
                                "\xE2\x82\xAC",
                                "\xF0\x9F\x98\x80",
                                "\xC3",
                                "\xFF",
                                "\xED\xA0\x80",
                                "\xC0\x80",
                                "\xF4\x90\x80\x80",
                                std::string(1, '\0')};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += pieces[random() % std::size(pieces)];
    std::string written;
    AppendJsonString(text, written);
    const json back = json::parse(written, nullptr, false);
    REQUIRE(back.is_string());
    CHECK(back.get<std::string>() == ToValidUtf8(text));
  }
  std::string written;
  AppendJsonString("caf\xC3\xA9 \xF0\x9F\x98\x80", written);
  CHECK(written == "\"caf\xC3\xA9 \xF0\x9F\x98\x80\"");
}

TEST_CASE("JsonWriter: floats read back as the same float", "[json]") {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    const uint32_t bits = static_cast<uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    std::string written;
    AppendJsonFloat(value, written);
    if (std::isfinite(value)) {
      CHECK(json::parse(written).get<float>() == value);
    } else {
      CHECK(written == "null");
    }
  }
}

// What `write` logs, line by line.
std::vector<json> Lines(const std::function<void(Log&)>& write) {
  char name[] = "/tmp/millrace-log-XXXXXX";
  const int descriptor = mkstemp(name);
  REQUIRE(descriptor >= 0);
  close(descriptor);
  {
    auto log = Log::Create(LogLevel::kInfo, name);
    REQUIRE(log.ok());
    write(**log);
  }
  std::ifstream file(name);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line, nullptr, false));
  std::remove(name);
  return lines;
}

TEST_CASE("Log: a refused request is one line with its caller and its fault, and a rejection if the queue was full",
          "[log]") {
  auto metrics = Metrics::Create({.model_name = "m", .version = "1"});
  const auto lines = Lines([&metrics](Log& log) {
    const auto observer = MakeRequestObserver(*metrics, &log);
    Caller caller{.request_id = "r1", .endpoint = "grpc.chat", .remote = "ipv4:1.2.3.4:5"};
    caller.tenant.name = "acme";
    observer->OnRejected(caller, ParamError("top_p", "secret words"));
    observer->OnRejected(caller, absl::ResourceExhaustedError("full"));
  });
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["message"] == "request refused");
  CHECK(lines[0]["request_id"] == "r1");
  CHECK(lines[0]["endpoint"] == "grpc.chat");
  CHECK(lines[0]["tenant"] == "acme");
  CHECK(lines[0]["status"] == 400);
  CHECK(lines[0]["code"] == "invalid_value");
  CHECK(lines[0]["param"] == "top_p");
  CHECK(lines[0].dump().find("secret") == std::string::npos);
  CHECK(lines[1]["status"] == 429);
  const std::string page = metrics->Scrape(nullptr, {});
  CHECK(page.find("vllm:admission_rejections_total{engine=\"0\",model_name=\"m\",reason=\"queue_full\"} 1") !=
        std::string::npos);
}

TEST_CASE("Log: one JSON object per line, from the level on", "[log]") {
  const auto lines = Lines([](Log& log) {
    log.Debug("not this");
    log.Info("line\nbreak {} %s", {{"text", "quote\" \xFF"}, {"count", int64_t{-3}}, {"share", 0.25}, {"yes", true}});
    log.Error("last");
  });
  REQUIRE(lines.size() == 2);
  REQUIRE(lines[0].is_object());
  CHECK(lines[0]["message"] == "line\nbreak {} %s");
  CHECK(lines[0]["level"] == "info");
  CHECK(lines[0]["text"] == "quote\" \xEF\xBF\xBD");
  CHECK(lines[0]["count"] == -3);
  CHECK(lines[0]["share"] == 0.25);
  CHECK(lines[0]["yes"] == true);
  CHECK(lines[0]["time"].get<std::string>().size() == 24);
  CHECK(lines[1]["level"] == "error");
  CHECK_FALSE(Log::Create(LogLevel::kInfo, "/proc/no/log").ok());
  CHECK(ParseLogLevel("warning").ok());
  CHECK_FALSE(ParseLogLevel("loud").ok());
}

}  // namespace
}  // namespace millrace
