// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_features.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace millrace::cpu {
namespace {

// Kernel files are small; the cap keeps a strange file system from filling memory.
constexpr size_t kMaxFileBytes = 1 << 16;
// cgroup v1 writes "no limit" as the largest page-aligned number; anything this large means the same.
constexpr int64_t kNoLimitBytes = int64_t{1} << 60;

std::string ReadSmallFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return "";
  std::string text(kMaxFileBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

absl::string_view Trim(std::string_view text) {
  return absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size()));
}

// The folders of our cgroup for `controller` (empty: v2), from the leaf to the mount's root: every level may limit.
// Inside a container the path of /proc/self/cgroup may not exist under the mount; the root is tried regardless.
std::vector<std::string> CgroupFolders(const std::string& controller) {
  const std::string mount = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
  std::string path;
  const std::string cgroup_text = ReadSmallFile("/proc/self/cgroup");
  for (absl::string_view line : absl::StrSplit(cgroup_text, '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    bool is_match = controller.empty() && parts[0] == "0" && parts[1].empty();
    for (absl::string_view name : absl::StrSplit(parts[1], ',')) is_match |= !controller.empty() && name == controller;
    if (is_match) path = std::string(parts[2]);
  }
  std::vector<std::string> folders;
  while (path.size() > 1) {
    folders.push_back(mount + path);
    path.resize(path.find_last_of('/'));
  }
  folders.push_back(mount);
  return folders;
}

double CgroupCores() {
  double cores = std::numeric_limits<double>::infinity();
  for (const std::string& folder : CgroupFolders("")) {
    const double limit = ParseCgroupV2Cpu(ReadSmallFile(folder + "/cpu.max"));
    if (limit > 0) cores = std::min(cores, limit);
  }
  for (const char* controller : {"cpu", "cpu,cpuacct"}) {
    for (const std::string& folder : CgroupFolders(controller)) {
      const double limit =
          ParseCgroupV1Cpu(ReadSmallFile(folder + "/cpu.cfs_quota_us"), ReadSmallFile(folder + "/cpu.cfs_period_us"));
      if (limit > 0) cores = std::min(cores, limit);
    }
  }
  return cores;
}

// What the limits of the cgroup leave. Page cache counts as used there although the kernel would drop it; taking
// usage as it is errs on the careful side only while files are hot, so inactive file pages are given back.
int64_t CgroupFreeBytes() {
  struct Names {
    const char* controller;
    const char* limit;
    const char* usage;
    const char* inactive_file;
  };
  constexpr Names kVersions[] = {
      {"", "/memory.max", "/memory.current", "inactive_file "},
      {"memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file "}};
  int64_t free_bytes = std::numeric_limits<int64_t>::max();
  for (const Names& names : kVersions) {
    for (const std::string& folder : CgroupFolders(names.controller)) {
      const int64_t limit = ParseCgroupBytes(ReadSmallFile(folder + names.limit));
      int64_t usage = ParseCgroupBytes(ReadSmallFile(folder + names.usage));
      if (limit < 0 || usage < 0) continue;
      const std::string stat = ReadSmallFile(folder + "/memory.stat");
      for (absl::string_view line : absl::StrSplit(stat, '\n')) {
        if (!absl::ConsumePrefix(&line, names.inactive_file)) continue;
        usage -= std::max<int64_t>(0, ParseCgroupBytes(std::string_view(line.data(), line.size())));
      }
      free_bytes = std::min(free_bytes, std::max<int64_t>(0, limit - std::max<int64_t>(0, usage)));
    }
  }
  return free_bytes;
}

}  // namespace

double ParseCgroupV2Cpu(std::string_view cpu_max) {
  const std::vector<absl::string_view> parts = absl::StrSplit(Trim(cpu_max), ' ', absl::SkipEmpty());
  if (parts.size() != 2) return -1;
  return ParseCgroupV1Cpu(std::string_view(parts[0].data(), parts[0].size()),
                          std::string_view(parts[1].data(), parts[1].size()));
}

double ParseCgroupV1Cpu(std::string_view quota_us, std::string_view period_us) {
  int64_t quota = 0;
  int64_t period = 0;
  if (!absl::SimpleAtoi(Trim(quota_us), &quota) || !absl::SimpleAtoi(Trim(period_us), &period)) return -1;
  if (quota <= 0 || period <= 0) return -1;
  return static_cast<double>(quota) / static_cast<double>(period);
}

int64_t ParseCgroupBytes(std::string_view text) {
  int64_t bytes = 0;
  if (!absl::SimpleAtoi(Trim(text), &bytes)) return -1;
  return bytes < 0 || bytes >= kNoLimitBytes ? -1 : bytes;
}

int AvailableCores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  // A fixed cpu_set_t holds 1,024 processors; on a larger machine the call fails and the count above stands.
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  const double quota = CgroupCores();
  if (quota < cores) cores = static_cast<int>(std::ceil(quota));
  return std::max(cores, 1);
}

int64_t FirstCacheBytes() {
  const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  return bytes > 0 ? bytes : 32 * 1024;
}

size_t AvailableMemoryBytes() {
  int64_t available = 0;
  const std::string meminfo = ReadSmallFile("/proc/meminfo");
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, "MemAvailable:")) continue;
    absl::ConsumeSuffix(&line, "kB");
    int64_t kibibytes = 0;
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kibibytes)) available = kibibytes * 1024;
  }
  return static_cast<size_t>(std::min(available, CgroupFreeBytes()));
}

bool HasCpuPath(CpuPath path) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
#else
  constexpr bool has_avx2 = false;
  constexpr bool has_avx512 = false;
#endif
  switch (path) {
    case CpuPath::kAuto:
    case CpuPath::kReference:
      return true;
    case CpuPath::kAvx2:
      return has_avx2;
    case CpuPath::kAvx512:
      return has_avx512;
  }
  return false;
}

CpuPath WidestCpuPath() {
  for (CpuPath path : {CpuPath::kAvx512, CpuPath::kAvx2}) {
    if (HasCpuPath(path)) return path;
  }
  return CpuPath::kReference;
}

std::string_view CpuPathName(CpuPath path) {
  switch (path) {
    case CpuPath::kAuto:
      return "auto";
    case CpuPath::kReference:
      return "reference";
    case CpuPath::kAvx2:
      return "avx2";
    case CpuPath::kAvx512:
      return "avx512-vnni-bf16";
  }
  return "unknown";
}

}  // namespace millrace::cpu
