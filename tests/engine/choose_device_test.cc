// SPDX-License-Identifier: Apache-2.0
#include "engine/choose_device.h"

#include <catch2/catch.hpp>
#include <string>

namespace millrace {
namespace {

TEST_CASE("ChooseDevice: without a CUDA backend auto is the CPU, and asking for CUDA says what is missing",
          "[device]") {
  for (const char* name : {"auto", "cpu"}) {
    const auto device = ChooseDevice(name, 1);
    REQUIRE(device.ok());
    CHECK_THAT((*device)->name(), Catch::StartsWith("cpu (") && Catch::Contains("1 thread)"));
  }
  // The tests' folder holds no backend.
  for (const char* name : {"cuda", "cuda:0", "cuda:7"}) {
    const absl::Status status = ChooseDevice(name, 1).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    const std::string message(status.message());
    CHECK_THAT(message,
               Catch::StartsWith(std::string("--device ") + name + ": ") && Catch::Contains("libmillrace_cuda.so"));
  }
}

TEST_CASE("ChooseDevice: other names are refused with those there are", "[device]") {
  for (const char* name : {"", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:99999999999"}) {
    const absl::Status status = ChooseDevice(name, 1).status();
    CAPTURE(name);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("auto, cpu, cuda, cuda:N"));
  }
}

}  // namespace
}  // namespace millrace
