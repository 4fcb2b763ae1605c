// SPDX-License-Identifier: Apache-2.0
// A grid's blocks in the order of the seed, and reports of what went wrong in them.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <utility>

#include "tests/simt/emulator/block.h"

namespace simt {
namespace {

struct State {
  std::mutex launching;
  uint64_t seed = 0;
  std::string report;
  int num_quiet = 0;
  int64_t num_dependent = 0;
  int cluster_blocks = 0;
};
State& TheState() {
  static State state;
  return state;
}

std::string Triple(const uint3& v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

// What a tool of the compiler's says about an address; empty where there is none.
std::string Symbolize(const void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) return "";
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
  if (length <= 0) return "";
  program[length] = 0;
  const size_t offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(info.dli_fbase);
  char command[4400];
  std::snprintf(command, sizeof(command), "addr2line -Cfpse '%s' 0x%zx 2>/dev/null", program, offset);
  FILE* pipe = popen(command, "r");
  if (pipe == nullptr) return "";
  std::string text;
  char part[512];
  while (std::fgets(part, sizeof(part), pipe) != nullptr) text += part;
  pclose(pipe);
  text.erase(std::find(text.begin(), text.end(), '\n'), text.end());
  return text;
}

}  // namespace

#ifdef SIMT_ASAN
// Beside AddressSanitizer's own report.
extern "C" void __asan_on_error() {
  const Block& block = TheBlock();
  if (block.running == nullptr) return;
  std::fprintf(stderr, "simt: in kernel %s, block %s, %s\n", DescribeCode(block.launch->kernel).c_str(),
               Triple(blockIdx).c_str(), Describe(*block.running).c_str());
}
#endif

std::string DescribeCode(const void* address) {
  const std::string known = Symbolize(address);
  if (!known.empty() && known[0] != '?') return known;
  char text[32];
  std::snprintf(text, sizeof(text), "%p", address);
  return text;
}

std::string Describe(const Thread& thread) {
  std::string text = "thread " + Triple(thread.index);
  if (thread.waits_at == nullptr) return text;
  return text + " at " + thread.waits_at + ", " + thread.where.file + ":" + std::to_string(thread.where.line);
}

void Report(const std::string& what) {
  Block& block = TheBlock();
  block.has_failed = true;
  std::string text = "kernel " + DescribeCode(block.launch->kernel) + ", block " + Triple(blockIdx);
  if (block.running != nullptr) text += ", thread " + Triple(block.running->index);
  text += ": " + what;
  if (TheState().num_quiet == 0) std::fprintf(stderr, "simt: %s\n", text.c_str());
  TheState().report = text;
}

bool RunKernel(const LaunchRequest& request) {
  const std::lock_guard<std::mutex> lock(TheState().launching);
  Block& block = TheBlock();
  if (block.threads.capacity() < kMaxBlockThreads) block.threads.reserve(kMaxBlockThreads);
  if (!request.is_dependent) EndDependencies();
  TheState().num_dependent += request.is_dependent ? 1 : 0;
  TheState().cluster_blocks = std::max(TheState().cluster_blocks, request.cluster_blocks);
  blockDim = request.block;
  gridDim = request.grid;
  // Clusters lie along x.
  const uint32_t width = gridDim.x / static_cast<unsigned>(request.cluster_blocks);
  const uint64_t num_blocks = uint64_t{width} * gridDim.y * gridDim.z;
  std::vector<uint32_t> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  if (IsSeeded()) {
    for (size_t i = num_blocks; i > 1; --i) std::swap(order[i - 1], order[Random(block) % i]);
  }
  for (const uint32_t number : order) {
    blockIdx = {number % width * static_cast<unsigned>(request.cluster_blocks), number / width % gridDim.y,
                number / (width * gridDim.y)};
    if (!RunBlock(request)) return false;
  }
  return true;
}

uint64_t Random(Block& block) {
  uint64_t z = block.random += 0x9e3779b97f4a7c15u;  // splitmix64
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
bool IsSeeded() { return TheState().seed != 0; }

void SetSeed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(TheState().launching);
  TheState().seed = seed;
  TheBlock().random = seed;
  TheBlock().order = Order::kFirst;
}

int64_t TakeDependentLaunches() { return std::exchange(TheState().num_dependent, 0); }
int TakeClusterBlocks() { return std::exchange(TheState().cluster_blocks, 0); }

std::string TakeReport() { return std::exchange(TheState().report, ""); }
QuietReports::QuietReports() { ++TheState().num_quiet; }
QuietReports::~QuietReports() { --TheState().num_quiet; }

}  // namespace simt
