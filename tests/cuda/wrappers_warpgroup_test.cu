// SPDX-License-Identifier: Apache-2.0
// The wrappers of ptx_barrier.h and ptx_wgmma.h against tests/simt/reference_wgmma.h, as wrappers_conformance_test.cu
// does for those of ptx.h. Run first on a GPU: descriptors, swizzles and the order of sums rest on our reading of the
// manual until then. Needs sm_90a.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/common/launch.h"
#include "kernels/cuda/common/ptx_wgmma.h"
#include "kernels/cuda/tensor_map.h"
#include "tests/cuda/harness.h"
#include "tests/simt/reference_wgmma.h"

namespace millrace::cuda {
namespace {

using cuda_test::DeviceArray;
using cuda_test::Random;
using ptx::MatrixOrder;
using ptx::Swizzle;
namespace reference = simt::reference;

constexpr int kThreads = 128;
constexpr int kSharedBytes = 48 * 1024;

bool IsHopper() {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  return major == 9;
}

// Offsets from a multiple of 1024 bytes.
struct Operand {
  Swizzle swizzle = Swizzle::k128;
  uint32_t start = 0, leading_bytes = 16, stride_bytes = 1024;
};
enum class Kind { kS8, kBf16, kF16, kBf16Registers, kF16Registers };

template <Kind kKind, int kColumns, MatrixOrder kOrder, typename D>
__global__ void __launch_bounds__(kThreads)
    ProductKernel(const uint4* bytes, const uint32_t* a_registers, Operand a, Operand b, D* d_in_out) {
  unsigned char* shared = ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>());
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kSharedBytes / 16; i += kThreads) reinterpret_cast<uint4*>(shared)[i] = bytes[i];
  ptx::FenceAsyncProxy();
  __syncthreads();  // the operands are there
  D d[kColumns / 8][4];
  for (int j = 0; j < kColumns / 8; ++j) {
    for (int r = 0; r < 4; ++r) d[j][r] = d_in_out[(thread * kColumns / 8 + j) * 4 + r];
  }
  const uint32_t registers[4] = {a_registers[4 * thread], a_registers[4 * thread + 1], a_registers[4 * thread + 2],
                                 a_registers[4 * thread + 3]};
  const uint64_t a_place = ptx::MatrixDescriptor(shared + a.start, a.swizzle, a.leading_bytes, a.stride_bytes);
  const uint64_t b_place = ptx::MatrixDescriptor(shared + b.start, b.swizzle, b.leading_bytes, b.stride_bytes);
  ptx::WgmmaFence();
  if constexpr (kKind == Kind::kS8) ptx::WgmmaS8(d, a_place, b_place, true);
  if constexpr (kKind == Kind::kBf16) ptx::WgmmaBf16(d, a_place, b_place, true);
  if constexpr (kKind == Kind::kF16) ptx::WgmmaF16(d, a_place, b_place, true);
  if constexpr (kKind == Kind::kBf16Registers) ptx::WgmmaBf16<kOrder>(d, registers, b_place, true);
  if constexpr (kKind == Kind::kF16Registers) ptx::WgmmaF16<kOrder>(d, registers, b_place, true);
  ptx::WgmmaCommit();
  ptx::WgmmaWait<0>();
  for (int j = 0; j < kColumns / 8; ++j) {
    for (int r = 0; r < 4; ++r) d_in_out[(thread * kColumns / 8 + j) * 4 + r] = d[j][r];
  }
}

template <Kind kKind>
double Decode(const unsigned char* bytes, int index) {
  if constexpr (kKind == Kind::kS8) return static_cast<int8_t>(bytes[index]);
  uint16_t bits;
  std::memcpy(&bits, bytes + 2 * index, sizeof(bits));
  constexpr bool kIsBf16 = kKind == Kind::kBf16 || kKind == Kind::kBf16Registers;
  return kIsBf16 ? cuda_test::FloatFromBf16(bits) : cuda_test::FloatFromHalf(bits);
}

// Random numbers of the kind, that no sum of theirs overflows.
template <Kind kKind>
std::vector<unsigned char> RandomBytes(Random& random, size_t count) {
  std::vector<unsigned char> bytes(count);
  for (size_t i = 0; i < count; i += 2) {
    const float value = random.Float(-2, 2);
    uint16_t bits = static_cast<uint16_t>(random.Bits());
    if (kKind == Kind::kBf16 || kKind == Kind::kBf16Registers) bits = cuda_test::Bf16FromFloat(value);
    if (kKind == Kind::kF16 || kKind == Kind::kF16Registers) bits = cuda_test::HalfFromFloat(value);
    std::memcpy(&bytes[i], &bits, sizeof(bits));
  }
  return bytes;
}

template <Kind kKind>
std::vector<double> Rows(const std::vector<unsigned char>& bytes, const Operand& operand, MatrixOrder order,
                         int count) {
  constexpr int kK = kKind == Kind::kS8 ? 32 : 16;
  const reference::MatrixPlace place =
      reference::DecodeMatrix(static_cast<uint64_t>(operand.swizzle) << 62 | uint64_t{operand.start >> 4} |
                              uint64_t{operand.leading_bytes >> 4} << 16 | uint64_t{operand.stride_bytes >> 4} << 32);
  std::vector<double> rows(static_cast<size_t>(count) * kK);
  for (int row = 0; row < count; ++row) {
    for (int k = 0; k < kK; ++k) {
      const bool is_along = order == MatrixOrder::kAlongK;
      const uint32_t at =
          is_along ? reference::AddressAlongK(place, row, k / (kK / 2)) : reference::AddressAcrossK(place, k, row / 8);
      rows[static_cast<size_t>(row) * kK + k] = Decode<kKind>(&bytes[at], is_along ? k % (kK / 2) : row % 8);
    }
  }
  return rows;
}

template <Kind kKind, int kColumns, MatrixOrder kOrder = MatrixOrder::kAlongK>
void CheckProduct(const Operand& a, const Operand& b, const std::string& what) {
  using D = std::conditional_t<kKind == Kind::kS8, int32_t, float>;
  constexpr int kK = kKind == Kind::kS8 ? 32 : 16;
  constexpr bool kHasRegisters = kKind == Kind::kBf16Registers || kKind == Kind::kF16Registers;
  Random random(11);
  const std::vector<unsigned char> bytes = RandomBytes<kKind>(random, kSharedBytes);
  const std::vector<unsigned char> a_bytes = RandomBytes<kKind>(random, size_t{kThreads} * 16);
  std::vector<D> sums(size_t{kThreads} * kColumns / 2);
  for (D& sum : sums) sum = static_cast<D>(random.Int(-9, 9));
  DeviceArray<unsigned char> shared(bytes), registers(a_bytes);
  DeviceArray<D> d(sums);
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(kThreads), .shared_bytes = kSharedBytes + 1024};
  EXPECT(Launch(ProductKernel<kKind, kColumns, kOrder, D>, shape, reinterpret_cast<const uint4*>(shared.data()),
                reinterpret_cast<const uint32_t*>(registers.data()), a, b, d.data()) == cudaSuccess)
      << what;
  std::vector<double> a_rows(size_t{64} * kK);
  if constexpr (kHasRegisters) {
    for (int i = 0; i < kThreads * 8; ++i) {
      const int thread = i / 8, r = i / 2 % 4;
      a_rows[static_cast<size_t>(reference::OperandRow(thread, r)) * kK + reference::OperandK(thread, r, i % 2)] =
          Decode<kKind>(a_bytes.data(), i);
    }
  } else {
    a_rows = Rows<kKind>(bytes, a, MatrixOrder::kAlongK, 64);
  }
  std::vector<double> product(size_t{64} * kColumns);
  const std::vector<double> b_rows = Rows<kKind>(bytes, b, kOrder, kColumns);
  reference::MultiplyRows<double>(a_rows.data(), b_rows.data(), kColumns, kK, [&](int row, int column, double sum) {
    product[static_cast<size_t>(row) * kColumns + column] = sum;
  });
  const std::vector<D> got = d.Download();
  for (size_t i = 0; i < got.size(); ++i) {
    const int thread = static_cast<int>(i / (kColumns / 2)), within = static_cast<int>(i % (kColumns / 2));
    const size_t row = static_cast<size_t>(reference::SumRow(thread, within % 4));
    const size_t column = static_cast<size_t>(reference::SumColumn(thread, within / 4, within % 4));
    // 16 products below 4, sums in float: far below this.
    EXPECT_NEAR(static_cast<double>(got[i]), static_cast<double>(sums[i]) + product[row * kColumns + column],
                kKind == Kind::kS8 ? 0 : 1e-4, what + " sum " + std::to_string(i));
  }
}

// B behind A's 64 rows; of every swizzle, and from the second 32 bytes of a row on.
template <Kind kKind, int kColumns>
void CheckAlongK(const std::string& what) {
  for (const auto& [swizzle, width] :
       std::vector<std::pair<Swizzle, uint32_t>>{{Swizzle::k128, 128}, {Swizzle::k64, 64}, {Swizzle::k32, 32}}) {
    for (uint32_t start = 0; start < width; start += 32) {
      const Operand a = {swizzle, start, 16, 8 * width}, b = {swizzle, 8192 + start, 16, 8 * width};
      CheckProduct<kKind, kColumns>(a, b, what + " swizzle " + std::to_string(width) + "+" + std::to_string(start));
    }
  }
  CheckProduct<kKind, kColumns>({Swizzle::kNone, 0, 128, 256}, {Swizzle::kNone, 8192, 4096, 128}, what + " no swizzle");
}

KERNEL_TEST("wgmma: operands in shared memory, along k, in every swizzle") {
  if (!IsHopper()) return;
  CheckAlongK<Kind::kS8, 128>("s8 n128");
  CheckAlongK<Kind::kBf16, 128>("bf16 n128");
  CheckAlongK<Kind::kF16, 128>("f16 n128");
  CheckAlongK<Kind::kBf16Registers, 64>("bf16 registers n64");
  CheckAlongK<Kind::kBf16Registers, 128>("bf16 registers n128");
  CheckAlongK<Kind::kF16Registers, 64>("f16 registers n64");
  CheckAlongK<Kind::kF16Registers, 128>("f16 registers n128");
}

template <Kind kKind, int... kColumns>
void CheckColumns(const std::string& what) {
  const Operand a = {}, b = {.start = 8192};
  (CheckProduct<kKind, kColumns>(a, b, what + " n" + std::to_string(kColumns)), ...);
}

KERNEL_TEST("wgmma: every number of columns") {
  if (!IsHopper()) return;
  CheckColumns<Kind::kS8, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256>("s8");
  CheckColumns<Kind::kBf16Registers, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256>(
      "bf16 registers");
}

template <Kind kKind, int kColumns>
void CheckAcrossK(const std::string& what) {
  for (const auto& [swizzle, width] :
       std::vector<std::pair<Swizzle, uint32_t>>{{Swizzle::k128, 128}, {Swizzle::k64, 64}, {Swizzle::k32, 32}}) {
    const Operand b = {swizzle, 4096, 4096, 8 * width};
    CheckProduct<kKind, kColumns, MatrixOrder::kAcrossK>({}, b, what + " swizzle " + std::to_string(width));
  }
  CheckProduct<kKind, kColumns, MatrixOrder::kAcrossK>({}, {Swizzle::kNone, 0, 4096, 128}, what + " no swizzle");
}

KERNEL_TEST("wgmma: operand B across k") {
  if (!IsHopper()) return;
  CheckAcrossK<Kind::kBf16Registers, 64>("bf16 n64");
  CheckAcrossK<Kind::kBf16Registers, 128>("bf16 n128");
  CheckAcrossK<Kind::kF16Registers, 64>("f16 n64");
  CheckAcrossK<Kind::kF16Registers, 128>("f16 n128");
}

constexpr int kBoxRows = 32;
// A box at (x, y) into shared memory and out as it lies, then 256 bytes behind it by a bulk copy.
template <uint32_t kBoxBytes>
__global__ void CopyKernel(const __grid_constant__ CUtensorMap map, int x, int y, const uint4* plain, uint4* out) {
  __shared__ ptx::Mbarrier barrier;
  auto* shared = reinterpret_cast<uint4*>(ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>()));
  constexpr int kUnits = kBoxRows * static_cast<int>(kBoxBytes) / 16;
  if (threadIdx.x == 0) {
    ptx::MbarrierInit(&barrier, 1);
    ptx::MbarrierInitFence();
    ptx::PrefetchTensorMap(&map);
    ptx::MbarrierArriveExpect(&barrier, (kUnits + 16) * 16);
    ptx::TensorCopy(shared, &map, x, y, &barrier);
    ptx::BulkCopy(shared + kUnits, plain, 256, &barrier);
  }
  __syncthreads();  // the barrier is there
  ptx::MbarrierWait(&barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < kUnits + 16; i += kThreads) out[i] = shared[i];
}

template <uint32_t kBoxBytes>
void CheckBoxes() {
  constexpr int kRows = 50, kRowBytes = 200, kStride = 208;
  Random random(5);
  const std::vector<unsigned char> matrix = RandomBytes<Kind::kS8>(random, size_t{kRows} * kStride);
  DeviceArray<unsigned char> device(matrix), plain(RandomBytes<Kind::kS8>(random, 256));
  CUtensorMap map;
  EXPECT(MakeTensorMap({device.data(), kRowBytes, kRows, kStride, kBoxRows, kBoxBytes}, map) == cudaSuccess);
  for (const auto& [x, y] : std::vector<std::pair<int, int>>{{0, 0}, {128, 0}, {16, 30}, {0, 64}}) {
    DeviceArray<unsigned char> out(size_t{kBoxRows} * kBoxBytes + 256);
    const LaunchShape shape = {.grid = dim3(1), .block = dim3(kThreads), .shared_bytes = out.num_bytes() + 1024};
    EXPECT(Launch(CopyKernel<kBoxBytes>, shape, map, x, y, reinterpret_cast<const uint4*>(plain.data()),
                  reinterpret_cast<uint4*>(out.data())) == cudaSuccess);
    const std::vector<unsigned char> got = out.Download();
    for (uint32_t at = 0; at < kBoxRows * kBoxBytes; ++at) {
      const int row = y + static_cast<int>(at / kBoxBytes), column = x + static_cast<int>(at % kBoxBytes);
      const bool is_inside = row < kRows && column < kRowBytes;
      const unsigned char want =
          is_inside ? matrix[static_cast<size_t>(row) * kStride + static_cast<size_t>(column)] : 0;
      const uint32_t place = kBoxBytes == kTensorBoxBytes ? reference::SwizzledAddress(at, 3) : at;
      EXPECT(got[place] == want) << "box of" << kBoxBytes << "at" << x << y << "byte" << at;
    }
    const std::vector<unsigned char> tail(got.end() - 256, got.end());
    EXPECT(tail == plain.Download());
  }
  EXPECT(MakeTensorMap({device.data() + 1, kRowBytes, 10, kStride, kBoxRows}, map) == cudaErrorInvalidValue);
}

// Blocks of a cluster whose ranks are kStride apart are a group, with boxes of its own. Each brings its part of a box's
// rows to all of the group, twice through one stage: the second time when all have said that they are done with the
// first. out [blocks][rounds][kBoxRows][kTensorBoxBytes].
constexpr int kRounds = 2;
template <int kClusterBlocks, int kStride>
__global__ void ClusterCopyKernel(const __grid_constant__ CUtensorMap map, uint4* out) {
  __shared__ ptx::Mbarrier full, empty;
  auto* shared = reinterpret_cast<uint4*>(ptx::AlignShared<1024>(ptx::SharedMemory<unsigned char>()));
  constexpr int kUnits = kBoxRows * static_cast<int>(kTensorBoxBytes) / 16;
  constexpr int kGroupBlocks = kClusterBlocks / kStride, kPartRows = kBoxRows / kGroupBlocks;
  const int rank = static_cast<int>(blockIdx.x) % kClusterBlocks;
  const int group = rank % kStride, part = rank / kStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    ptx::MbarrierInit(&full, 1);
    ptx::MbarrierInit(&empty, kThreads / 32 * kGroupBlocks);
    ptx::MbarrierInitFence();
  }
  ptx::ClusterSync();
  for (int round = 0; round < kRounds; ++round) {
    if (threadIdx.x == 0) {
      uint32_t ranks = 0;
      for (int i = 0; i < kGroupBlocks; ++i) ranks |= 1u << (i * kStride + group);
      ptx::MbarrierWait(&empty, static_cast<uint32_t>(round) % 2 ^ 1);
      ptx::MbarrierArriveExpect(&full, kUnits * 16);
      ptx::TensorCopyTo(ranks, shared + part * kPartRows * static_cast<int>(kTensorBoxBytes) / 16, &map, 0,
                        (round * kStride + group) * kBoxRows + part * kPartRows, &full);
    }
    ptx::MbarrierWait(&full, static_cast<uint32_t>(round) % 2);
    uint4* const place = out + (static_cast<int>(blockIdx.x) * kRounds + round) * kUnits;
    for (int i = static_cast<int>(threadIdx.x); i < kUnits; i += kThreads) place[i] = shared[i];
    __syncwarp();
    if (lane < kGroupBlocks) ptx::MbarrierArriveOf(lane * kStride + group, &empty);
  }
  ptx::ClusterSync();
}

template <int kClusterBlocks, int kStride = 1>
void CheckClusterCopies() {
  constexpr int kRows = kRounds * kStride * kBoxRows, kBlocks = 2 * kClusterBlocks;
  constexpr size_t kBoxBytes = size_t{kBoxRows} * kTensorBoxBytes;
  Random random(6);
  const std::vector<unsigned char> matrix = RandomBytes<Kind::kS8>(random, size_t{kRows} * kTensorBoxBytes);
  DeviceArray<unsigned char> device(matrix), out(kBlocks * kRounds * kBoxBytes);
  CUtensorMap map;
  EXPECT(MakeTensorMap({device.data(), kTensorBoxBytes, kRows, kTensorBoxBytes, kBoxRows * kStride / kClusterBlocks},
                       map) == cudaSuccess);
  const LaunchShape shape = {.grid = dim3(kBlocks),
                             .block = dim3(kThreads),
                             .shared_bytes = kBoxBytes + 1024,
                             .cluster_blocks = kClusterBlocks};
  EXPECT(Launch(ClusterCopyKernel<kClusterBlocks, kStride>, shape, map, reinterpret_cast<uint4*>(out.data())) ==
         cudaSuccess);
  const std::vector<unsigned char> got = out.Download();
  for (size_t at = 0; at < got.size(); ++at) {
    const auto in_box = static_cast<uint32_t>(at % kBoxBytes);
    const size_t box = at / kBoxBytes, group = box / kRounds % kClusterBlocks % kStride;
    const size_t from = (box % kRounds * kStride + group) * kBoxBytes + in_box;
    EXPECT(got[box * kBoxBytes + reference::SwizzledAddress(in_box, 3)] == matrix[from]) << "byte" << at;
  }
}

KERNEL_TEST("clusters: a box comes to both blocks, and either waits until both are done with the one before") {
  if (IsHopper()) CheckClusterCopies<2>();
}

KERNEL_TEST("clusters: a box comes to all four blocks, and each waits until all are done with the one before") {
  if (IsHopper()) CheckClusterCopies<4>();
}

KERNEL_TEST("clusters: a box comes to every second of four blocks, another to the others") {
  if (IsHopper()) CheckClusterCopies<4, 2>();
}

KERNEL_TEST("tensor copies: boxes inside and over the edges, swizzled or not, with zeros outside; bulk copies behind") {
  if (!IsHopper()) return;
  CheckBoxes<kTensorBoxBytes>();
  CheckBoxes<16>();
  CheckBoxes<32>();
  CheckBoxes<64>();
  CheckBoxes<256>();
}

// Two warps pass numbers to each other over many phases, with barriers of both kinds.
__global__ void PassKernel(int* out, int num_phases) {
  __shared__ ptx::Mbarrier full, empty;
  __shared__ int number[32];
  if (threadIdx.x == 0) {
    ptx::MbarrierInit(&full, 32);
    ptx::MbarrierInit(&empty, 32);
    ptx::MbarrierInitFence();
  }
  __syncthreads();  // the barriers are there
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int sum = 0;
  for (int phase = 0; phase < num_phases; ++phase) {
    if (threadIdx.x < 32) {
      ptx::MbarrierWait(&empty, phase % 2 ^ 1);
      number[lane] = phase * lane;
      ptx::MbarrierArrive(&full);
    } else {
      ptx::MbarrierWait(&full, phase % 2);
      sum += number[31 - lane];
      ptx::MbarrierArrive(&empty);
    }
  }
  if (threadIdx.x < 32) {
    ptx::NamedBarrierWait(3, 64);
    out[lane] = number[lane];
  } else {
    __syncwarp();  // all have read the last number
    number[lane] = sum;
    ptx::NamedBarrierArrive(3, 64);
  }
}

KERNEL_TEST("barriers: phases hand numbers over, named barriers as well") {
  if (!IsHopper()) return;
  constexpr int kPhases = 9;
  DeviceArray<int> out(32);
  const LaunchShape shape = {.grid = dim3(1), .block = dim3(64)};
  EXPECT(Launch(PassKernel, shape, out.data(), kPhases) == cudaSuccess);
  const std::vector<int> got = out.Download();
  for (int lane = 0; lane < 32; ++lane) EXPECT(got[lane] == (31 - lane) * kPhases * (kPhases - 1) / 2) << lane;
}

}  // namespace
}  // namespace millrace::cuda
