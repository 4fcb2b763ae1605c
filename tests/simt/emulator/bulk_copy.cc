// SPDX-License-Identifier: Apache-2.0
// Bulk and tensor copies: issued by a thread, carried out by nobody in particular, told to a barrier.
#include <simt_ptx_barrier.h>

#include <cstring>

#include "tests/simt/emulator/block.h"
#include "tests/simt/emulator/faults.h"

namespace simt {
namespace {

constexpr uint32_t kPieceBytes = 16;

struct Piece {
  char* shared;
  const char* global;  // null: zeros
  uint32_t num_bytes;  // from global; the rest of 16 is zeros
};
struct BulkCopy {
  std::vector<Piece> pieces;
  int rank;  // of the block whose barrier it is
  uint64_t* barrier;
};
std::vector<BulkCopy>& Pending() {
  static std::vector<BulkCopy> copies;
  return copies;
}

bool IsAligned(const void* address, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

void Issue(BulkCopy copy) {
  AddBarrierBytes(copy.rank, copy.barrier, 0);
  for (const Piece& piece : copy.pieces) {
    // It may be read from here on, whoever runs when it lands.
    if (piece.global != nullptr) CheckDeviceAccess(piece.global, piece.num_bytes, Access::kRead, nullptr);
    BeginAgentCopy(piece.shared, kPieceBytes);
  }
  ++TheBlock().time;
  Pending().push_back(std::move(copy));
  if (IsSeeded() && Random(TheBlock()) % 8 == 0) LandBulkCopy();
}

const SimtTensorMap& Decode(const CUtensorMap& map) { return *reinterpret_cast<const SimtTensorMap*>(map.opaque); }
static_assert(sizeof(SimtTensorMap) <= sizeof(CUtensorMap));

// What a box at (x, y) brings to the block's memory from address `first` on.
std::vector<Piece> BoxOf(const SimtTensorMap& map, int rank, uint32_t first, int x, int y) {
  std::vector<Piece> pieces;
  for (uint32_t row = 0; row < map.box_rows; ++row) {
    for (uint32_t byte = 0; byte < map.box_bytes; byte += kPieceBytes) {
      uint32_t address = first + row * map.box_bytes + byte;
      if (map.swizzle == CU_TENSOR_MAP_SWIZZLE_128B) address ^= (address >> 7 & 7) << 4;
      char* to = static_cast<char*>(SharedPointerOf(rank, address, kPieceBytes));
      if (to == nullptr) Fail("copies a tensor's box to what is not the block's shared memory");
      const int64_t from_x = int64_t{x} + byte, from_y = int64_t{y} + row;
      const bool is_inside = from_x >= 0 && from_y >= 0 && from_x < static_cast<int64_t>(map.row_bytes) &&
                             from_y < static_cast<int64_t>(map.num_rows);
      const uint64_t left = is_inside ? map.row_bytes - static_cast<uint64_t>(from_x) : 0;
      pieces.push_back({to, is_inside ? map.data + from_y * static_cast<int64_t>(map.stride_bytes) + from_x : nullptr,
                        static_cast<uint32_t>(left < kPieceBytes ? left : kPieceBytes)});
    }
  }
  return pieces;
}

}  // namespace

void BeginBulkCopies() { Pending().clear(); }

bool LandBulkCopy() {
  std::vector<BulkCopy>& pending = Pending();
  if (pending.empty()) return false;
  const size_t chosen = IsSeeded() ? Random(TheBlock()) % pending.size() : 0;
  const BulkCopy copy = std::move(pending[chosen]);
  pending.erase(pending.begin() + static_cast<ptrdiff_t>(chosen));
  for (const Piece& piece : copy.pieces) {
    EndAgentCopy(piece.shared, piece.global, piece.global != nullptr ? piece.num_bytes : kPieceBytes);
    if (piece.global != nullptr && piece.num_bytes < kPieceBytes) {
      EndAgentCopy(piece.shared + piece.num_bytes, nullptr, kPieceBytes - piece.num_bytes);
    }
  }
  AddBarrierBytes(copy.rank, copy.barrier, static_cast<int64_t>(copy.pieces.size() * kPieceBytes));
  return true;
}

void CopyBulk(void* shared, const void* global, uint32_t num_bytes, uint64_t* barrier) {
  if (!IsAligned(shared, kPieceBytes) || !IsAligned(global, kPieceBytes) || num_bytes % kPieceBytes != 0) {
    Fail("copies in bulk what is not aligned to 16 bytes");
  }
  BulkCopy copy = {.rank = TheBlock().running->rank, .barrier = barrier};
  for (uint32_t at = 0; at < num_bytes; at += kPieceBytes) {
    copy.pieces.push_back({static_cast<char*>(shared) + at, static_cast<const char*>(global) + at, kPieceBytes});
  }
  Issue(std::move(copy));
}

void CopyTensor(void* shared, const CUtensorMap& encoded, int x, int y, uint64_t* barrier) {
  CopyTensorTo(1u << TheBlock().running->rank, shared, encoded, x, y, barrier);
}

// The swizzle goes by the address in shared memory, as the map's encoder documents it. To each block on its own.
void CopyTensorTo(uint32_t ranks, void* shared, const CUtensorMap& encoded, int x, int y, uint64_t* barrier) {
  const SimtTensorMap& map = Decode(encoded);
  const uint32_t first = AddressOf(shared);
  if (first % 128 != 0) Fail("copies a tensor's box to memory that is not aligned to 128 bytes");
  if (IsFaulty({"TensorCopy", 0, map.data}, FaultKind::kNextBox)) y += static_cast<int>(map.box_rows);
  for (uint32_t rest = ranks; rest != 0; rest &= rest - 1) {
    const int rank = __builtin_ctz(rest);
    CheckRank(rank);
    Issue({.pieces = BoxOf(map, rank, first, x, y), .rank = rank, .barrier = barrier});
  }
}

}  // namespace simt

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* data,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* element_strides, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  constexpr cuuint32_t kMostBoxElements = 256;
  if (rank != 2 || reinterpret_cast<uintptr_t>(data) % 16 != 0 || strides[0] % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  if (strides[0] < sizes[0] || sizes[0] == 0 || sizes[1] == 0) return CUDA_ERROR_INVALID_VALUE;
  if (box[0] == 0 || box[1] == 0 || box[0] > kMostBoxElements || box[1] > kMostBoxElements || box[0] % 16 != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] > 128) return CUDA_ERROR_INVALID_VALUE;
  if (element_strides[0] != 1 || element_strides[1] != 1) return CUDA_ERROR_INVALID_VALUE;
  const SimtTensorMap plain = {static_cast<const char*>(data), sizes[0], sizes[1], strides[0], box[0], box[1], swizzle};
  *map = CUtensorMap();
  std::memcpy(map->opaque, &plain, sizeof(plain));
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned int, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool is_known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = is_known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  *result = is_known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
