// SPDX-License-Identifier: Apache-2.0
// NVIDIA's matrix library as the backend calls it, against a reference in double; launched, and recorded. The emulator
// has none, and where it is not installed there is nothing to tell.
#ifndef MILLRACE_SIMT
#include "kernels/cuda/backend/cublaslt.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda/harness.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;
using cuda_test::RequireSuccess;

constexpr int64_t kRows = 130, kOutputs = 264, kInputs = 512;

std::vector<uint16_t> RandomBf16(Random& random, int64_t count) {
  std::vector<uint16_t> bits(static_cast<size_t>(count));
  for (uint16_t& value : bits) value = cuda_test::Bf16FromFloat(random.Float(-1, 1));
  return bits;
}

// x W^T + out as it is.
std::vector<double> Expected(const std::vector<uint16_t>& x, const std::vector<uint16_t>& w,
                             const std::vector<uint16_t>& residual) {
  std::vector<double> sums(static_cast<size_t>(kRows * kOutputs));
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t n = 0; n < kOutputs; ++n) {
      const auto at = static_cast<size_t>(row * kOutputs + n);
      double sum = cuda_test::FloatFromBf16(residual[at]);
      for (int64_t k = 0; k < kInputs; ++k) {
        sum += static_cast<double>(cuda_test::FloatFromBf16(x[static_cast<size_t>(row * kInputs + k)])) *
               cuda_test::FloatFromBf16(w[static_cast<size_t>(n * kInputs + k)]);
      }
      sums[at] = sum;
    }
  }
  return sums;
}

KERNEL_TEST("cublasLt: many rows by a dense weight, added to what is there, launched and recorded") {
  const std::unique_ptr<CublasLt> library = CublasLt::Open();
  if (library == nullptr) {
    std::printf("  there is no libcublasLt.so.13 here: our own kernels multiply\n");
    return;
  }
  Random random(9);
  const std::vector<uint16_t> x_bits = RandomBf16(random, kRows * kInputs);
  const std::vector<uint16_t> w_bits = RandomBf16(random, kOutputs * kInputs);
  const std::vector<uint16_t> before = RandomBf16(random, kRows * kOutputs);
  const std::vector<double> want = Expected(x_bits, w_bits, before);
  DeviceArray<uint16_t> x(x_bits), w(w_bits), out(before);
  DeviceArray<uint8_t> workspace(CublasLt::kWorkspaceBytes);
  const MatmulLaunch launch = {
      .x = {.data = x.data(), .dtype = DType::kBF16, .rows = kRows, .cols = kInputs, .stride = kInputs},
      .w = {.dtype = DType::kBF16, .n = kOutputs, .k = kInputs, .stride = kInputs, .values = w.data()},
      .out = {.data = out.data(), .dtype = DType::kBF16, .rows = kRows, .cols = kOutputs, .stride = kOutputs},
      .residual = out.data()};
  const auto check = [&](const char* how) {
    const std::vector<uint16_t> got = out.Download();
    for (size_t i = 0; i < got.size(); ++i) {
      // One rounding to bfloat16, and sums of 512 products below 1 in float.
      EXPECT_NEAR(cuda_test::FloatFromBf16(got[i]), want[i], std::fabs(want[i]) / 256 + 1e-3,
                  std::string(how) + " sum " + std::to_string(i));
    }
  };
  cudaStream_t stream = nullptr;
  RequireSuccess(cudaDeviceSynchronize(), "a wait for what was uploaded");
  RequireSuccess(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  EXPECT(library->Launch(launch, workspace.data(), stream));
  check("launched");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  out.Upload(before);
  RequireSuccess(cudaDeviceSynchronize(), "a wait for what was uploaded");
  RequireSuccess(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "the beginning of a capture");
  EXPECT(library->Launch(launch, workspace.data(), stream));
  RequireSuccess(cudaStreamEndCapture(stream, &graph), "the end of a capture");
  RequireSuccess(cudaGraphInstantiate(&executable, graph, 0), "a graph");
  RequireSuccess(cudaGraphLaunch(executable, stream), "its launch");
  check("recorded");
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace millrace::cuda
#endif
