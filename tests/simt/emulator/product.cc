// SPDX-License-Identifier: Apache-2.0
// Products of warpgroups. They are computed when the first wait that covers them is called, or, by the seed, earlier;
// their sums come when the warp itself waits, and until then its registers hold NaN.
#include <cstring>
#include <deque>
#include <memory>

#include "kernels/cuda/common/ptx_wgmma.h"
#include "tests/simt/emulator/block.h"
#include "tests/simt/emulator/faults.h"
#include "tests/simt/reference_wgmma.h"

namespace simt {
namespace {

constexpr int kGroupWarps = kWarpgroupThreads / kWarpLanes;
constexpr int kMaxGroups = kMaxBlockThreads / kWarpgroupThreads;
constexpr int kMostColumns = 256;

// The sums of one array of registers while products add to it.
struct Sums {
  void* registers[kWarpgroupThreads];
  int num_columns = 0;
  bool is_integer = false;
  std::vector<uint32_t> bits;         // [thread][columns / 2]
  int num_pending[kGroupWarps] = {};  // products that the warp has not waited for

  size_t NumBytes() const { return static_cast<size_t>(num_columns) / 2 * sizeof(uint32_t); }
  uint32_t* Of(int thread) { return bits.data() + static_cast<size_t>(thread) * static_cast<size_t>(num_columns) / 2; }
};

struct Product {
  ProductArgument arguments[kWarpgroupThreads];
  uint32_t a[kWarpgroupThreads][4];
  std::shared_ptr<Sums> sums;
  uint32_t id;
  bool is_computed = false;
  uint32_t group[kGroupWarps];  // of the warp's commits
  bool is_waited[kGroupWarps] = {};
};

struct Group {
  std::vector<Thread*> waiting;
  const ProductArgument* arriving[kWarpgroupThreads] = {};
  std::deque<Product> products;  // those some warp has not waited for, in order
  uint32_t num_commits[kGroupWarps] = {};
  bool is_fenced[kGroupWarps] = {};
};

struct Read {  // when each warp had waited for a product; 0: not yet
  int first_thread;
  uint32_t time[kGroupWarps];
};
struct Products {
  Group groups[kMaxGroups];
  std::vector<Read> reads;  // by id - 1
};
Products& TheProducts() {
  static Products products;
  return products;
}

int Running() { return TheBlock().running->number; }
Group& MyGroup() { return TheProducts().groups[Running() / kWarpgroupThreads]; }
int MyWarp() { return Running() % kWarpgroupThreads / kWarpLanes; }

void* Piece(uint32_t address) {
  void* shared = SharedPointer(address, 16);
  if (shared == nullptr) Fail("a product's descriptor leads outside shared memory");
  return shared;
}

// Calls act(row or k, piece or tile, 16 bytes) for all of an operand in shared memory.
template <typename Act>
void ForEachPiece(uint64_t descriptor, bool is_across_k, int count, Act&& act) {
  const reference::MatrixPlace place = reference::DecodeMatrix(descriptor);
  if (place.has_base_offset) Fail("a product's descriptor has a base offset, which is not emulated");
  if (is_across_k) {
    for (int k = 0; k < 16; ++k) {
      for (int tile = 0; tile < count / 8; ++tile) act(k, tile, Piece(reference::AddressAcrossK(place, k, tile)));
    }
    return;
  }
  for (int row = 0; row < count; ++row) {
    for (int piece = 0; piece < 2; ++piece) act(row, piece, Piece(reference::AddressAlongK(place, row, piece)));
  }
}

template <typename Element>
Element Decode(ProductType type, const void* bytes, int index) {
  if (type == ProductType::kS8) return static_cast<Element>(static_cast<const int8_t*>(bytes)[index]);
  uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(bytes) + 2 * index, sizeof(bits));
  return static_cast<Element>(type == ProductType::kBf16 ? reference::FloatOfBf16(bits) : reference::FloatOfHalf(bits));
}

// Element [row][k] of an operand.
template <typename Element>
std::vector<Element> Gather(ProductType type, uint64_t descriptor, bool is_across_k, int count) {
  const int k_count = type == ProductType::kS8 ? 32 : 16, piece_elements = k_count / 2;
  std::vector<Element> rows(static_cast<size_t>(count * k_count));
  ForEachPiece(descriptor, is_across_k, count, [&](int i, int j, const void* bytes) {
    for (int e = 0; e < piece_elements; ++e) {
      const int row = is_across_k ? 8 * j + e : i, k = is_across_k ? i : j * piece_elements + e;
      rows[static_cast<size_t>(row * k_count + k)] = Decode<Element>(type, bytes, e);
    }
  });
  return rows;
}

template <typename Element>
std::vector<Element> GatherRegisters(const Product& product) {
  std::vector<Element> rows(64 * 16);
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    for (int r = 0; r < 4; ++r) {
      for (int half = 0; half < 2; ++half) {
        const size_t at =
            static_cast<size_t>(reference::OperandRow(thread, r) * 16 + reference::OperandK(thread, r, half));
        rows[at] = Decode<Element>(product.arguments[0].type, &product.a[thread][r], half);
      }
    }
  }
  return rows;
}

// Sum: what products are added up in; D: what a register holds.
template <typename Sum, typename D, typename Element>
void Compute(Product& product) {
  const ProductArgument& any = product.arguments[0];
  const int columns = any.num_columns, k = any.type == ProductType::kS8 ? 32 : 16;
  const std::vector<Element> a =
      any.a != nullptr ? GatherRegisters<Element>(product) : Gather<Element>(any.type, any.a_descriptor, false, 64);
  const std::vector<Element> b = Gather<Element>(any.type, any.b_descriptor, any.is_b_across_k, columns);
  std::vector<Sum> out(static_cast<size_t>(64 * columns));
  reference::MultiplyRows<Sum>(a.data(), b.data(), columns, k, [&](int row, int column, Sum sum) {
    out[static_cast<size_t>(row * columns + column)] = sum;
  });
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    uint32_t* bits = product.sums->Of(thread);
    for (int i = 0; i < columns / 2; ++i) {
      const int row = reference::SumRow(thread, i % 4), column = reference::SumColumn(thread, i / 4, i % 4);
      D d = 0;
      if (any.adds) std::memcpy(&d, &bits[i], sizeof(d));
      d = static_cast<D>(static_cast<Sum>(d) + out[static_cast<size_t>(row * columns + column)]);
      std::memcpy(&bits[i], &d, sizeof(d));
    }
  }
}

void ComputeUpTo(Group& group, const Product& last) {
  for (Product& product : group.products) {
    if (!product.is_computed) {
      product.is_computed = true;
      if (product.arguments[0].type == ProductType::kS8) {
        Compute<int32_t, int32_t, int8_t>(product);
      } else {
        Compute<double, float, float>(product);
      }
    }
    if (&product == &last) return;
  }
}

bool IsPoison(const void* bytes, size_t num_bytes) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  return at[0] == 0xff && std::memcmp(at, at + 1, num_bytes - 1) == 0;
}

// The sums that warp `warp` of the new product adds to, if products it has not waited for do as well.
std::shared_ptr<Sums> PendingSums(const Group& group, int warp, const void* registers) {
  for (auto product = group.products.rbegin(); product != group.products.rend(); ++product) {
    if (!product->is_waited[warp] && product->sums->registers[warp * kWarpLanes] == registers) return product->sums;
  }
  return nullptr;
}

void CheckAlike(const Group& group) {
  const ProductArgument& first = *group.arriving[0];
  for (int i = 1; i < kWarpgroupThreads; ++i) {
    const ProductArgument& other = *group.arriving[i];
    if (other.type != first.type || other.num_columns != first.num_columns || other.adds != first.adds ||
        other.b_descriptor != first.b_descriptor || other.is_b_across_k != first.is_b_across_k ||
        (other.a == nullptr) != (first.a == nullptr) ||
        (first.a == nullptr && other.a_descriptor != first.a_descriptor)) {
      Fail("the threads of a warpgroup do not agree on a product");
    }
  }
}

// Registers are the products' from here on.
std::shared_ptr<Sums> TakeSums(Group& group) {
  const ProductArgument& first = *group.arriving[0];
  std::shared_ptr<Sums> sums = PendingSums(group, 0, first.d);
  for (int warp = 1; warp < kGroupWarps; ++warp) {
    if (PendingSums(group, warp, group.arriving[warp * kWarpLanes]->d) != sums) {
      Fail("adds to sums that some warps have waited for and others not");
    }
  }
  if (sums != nullptr) {
    for (int i = 0; i < kWarpgroupThreads; ++i) {
      if (group.arriving[i]->d != sums->registers[i] || sums->num_columns != first.num_columns ||
          !IsPoison(sums->registers[i], sums->NumBytes())) {
        Fail("sums of a product were touched before it was waited for");
      }
    }
    return sums;
  }
  sums = std::make_shared<Sums>();
  sums->num_columns = first.num_columns;
  sums->bits.resize(static_cast<size_t>(kWarpgroupThreads * first.num_columns / 2));
  for (int i = 0; i < kWarpgroupThreads; ++i) {
    if (!group.is_fenced[i / kWarpLanes]) Fail("a product takes registers with no WgmmaFence before it");
    sums->registers[i] = group.arriving[i]->d;
    std::memcpy(sums->Of(i), sums->registers[i], sums->NumBytes());
    std::memset(sums->registers[i], 0xff, sums->NumBytes());
  }
  return sums;
}

void IssueProduct(Group& group) {
  CheckAlike(group);
  Product product;
  product.sums = TakeSums(group);
  TheProducts().reads.push_back({Running() / kWarpgroupThreads * kWarpgroupThreads, {}});
  product.id = static_cast<uint32_t>(TheProducts().reads.size());
  for (int i = 0; i < kWarpgroupThreads; ++i) {
    product.arguments[i] = *group.arriving[i];
    if (product.arguments[i].a == nullptr) continue;
    if (!group.is_fenced[i / kWarpLanes]) Fail("a product takes registers with no WgmmaFence before it");
    std::memcpy(product.a[i], product.arguments[i].a, sizeof(product.a[i]));
  }
  const ProductArgument& any = product.arguments[0];
  const auto read = [&](int, int, const void* bytes) { NoteProductRead(product.id, bytes, 16); };
  if (any.a == nullptr) ForEachPiece(any.a_descriptor, false, 64, read);
  ForEachPiece(any.b_descriptor, any.is_b_across_k, any.num_columns, read);
  for (int warp = 0; warp < kGroupWarps; ++warp) {
    product.group[warp] = group.num_commits[warp];
    ++product.sums->num_pending[warp];
  }
  group.products.push_back(std::move(product));
  if (IsSeeded() && Random(TheBlock()) % 4 == 0) ComputeUpTo(group, group.products.back());
}

// The running warp waits for a product: its reads are over, and with the last product of its sums these are there.
void EndProduct(Group& group, Product& product, int warp) {
  ComputeUpTo(group, product);
  product.is_waited[warp] = true;
  TheProducts().reads[product.id - 1].time[warp] = TheBlock().time;
  Sums& sums = *product.sums;
  if (--sums.num_pending[warp] > 0) return;
  for (int i = warp * kWarpLanes; i < (warp + 1) * kWarpLanes; ++i) {
    if (!IsPoison(sums.registers[i], sums.NumBytes())) Fail("sums of a product were touched before it was waited for");
    std::memcpy(sums.registers[i], sums.Of(i), sums.NumBytes());
  }
}

struct WaitArgument {
  int num_pending;
};
void ExecuteWait(const Lanes& lanes) {
  Group& group = MyGroup();
  const int warp = MyWarp(), num_pending = static_cast<WaitArgument*>(lanes.arguments[0])->num_pending;
  if (lanes.mask != kAllLanes) Fail("WgmmaWait with a warp of less than 32 lanes");
  ++TheBlock().time;
  for (Product& product : group.products) {
    const bool is_covered = int64_t{product.group[warp]} < int64_t{group.num_commits[warp]} - num_pending;
    if (is_covered && !product.is_waited[warp]) EndProduct(group, product, warp);
  }
  const auto is_over = [](const Product& product) {
    for (const bool is_waited : product.is_waited) {
      if (!is_waited) return false;
    }
    return true;
  };
  while (!group.products.empty() && is_over(group.products.front())) group.products.pop_front();
  group.is_fenced[warp] = false;
}
void ExecuteFence(const Lanes&) { MyGroup().is_fenced[MyWarp()] = true; }
void ExecuteCommit(const Lanes&) { ++MyGroup().num_commits[MyWarp()]; }

}  // namespace

void BeginProducts() {
  for (Group& group : TheProducts().groups) group = Group();
  TheProducts().reads.clear();
}

const char* ProductFault(uint32_t id, int now) {
  const Read& read = TheProducts().reads[id - 1];
  for (int warp = 0; warp < kGroupWarps; ++warp) {
    if (read.time[warp] == 0) return "reads and that has not been waited for";
    if (!IsOrdered(TheBlock(), read.time[warp], read.first_thread + warp * kWarpLanes, now)) {
      return "has read, with nothing between to order them";
    }
  }
  return nullptr;
}

bool HasPendingProducts(int warp) {
  for (const Product& product : TheProducts().groups[warp / kGroupWarps].products) {
    if (!product.is_waited[warp % kGroupWarps]) return true;
  }
  return false;
}

void FenceProducts(Where where) {
  if (IsFaulty({"WgmmaFence", where.line}, FaultKind::kSkipped)) return;
  MeetWarp("WgmmaFence", kAllLanes, nullptr, ExecuteFence, where);
}
void CommitProducts(Where where) { MeetWarp("WgmmaCommit", kAllLanes, nullptr, ExecuteCommit, where); }
void WaitProducts(int num_pending, Where where) {
  if (IsFaulty({"WgmmaWait", where.line}, FaultKind::kSkipped)) return;
  WaitArgument argument = {num_pending};
  MeetWarp("WgmmaWait", kAllLanes, &argument, ExecuteWait, where);
}

// The four warps come together, which orders nothing but the product.
void Multiply(const ProductArgument& argument, Where where) {
  Block& block = TheBlock();
  Group& group = MyGroup();
  if (argument.num_columns > kMostColumns) Fail("a product has at most 256 columns");
  group.arriving[Running() % kWarpgroupThreads] = &argument;
  if (static_cast<int>(group.waiting.size()) + 1 < kWarpgroupThreads) {
    if (!group.waiting.empty() && group.waiting.front()->where.line != where.line) {
      SIMT_FAIL("two different products meet: " + Describe(*group.waiting.front()) + " and line " +
                std::to_string(where.line));
    }
    group.waiting.push_back(block.running);
    return Pause("Wgmma", where);
  }
  IssueProduct(group);
  for (Thread* thread : group.waiting) Wake(block, *thread);
  group.waiting.clear();
  MaybeYield(block);
}

}  // namespace simt
