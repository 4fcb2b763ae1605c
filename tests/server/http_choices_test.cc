// SPDX-License-Identifier: Apache-2.0
// What the API tells the transport about a stream: how many answers share it.
#include <catch2/catch.hpp>

#include "absl/synchronization/notification.h"
#include "tests/server/api_fixture.h"

namespace millrace {
namespace {

class RecordingWriter : public ResponseWriter {
 public:
  void Send(HttpResponse) override { ended.Notify(); }
  void BeginStream(StreamOptions options) override { num_choices = options.num_choices; }
  bool Write(std::string_view) override { return true; }
  void End() override { ended.Notify(); }
  void OnClose(std::function<void()>) override {}
  bool is_closed() const override { return false; }

  int64_t num_choices = 0;
  absl::Notification ended;
};

TEST_CASE("Api: a stream's choices are those of all its prompts", "[http]") {
  ApiFixture f;
  auto writer = std::make_shared<RecordingWriter>();
  f.handler->Handle({.method = "POST",
                     .path = "/v1/completions",
                     .body = R"({"model":"fake","prompt":["a","b"],"n":3,"stream":true,"temperature":1})"},
                    writer);
  REQUIRE(writer->ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  CHECK(writer->num_choices == 6);
}

}  // namespace
}  // namespace millrace
