// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "server/api/json_writer.h"
#include "server/log/log.h"

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

TEST_CASE("Log: one JSON object per line, from the level on", "[log]") {
  char name[] = "/tmp/millrace-log-XXXXXX";
  const int descriptor = mkstemp(name);
  REQUIRE(descriptor >= 0);
  close(descriptor);
  {
    auto log = Log::Create(LogLevel::kInfo, name);
    REQUIRE(log.ok());
    (*log)->Debug("not this");
    (*log)->Info("line\nbreak {} %s",
                 {{"text", "quote\" \xFF"}, {"count", int64_t{-3}}, {"share", 0.25}, {"yes", true}});
    (*log)->Error("last");
  }
  std::ifstream file(name);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line, nullptr, false));
  std::remove(name);
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
