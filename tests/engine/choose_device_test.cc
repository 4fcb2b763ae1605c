// SPDX-License-Identifier: Apache-2.0
#include "engine/choose_device.h"

#include <catch2/catch.hpp>
#include <string>
#include <tuple>

namespace millrace {
namespace {

TEST_CASE("ChooseDevices: without a CUDA backend auto is the CPU, and asking for CUDA says what is missing",
          "[device]") {
  for (const char* name : {"auto", "cpu"}) {
    const auto ranks = ChooseDevices(name, 1, 1);
    REQUIRE(ranks.ok());
    CHECK_THAT(ranks->devices.front()->name(), Catch::StartsWith("cpu (") && Catch::Contains("1 thread)"));
  }
  // The tests' folder holds no backend.
  for (const char* name : {"cuda", "cuda:0", "cuda:7"}) {
    const absl::Status status = ChooseDevices(name, 1, 1).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    const std::string message(status.message());
    CHECK_THAT(message,
               Catch::StartsWith(std::string("--device ") + name + ": ") && Catch::Contains("libmillrace_cuda.so"));
  }
}

TEST_CASE("ChooseDevices: other names are refused with those there are", "[device]") {
  for (const char* name : {"", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:99999999999"}) {
    const absl::Status status = ChooseDevices(name, 1, 1).status();
    CAPTURE(name);
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("auto, cpu, cuda, cuda:N"));
  }
}

TEST_CASE("ChooseDevices: ranks on the CPU divide its threads, each with one at least", "[device]") {
  for (const auto& [num_threads, num_ranks, each] :
       {std::tuple(4, 2, "2 threads)"), {3, 2, "1 thread)"}, {1, 4, "1 thread)"}}) {
    const auto ranks = ChooseDevices("cpu", num_threads, num_ranks);
    REQUIRE(ranks.ok());
    REQUIRE(ranks->devices.size() == static_cast<size_t>(num_ranks));
    CHECK(ranks->communicators.size() == static_cast<size_t>(num_ranks));
    for (const auto& device : ranks->devices) CHECK_THAT(device->name(), Catch::Contains(each));
    // The host's memory is theirs together.
    CHECK(BytesForEach(*ranks) <= ranks->devices.front()->available_bytes() / 2 + (size_t{1} << 30));
  }
  for (const int num_ranks : {-1, 0, 65}) {
    const absl::Status status = ChooseDevices("cpu", 1, num_ranks).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("--tensor-parallel-size " + std::to_string(num_ranks)));
  }
}

}  // namespace
}  // namespace millrace
