// SPDX-License-Identifier: Apache-2.0
#include "agent/tools/clock.h"

#include <catch2/catch.hpp>

TEST_CASE("clock tool: the time is the giver's, told in UTC with its weekday") {
  millrace::ClockTool clock([] { return absl::FromUnixSeconds(1'700'000'000); });
  const millrace::Cancellation cancellation;
  CHECK(clock.Call("{}", absl::InfiniteFuture(), cancellation).text == "2023-11-14T22:13:20Z (Tuesday)");
  CHECK(clock.Call(R"({"zone":"x"})", absl::InfiniteFuture(), cancellation).is_error);
}
