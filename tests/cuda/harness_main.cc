// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <string>
#include <vector>

#include "tests/cuda/harness.h"
#ifdef MILLRACE_SIMT
#include <simt_core.h>
#endif

namespace millrace::cuda_test {
namespace {

constexpr int kMaxPrintedFailures = 10;

struct State {
  std::vector<Case> cases;
  int num_failures = 0;  // of the running case
  uint32_t inputs = 0;
};
State& TheState() {
  static State state;
  return state;
}

struct Options {
  std::string filter;
  uint64_t seed = 0;
  uint32_t inputs = 0;
  bool is_list = false;
};

bool ReadOptions(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const bool has_value = i + 1 < argc;
    if (std::strcmp(argv[i], "--list") == 0) {
      options->is_list = true;
    } else if (std::strcmp(argv[i], "--filter") == 0 && has_value) {
      options->filter = argv[++i];
    } else if (std::strcmp(argv[i], "--seed") == 0 && has_value) {
      options->seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--inputs") == 0 && has_value) {
      options->inputs = static_cast<uint32_t>(std::strtoul(argv[++i], nullptr, 10));
    } else {
      std::fprintf(stderr, "usage: %s [--filter TEXT] [--seed N] [--inputs N] [--list]\n", argv[0]);
      return false;
    }
  }
  return true;
}

// The device must be well after a case: a fault that no expectation saw is one too.
void CheckDevice() {
  const cudaError_t error = cudaDeviceSynchronize();
  if (error != cudaSuccess) Failure(__FILE__, __LINE__, "the device failed") << cudaGetErrorString(error);
  const cudaError_t last = cudaGetLastError();
  if (last != cudaSuccess && error == cudaSuccess)
    std::printf("  note: an error was left: %s\n", cudaGetErrorString(last));
}

}  // namespace

int Register(const char* name, void (*body)()) {
  TheState().cases.push_back({name, body});
  return static_cast<int>(TheState().cases.size());
}

Failure::~Failure() {
  const int number = ++TheState().num_failures;
  if (number <= kMaxPrintedFailures) std::printf("  %s\n", text_.str().c_str());
  if (number == kMaxPrintedFailures) std::printf("  ... the rest is only counted\n");
}

uint32_t InputSalt() { return TheState().inputs; }

std::string DescribeNear(double got, double want, double tolerance, const std::string& where) {
  char text[160];
  std::snprintf(text, sizeof(text), "got %.9g, want %.9g, off by %.3g, tolerance %.3g", got, want,
                std::fabs(got - want), tolerance);
  return where + ": " + text;
}

void RequireSuccess(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("  %s: %s\nFAILED, and the rest cannot run\n", what, cudaGetErrorString(error));
  std::fflush(stdout);
  std::_Exit(1);
}

uint16_t Bf16FromFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float FloatFromBf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

uint16_t HalfFromFloat(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (magnitude != magnitude) return 0x7fff;
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  if (magnitude < 0x1p-14f) return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f));
  int exponent;
  const float fraction = std::frexp(magnitude, &exponent);  // in [0.5, 1)
  // 2048 carries into the exponent by itself.
  const int mantissa = static_cast<int>(std::nearbyint(fraction * 2048.0f));
  return sign | static_cast<uint16_t>(((exponent + 13) << 10) + mantissa);
}
float FloatFromHalf(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  float value =
      std::ldexp(static_cast<float>(mantissa + (exponent > 0 ? 1024 : 0)), (exponent > 0 ? exponent : 1) - 25);
  if (exponent == 31) value = mantissa == 0 ? INFINITY : NAN;
  return bits & 0x8000 ? -value : value;
}

namespace {
int RunAll(const Options& options) {
  TheState().inputs = options.inputs;
  int num_passed = 0, num_failed = 0;
  for (const Case& test : TheState().cases) {
    if (std::string(test.name).find(options.filter) == std::string::npos) continue;
    if (options.is_list) {
      std::printf("%s\n", test.name);
      continue;
    }
    TheState().num_failures = 0;
    std::printf("begins %s\n", test.name);  // whose kernel never ends, if nothing follows
    std::fflush(stdout);
    test.body();
    CheckDevice();
    const int failures = TheState().num_failures;
    std::printf("%s %s%s\n", failures == 0 ? "ok    " : "FAILED", test.name,
                failures == 0 ? "" : (" (" + std::to_string(failures) + " failures)").c_str());
    std::fflush(stdout);
    (failures == 0 ? num_passed : num_failed) += 1;
  }
  if (!options.is_list) std::printf("%d passed, %d failed\n", num_passed, num_failed);
  return num_failed == 0 && (options.is_list || num_passed > 0) ? 0 : 1;
}

}  // namespace
}  // namespace millrace::cuda_test

int main(int argc, char** argv) {
  millrace::cuda_test::Options options;
  if (!millrace::cuda_test::ReadOptions(argc, argv, &options)) return 2;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what was said is known even of a program that is ended
#ifdef MILLRACE_SIMT
  simt::SetSeed(options.seed);
#endif
  return millrace::cuda_test::RunAll(options);
}
