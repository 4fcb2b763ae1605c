// SPDX-License-Identifier: Apache-2.0
#include "kernels/device.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/ops.h"

namespace millrace {
namespace {

TEST_CASE("MakeCpuDevice: uses the widest path and the available cores, and says so", "[device]") {
  auto device = MakeCpuDevice({});
  REQUIRE(device.ok());
  const std::string name = (*device)->name();
  CHECK_THAT(name, Catch::Contains(std::string(cpu::CpuPathName(cpu::WidestCpuPath()))));
  CHECK_THAT(name, Catch::Contains(std::to_string(cpu::AvailableCores()) + " thread"));
  CHECK((*device)->ops().activation_dtype() == DType::kF32);
  CHECK((*device)->Wait().ok());
  CHECK((*device)->available_bytes() > size_t{1} << 20);
}

TEST_CASE("MakeCpuDevice: refuses thread counts and paths that cannot be", "[device]") {
  CHECK(MakeCpuDevice({.num_threads = -1}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(MakeCpuDevice({.num_threads = 100000}).status().code() == absl::StatusCode::kInvalidArgument);
  for (CpuPath path : {CpuPath::kReference, CpuPath::kAvx2, CpuPath::kAvx512}) {
    const auto device = MakeCpuDevice({.num_threads = 1, .path = path});
    CHECK(device.ok() == cpu::HasCpuPath(path));
    if (!device.ok()) CHECK(device.status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("CpuDevice: memory is zeroed, aligned and refused with the size when there is too little", "[device]") {
  auto device = MakeCpuDevice({.num_threads = 1});
  REQUIRE(device.ok());
  for (size_t num_bytes : {size_t{1}, size_t{4097}, size_t{5} << 20}) {
    auto buffer = (*device)->Allocate(num_bytes);
    REQUIRE(buffer.ok());
    REQUIRE((*buffer)->num_bytes() == num_bytes);
    const uint8_t* data = static_cast<const uint8_t*>((*buffer)->data());
    REQUIRE(reinterpret_cast<uintptr_t>(data) % 64 == 0);
    REQUIRE(std::all_of(data, data + num_bytes, [](uint8_t byte) { return byte == 0; }));
  }
  for (size_t num_bytes : {size_t{1} << 50, ~size_t{0}}) {
    const auto refused = (*device)->Allocate(num_bytes);
    REQUIRE(refused.status().code() == absl::StatusCode::kResourceExhausted);
    CHECK_THAT(std::string(refused.status().message()), Catch::Contains(std::to_string(num_bytes)));
  }
  CHECK((*device)->Allocate(0).ok());
}

TEST_CASE("CpuDevice: a workspace is as large as it says and covers less without growing", "[device]") {
  auto device = MakeCpuDevice({.num_threads = 2});
  REQUIRE(device.ok());
  Ops& ops = (*device)->ops();
  CHECK(ops.WorkspaceBytes({.max_rows = 512, .max_inputs = 8192}) >
        ops.WorkspaceBytes({.max_rows = 16, .max_inputs = 1024}));
  // Long prompts are multiplied in blocks of rows: scratch does not grow with them.
  CHECK(ops.WorkspaceBytes({.max_rows = 100000, .max_inputs = 8192}) ==
        ops.WorkspaceBytes({.max_rows = 2048, .max_inputs = 8192}));
  REQUIRE(ops.ReserveWorkspace({.max_rows = 64, .max_inputs = 2048}).ok());
  REQUIRE(ops.ReserveWorkspace({.max_rows = 16, .max_inputs = 1024}).ok());
}

TEST_CASE("CpuDevice: a step of any rows is replayed as it is, and copies are plain copies", "[device]") {
  auto device = MakeCpuDevice({.num_threads = 1});
  REQUIRE(device.ok());
  const std::vector<int32_t> tokens = {1, 2, 3};
  (*device)->ops().BeginStep({.tokens = tokens});
  std::vector<int64_t> replayed;
  (*device)->ops().Replay([&](int64_t num_rows) { replayed.push_back(num_rows); });
  CHECK(replayed == std::vector<int64_t>{3});
  CHECK((*device)->shares_host_memory());
  auto buffer = (*device)->Allocate(12);
  REQUIRE(buffer.ok());
  std::vector<int32_t> back(3);
  REQUIRE((*device)->CopyToDevice((*buffer)->data(), tokens.data(), 12).ok());
  REQUIRE((*device)->CopyToHost(back.data(), (*buffer)->data(), 12).ok());
  CHECK(back == tokens);
}

TEST_CASE("FirstCacheBytes: is a size that a core's first cache can have", "[device]") {
  CHECK(cpu::FirstCacheBytes() >= 4 * 1024);
  CHECK(cpu::FirstCacheBytes() <= 1024 * 1024);
}

TEST_CASE("Cgroup limits: numbers, no limit and nonsense are told apart", "[device]") {
  CHECK(cpu::ParseCgroupV2Cpu("200000 100000\n") == 2.0);
  CHECK(cpu::ParseCgroupV2Cpu("150000 100000") == 1.5);
  CHECK(cpu::ParseCgroupV2Cpu("max 100000\n") == -1);
  CHECK(cpu::ParseCgroupV2Cpu("") == -1);
  CHECK(cpu::ParseCgroupV2Cpu("1 0") == -1);
  CHECK(cpu::ParseCgroupV1Cpu("-1\n", "100000\n") == -1);
  CHECK(cpu::ParseCgroupV1Cpu("50000\n", "100000\n") == 0.5);
  CHECK(cpu::ParseCgroupBytes("max\n") == -1);
  CHECK(cpu::ParseCgroupBytes("9223372036854771712\n") == -1);  // version 1 writes "no limit" so
  CHECK(cpu::ParseCgroupBytes("1073741824\n") == 1073741824);
  CHECK(cpu::AvailableCores() >= 1);
}

}  // namespace
}  // namespace millrace
