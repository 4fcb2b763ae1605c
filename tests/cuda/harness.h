// SPDX-License-Identifier: Apache-2.0
#pragma once
// Tests of kernels at launcher level, without Catch2 and Abseil: they run under the emulator (tests/simt) and, built by
// nvcc, on a machine that has a GPU and little else.
//
//   KERNEL_TEST("rms_norm: rows of any width agree with the double reference") {
//     DeviceArray<float> x(random.Floats(n, -1, 1));
//     EXPECT(LaunchIt(x.data(), nullptr) == cudaSuccess) << "n " << n;
//     EXPECT_NEAR(x.Download()[3], want, 1e-3, "row " + std::to_string(row));
//   }
//
// harness_main.cc: --filter TEXT runs the cases whose name has TEXT, --seed N the emulator's order of threads, --inputs
// N other random inputs, --list.
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace millrace::cuda_test {

struct Case {
  const char* name;
  void (*body)();
};
int Register(const char* name, void (*body)());

// One failed expectation; streams what is said about it. After ten of a case the rest is only counted.
class Failure {
 public:
  Failure(const char* file, int line, const std::string& what) { text_ << file << ":" << line << ": " << what; }
  ~Failure();
  template <typename T>
  Failure& operator<<(const T& value) {
    text_ << (is_first_ ? " | " : "") << value;
    is_first_ = false;
    return *this;
  }

 private:
  std::ostringstream text_;
  bool is_first_ = true;
};

// Whether got is within tolerance of want; NaN never is.
inline bool IsNear(double got, double want, double tolerance) {
  return got == want || std::fabs(got - want) <= tolerance;
}
std::string DescribeNear(double got, double want, double tolerance, const std::string& where);

// Ends the run: what follows would make no sense. For errors of the runtime itself.
void RequireSuccess(cudaError_t error, const char* what);

// Device memory with guard bytes on both sides, which are checked when it goes. New memory is NaN.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    RequireSuccess(cudaMalloc(reinterpret_cast<void**>(&memory_), num_bytes() + 2 * kGuardBytes), "cudaMalloc");
    RequireSuccess(cudaMemset(memory_, kGuard, num_bytes() + 2 * kGuardBytes), "cudaMemset");
    Poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Upload(values); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() {
    std::vector<unsigned char> all(num_bytes() + 2 * kGuardBytes);
    const cudaError_t error = cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) Failure(__FILE__, __LINE__, "the device failed") << cudaGetErrorString(error);
    for (size_t i = 0; error == cudaSuccess && i < kGuardBytes; ++i) {
      const size_t after = kGuardBytes + num_bytes() + i;
      if (all[i] != kGuard) Failure(__FILE__, __LINE__, "written before an array") << kGuardBytes - i << " bytes";
      if (all[after] != kGuard) Failure(__FILE__, __LINE__, "written past an array") << i << " bytes";
    }
    cudaFree(memory_);
  }

  T* data() { return reinterpret_cast<T*>(memory_ + kGuardBytes); }
  const T* data() const { return reinterpret_cast<const T*>(memory_ + kGuardBytes); }
  size_t count() const { return count_; }
  size_t num_bytes() const { return count_ * sizeof(T); }

  void Upload(const std::vector<T>& values) {
    if (values.size() != count_) RequireSuccess(cudaErrorInvalidValue, "Upload of another number of elements");
    RequireSuccess(cudaMemcpy(data(), values.data(), num_bytes(), cudaMemcpyHostToDevice), "Upload");
  }
  // Waits for everything launched before.
  std::vector<T> Download() const {
    RequireSuccess(cudaDeviceSynchronize(), "the kernels before a Download");
    std::vector<T> values(count_);
    RequireSuccess(cudaMemcpy(values.data(), data(), num_bytes(), cudaMemcpyDeviceToHost), "Download");
    return values;
  }
  // Every float type reads this as NaN, int8 as -1.
  void Poison() { RequireSuccess(cudaMemset(data(), 0xff, num_bytes()), "Poison"); }

 private:
  static constexpr size_t kGuardBytes = 256;
  static constexpr unsigned char kGuard = 0xa5;
  unsigned char* memory_ = nullptr;
  size_t count_ = 0;
};

// What --inputs adds to every seed.
uint32_t InputSalt();

// The same numbers on every machine for a seed.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed + InputSalt()) {}
  uint32_t Bits() { return static_cast<uint32_t>(engine_()); }
  float Float(float low, float high) { return low + (high - low) * static_cast<float>(Bits() >> 8) * 0x1p-24f; }
  int Int(int low, int high) {  // both included
    return low + static_cast<int>(Bits() % (static_cast<uint32_t>(high - low) + 1));
  }
  std::vector<float> Floats(size_t count, float low, float high) {
    std::vector<float> values(count);
    for (float& value : values) value = Float(low, high);
    return values;
  }
  std::vector<int> Ints(size_t count, int low, int high) {
    std::vector<int> values(count);
    for (int& value : values) value = Int(low, high);
    return values;
  }

 private:
  std::mt19937 engine_;
};

// Activations as the kernels have them, and back: bf16 and half in the 16 bits of a uint16_t, to the nearest even.
uint16_t Bf16FromFloat(float value);
float FloatFromBf16(uint16_t bits);
uint16_t HalfFromFloat(float value);
float FloatFromHalf(uint16_t bits);

}  // namespace millrace::cuda_test

#define KERNEL_TEST_NAMED(name, id)                                                        \
  static void KernelTest##id();                                                            \
  static const int kKernelTest##id = millrace::cuda_test::Register(name, &KernelTest##id); \
  static_assert(sizeof(kKernelTest##id) > 0);                                              \
  static void KernelTest##id()
#define KERNEL_TEST_EXPANDED(name, id) KERNEL_TEST_NAMED(name, id)
#define KERNEL_TEST(name) KERNEL_TEST_EXPANDED(name, __COUNTER__)

#define EXPECT(condition) \
  if (condition) {        \
  } else                  \
    millrace::cuda_test::Failure(__FILE__, __LINE__, "expected " #condition)
#define EXPECT_NEAR(got, want, tolerance, where)                 \
  if (millrace::cuda_test::IsNear((got), (want), (tolerance))) { \
  } else                                                         \
    millrace::cuda_test::Failure(__FILE__, __LINE__,             \
                                 millrace::cuda_test::DescribeNear((got), (want), (tolerance), (where)))
