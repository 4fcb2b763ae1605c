// SPDX-License-Identifier: Apache-2.0
// Every wrapper of kernels/cuda/common/ptx.h as one warp runs it, against what tests/simt/reference_ptx.h computes from
// the same bits. Under the emulator both are one; on a GPU this is what says the emulator tells the truth.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx.h"
#include "tests/cuda/harness.h"
#include "tests/simt/reference_ptx.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;

constexpr int kLanes = 32;
constexpr int kNumRounds = 20;

template <typename... Parameters, typename... Arguments>
void RunWarp(void (*kernel)(Parameters...), Arguments... arguments) {
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(kLanes), .shared_bytes = 4096};
  EXPECT(Launch(kernel, shape, arguments...) == cudaSuccess);
}

std::vector<uint32_t> RandomWords(Random& random, size_t count) {
  std::vector<uint32_t> words(count);
  for (uint32_t& word : words) word = random.Bits();
  return words;
}

void ExpectSame(const std::vector<uint32_t>& got, const std::vector<uint32_t>& want, const char* what) {
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT(got[i] == want[i]) << what << " word " << i << std::hex << " got " << got[i] << " want " << want[i];
  }
}

// Bytes of every wrapper's copies, one word a lane and size: copied, and zero where a lane's copy is not valid.
__global__ void CopyKernel(const uint32_t* in, uint32_t* out) {
  uint32_t* shared = ptx::SharedMemory<uint32_t>();
  const int lane = threadIdx.x;
  for (int i = lane; i < 7 * kLanes; i += kLanes) shared[i] = 0x01020304;
  __syncthreads();
  ptx::CpAsync16(shared + 4 * lane, in + 4 * lane, lane % 3 != 0);
  ptx::CpAsync8(shared + 4 * kLanes + 2 * lane, in + 4 * kLanes + 2 * lane, lane % 5 != 0);
  ptx::CpAsyncCommit();
  ptx::CpAsync4(shared + 6 * kLanes + lane, in + 6 * kLanes + lane, lane % 7 != 0);
  ptx::CpAsyncCommit();
  ptx::CpAsyncWait<1>();
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = shared[4 * lane + i];
  for (int i = 0; i < 2; ++i) out[4 * kLanes + 2 * lane + i] = shared[4 * kLanes + 2 * lane + i];
  ptx::CpAsyncWait<0>();
  out[6 * kLanes + lane] = shared[6 * kLanes + lane];
}

KERNEL_TEST("ptx: asynchronous copies bring their bytes, or zeros") {
  Random random(1);
  const std::vector<uint32_t> words = RandomWords(random, 7 * kLanes);
  DeviceArray<uint32_t> in(words), out(words.size());
  RunWarp(CopyKernel, in.data(), out.data());
  std::vector<uint32_t> want = words;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane % 3 == 0) std::fill_n(&want[4 * lane], 4, 0);
    if (lane % 5 == 0) std::fill_n(&want[4 * kLanes + 2 * lane], 2, 0);
    if (lane % 7 == 0) want[6 * kLanes + lane] = 0;
  }
  ExpectSame(out.Download(), want, "copies");
}

// Four 8x8 matrices, rows scattered over shared memory by a permutation of 32 rows; all loads of them.
__global__ void LdMatrixKernel(const uint32_t* in, uint32_t* out) {
  uint4* shared = ptx::SharedMemory<uint4>();
  const int lane = threadIdx.x, row = lane * 5 % kLanes;
  shared[row] = reinterpret_cast<const uint4*>(in)[lane];
  __syncthreads();
  uint32_t x1[1], x2[2], x4[4], x2_trans[2], x4_trans[4];
  ptx::LdMatrixX1(x1, shared + row);
  ptx::LdMatrixX2(x2, shared + row);
  ptx::LdMatrixX4(x4, shared + row);
  ptx::LdMatrixX2Trans(x2_trans, shared + row);
  ptx::LdMatrixX4Trans(x4_trans, shared + row);
  uint32_t* mine = out + 13 * lane;
  mine[0] = x1[0];
  for (int i = 0; i < 2; ++i) mine[1 + i] = x2[i];
  for (int i = 0; i < 4; ++i) mine[3 + i] = x4[i];
  for (int i = 0; i < 2; ++i) mine[7 + i] = x2_trans[i];
  for (int i = 0; i < 4; ++i) mine[9 + i] = x4_trans[i];
}

KERNEL_TEST("ptx: ldmatrix gives each lane its elements, transposed or not") {
  Random random(2);
  const std::vector<uint32_t> words = RandomWords(random, 4 * kLanes);
  DeviceArray<uint32_t> in(words), out(13 * kLanes);
  RunWarp(LdMatrixKernel, in.data(), out.data());
  const auto element = [&](int matrix, int row, int col) {
    return words[4 * (8 * matrix + row) + col / 2] >> col % 2 * 16 & 0xffff;
  };
  std::vector<uint32_t> want;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4, col = lane % 4 * 2;
    const auto plain = [&](int matrix) { return element(matrix, row, col) | element(matrix, row, col + 1) << 16; };
    const auto trans = [&](int matrix) { return element(matrix, col, row) | element(matrix, col + 1, row) << 16; };
    for (const int count : {1, 2, 4}) {
      for (int matrix = 0; matrix < count; ++matrix) want.push_back(plain(matrix));
    }
    for (const int count : {2, 4}) {
      for (int matrix = 0; matrix < count; ++matrix) want.push_back(trans(matrix));
    }
  }
  ExpectSame(out.Download(), want, "ldmatrix");
}

__global__ void MovMatrixKernel(const uint32_t* in, uint32_t* out) {
  out[threadIdx.x] = ptx::MovMatrixTrans(in[threadIdx.x]);
}

KERNEL_TEST("ptx: movmatrix transposes what ldmatrix would have loaded") {
  Random random(8);
  const std::vector<uint32_t> words = RandomWords(random, kLanes);
  DeviceArray<uint32_t> in(words), out(kLanes);
  RunWarp(MovMatrixKernel, in.data(), out.data());
  const auto element = [&](int row, int col) { return words[4 * row + col / 2] >> col % 2 * 16 & 0xffff; };
  std::vector<uint32_t> want;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4, col = lane % 4 * 2;
    want.push_back(element(col, row) | element(col + 1, row) << 16);
  }
  ExpectSame(out.Download(), want, "movmatrix");
}

enum class Kind { kBf16, kF16, kS8 };
template <Kind kKind, typename D>
__global__ void MmaKernel(const uint32_t* a_in, const uint32_t* b_in, D* d_in_out) {
  const int lane = threadIdx.x;
  uint32_t a[4], b[2];
  D d[4];
  for (int i = 0; i < 4; ++i) a[i] = a_in[4 * lane + i];
  for (int i = 0; i < 2; ++i) b[i] = b_in[2 * lane + i];
  for (int i = 0; i < 4; ++i) d[i] = d_in_out[4 * lane + i];
  if constexpr (kKind == Kind::kBf16) ptx::MmaBf16(d, a, b);
  if constexpr (kKind == Kind::kF16) ptx::MmaF16(d, a, b);
  if constexpr (kKind == Kind::kS8) ptx::MmaS8(d, a, b);
  for (int i = 0; i < 4; ++i) d_in_out[4 * lane + i] = d[i];
}

template <typename D>
struct Fragments {
  uint32_t a[kLanes][4], b[kLanes][2];
  D d[kLanes][4];
};

// Elements as `pair` makes them; what d holds at first are small integers.
template <typename D, typename Pair>
Fragments<D> RandomFragments(Random& random, Pair pair) {
  Fragments<D> f;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (uint32_t& word : f.a[lane]) word = pair();
    for (uint32_t& word : f.b[lane]) word = pair();
    for (D& value : f.d[lane]) value = static_cast<D>(random.Int(-9, 9));
  }
  return f;
}

template <typename T, size_t kRows, size_t kCols>
std::vector<T> Flat(const T (&rows)[kRows][kCols]) {
  std::vector<T> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row, row + kCols);
  return flat;
}

template <Kind kKind, typename D>
std::vector<D> RunMma(const Fragments<D>& f) {
  DeviceArray<uint32_t> a(Flat(f.a)), b(Flat(f.b));
  DeviceArray<D> d(Flat(f.d));
  RunWarp(MmaKernel<kKind, D>, a.data(), b.data(), d.data());
  return d.Download();
}

KERNEL_TEST("ptx: mma of bf16, half and int8 multiplies the documented fragments") {
  Random random(3);
  const auto bf16 = [&] { return uint32_t{cuda_test::Bf16FromFloat(random.Float(-2, 2))}; };
  const auto half = [&] { return uint32_t{cuda_test::HalfFromFloat(random.Float(-2, 2))}; };
  for (int round = 0; round < kNumRounds; ++round) {
    // 16 products below 4, sums in float: far below this.
    constexpr double kTolerance = 1e-4;
    Fragments<float> f = RandomFragments<float>(random, [&] { return bf16() | bf16() << 16; });
    std::vector<float> got = RunMma<Kind::kBf16>(f);
    simt::reference::MmaBf16(f.a, f.b, f.d);
    for (int i = 0; i < 4 * kLanes; ++i)
      EXPECT_NEAR(got[i], f.d[i / 4][i % 4], kTolerance, "bf16 " + std::to_string(i));

    f = RandomFragments<float>(random, [&] { return half() | half() << 16; });
    got = RunMma<Kind::kF16>(f);
    simt::reference::MmaF16(f.a, f.b, f.d);
    for (int i = 0; i < 4 * kLanes; ++i)
      EXPECT_NEAR(got[i], f.d[i / 4][i % 4], kTolerance, "half " + std::to_string(i));

    Fragments<int32_t> s8 = RandomFragments<int32_t>(random, [&] { return random.Bits(); });
    const std::vector<int32_t> got_s8 = RunMma<Kind::kS8>(s8);
    simt::reference::MmaS8(s8.a, s8.b, s8.d);
    for (int i = 0; i < 4 * kLanes; ++i) EXPECT(got_s8[i] == s8.d[i / 4][i % 4]) << "int8 " << i;
  }
}

// Tables that kernels use, and some that tell the inputs apart.
__global__ void BitsKernel(const uint32_t* in, uint32_t* out) {
  const int lane = threadIdx.x;
  const uint32_t a = in[3 * lane], b = in[3 * lane + 1], c = in[3 * lane + 2];
  uint32_t* mine = out + 6 * lane;
  mine[0] = ptx::Lop3<0xea>(a, b, c);
  mine[1] = ptx::Lop3<0x6a>(a, b, c);
  mine[2] = ptx::Lop3<0x1b>(a, b, c);
  mine[3] = ptx::Lop3<0xd8>(a, b, c);
  mine[4] = ptx::Prmt(a, b, c);
  mine[5] = ptx::Prmt(a, b, 0x5140);
}

KERNEL_TEST("ptx: lop3 and prmt") {
  Random random(4);
  for (int round = 0; round < kNumRounds; ++round) {
    std::vector<uint32_t> words = RandomWords(random, 3 * kLanes);
    for (int lane = 0; lane < kLanes; ++lane) words[3 * lane + 2] &= lane % 2 ? 0xffffffff : 0xffff;
    DeviceArray<uint32_t> in(words), out(6 * kLanes);
    RunWarp(BitsKernel, in.data(), out.data());
    std::vector<uint32_t> want;
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint32_t a = words[3 * lane], b = words[3 * lane + 1], c = words[3 * lane + 2];
      for (const int table : {0xea, 0x6a, 0x1b, 0xd8}) want.push_back(simt::reference::Lop3(table, a, b, c));
      for (const uint32_t selector : {c, 0x5140u}) want.push_back(simt::reference::Prmt(a, b, selector));
    }
    ExpectSame(out.Download(), want, "bits");
  }
}

__global__ void LoadKernel(const uint32_t* in, uint32_t* out) {
  ptx::GridDependencyWait();
  const int lane = threadIdx.x;
  ptx::PrefetchL2(in);
  const uint4 four = ptx::LoadStream16(in + 4 * lane);
  const uint4 again = ptx::LoadStream16(in + 4 * lane, ptx::StreamPolicy());
  const uint4 kept = ptx::LoadGlobal16(ptx::Pin(in) + 4 * lane);
  ptx::GridDependencyLaunch();
  reinterpret_cast<uint4*>(out)[lane] = four;
  reinterpret_cast<uint4*>(out + 4 * kLanes)[lane] = again;
  reinterpret_cast<uint4*>(out + 8 * kLanes)[lane] = kept;
}

KERNEL_TEST("ptx: streamed loads, also in a dependent launch") {
  Random random(5);
  for (const bool is_dependent : {false, true}) {
    const std::vector<uint32_t> words = RandomWords(random, 4 * kLanes);
    DeviceArray<uint32_t> in(words), out(12 * kLanes);
    const LaunchShape shape = {.grid = dim3(1), .block = dim3(kLanes), .is_dependent = is_dependent};
    EXPECT(Launch(LoadKernel, shape, in.data(), out.data()) == cudaSuccess);
    std::vector<uint32_t> want = words;
    for (int i = 0; i < 2; ++i) want.insert(want.end(), words.begin(), words.end());
    ExpectSame(out.Download(), want, "loads");
  }
}

__global__ void WidenKernel(const uint16_t* in, uint32_t* out, int count) {
  for (int i = threadIdx.x; i < count; i += kLanes) out[i] = ptx::E4m3x2ToHalf2(in[i]);
}
__global__ void NarrowKernel(const float* in, uint32_t* out, int count) {
  for (int i = threadIdx.x; i < count; i += kLanes) out[i] = ptx::FloatsToE4m3x2(in[2 * i], in[2 * i + 1]);
}

bool IsNanHalf(uint32_t bits) { return (bits & 0x7fff) > 0x7c00; }

KERNEL_TEST("ptx: every 8-bit float widens to its half") {
  std::vector<uint16_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint16_t>(i | (255 - i) << 8);
  DeviceArray<uint16_t> in(codes);
  DeviceArray<uint32_t> out(codes.size());
  RunWarp(WidenKernel, in.data(), out.data(), 256);
  const std::vector<uint32_t> got = out.Download();
  for (int i = 0; i < 256; ++i) {
    const uint32_t want = simt::reference::E4m3x2ToHalf2(codes[i]);
    for (const int shift : {0, 16}) {
      const uint32_t g = got[i] >> shift & 0xffff, w = want >> shift & 0xffff;
      EXPECT(g == w || (IsNanHalf(g) && IsNanHalf(w))) << "code " << i << " got " << g << " want " << w;
    }
  }
}

KERNEL_TEST("ptx: floats narrow to the nearest 8-bit float, ties to even, the largest beyond") {
  Random random(6);
  std::vector<float> values = {0.0f, -0.0f, 448.0f, 464.0f, 480.0f, -1e30f, INFINITY, -INFINITY, 0x1p-10f, 0x1.8p-9f};
  for (uint32_t code = 0; code < 0x7e; ++code) {  // the middle of neighbours, and a little to either side
    const float low = simt::reference::FloatOfE4m3(code), high = simt::reference::FloatOfE4m3(code + 1);
    const float middle = (low + high) / 2;
    for (const float value : {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  for (int i = 0; i < 2000; ++i) values.push_back(std::ldexp(random.Float(-1, 1), random.Int(-14, 10)));
  if (values.size() % 2 != 0) values.push_back(1);
  const int num_pairs = static_cast<int>(values.size() / 2);
  DeviceArray<float> in(values);
  DeviceArray<uint32_t> out(num_pairs);
  RunWarp(NarrowKernel, in.data(), out.data(), num_pairs);
  const std::vector<uint32_t> got = out.Download();
  for (int i = 0; i < num_pairs; ++i) {
    const uint32_t want = simt::reference::FloatsToE4m3x2(values[2 * i], values[2 * i + 1]);
    EXPECT(got[i] == want) << values[2 * i] << " and " << values[2 * i + 1] << " got " << got[i] << " want " << want;
  }
  DeviceArray<float> nans(std::vector<float>{NAN, -NAN});
  DeviceArray<uint32_t> narrowed(1);
  RunWarp(NarrowKernel, nans.data(), narrowed.data(), 1);
  EXPECT((narrowed.Download()[0] & 0x7f7f) == 0x7f7f) << "NaN stays NaN";
}

__global__ void ApproximateKernel(const float* in, float* out, int count) {
  for (int i = threadIdx.x; i < count; i += kLanes) {
    out[2 * i] = ptx::Exp2(in[i]);
    out[2 * i + 1] = ptx::Reciprocal(in[i]);
  }
}

KERNEL_TEST("ptx: exp2 and reciprocal within their bounds") {
  Random random(7);
  const std::vector<float> values = random.Floats(4096, -30, 30);
  DeviceArray<float> in(values), out(2 * values.size());
  RunWarp(ApproximateKernel, in.data(), out.data(), static_cast<int>(values.size()));
  const std::vector<float> got = out.Download();
  for (size_t i = 0; i < values.size(); ++i) {
    const double exp2 = std::exp2(double{values[i]}), reciprocal = 1 / double{values[i]};
    EXPECT_NEAR(got[2 * i], exp2, std::fabs(exp2) * 0x1p-21, "exp2 of " + std::to_string(values[i]));
    EXPECT_NEAR(got[2 * i + 1], reciprocal, std::fabs(reciprocal) * 0x1p-22, "1 / " + std::to_string(values[i]));
  }
}

__global__ void ExtremeKernel(float* out) {
  out[0] = ptx::Exp2(-INFINITY);
  out[1] = ptx::Exp2(0.0f);
  out[2] = ptx::Exp2(-300.0f);
  out[3] = ptx::Reciprocal(INFINITY);
}

KERNEL_TEST("ptx: exp2 of minus infinity is zero, of zero one") {
  DeviceArray<float> out(4);
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(1)};
  EXPECT(Launch(ExtremeKernel, shape, out.data()) == cudaSuccess);
  const std::vector<float> got = out.Download();
  EXPECT(got[0] == 0.0f) << got[0];
  EXPECT(got[1] == 1.0f) << got[1];
  EXPECT(got[2] == 0.0f) << got[2];
  EXPECT(got[3] == 0.0f) << got[3];
}

}  // namespace
}  // namespace millrace::cuda
