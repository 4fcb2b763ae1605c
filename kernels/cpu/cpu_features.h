// SPDX-License-Identifier: Apache-2.0
#pragma once
// What this machine offers: instruction sets, cores and memory, with affinity masks and cgroup (v1 and v2) limits
// respected. Stateless; any thread. Reads /proc and /sys, so call at start, not per step.
#include <cstddef>
#include <string>
#include <string_view>

#include "kernels/device.h"

namespace millrace::cpu {

// True when the processor and the operating system support every instruction of `path`.
bool HasCpuPath(CpuPath path);

// The widest supported path: never kAuto.
CpuPath WidestCpuPath();

std::string_view CpuPathName(CpuPath path);  // "auto", "reference", "avx2", "avx512-vnni-bf16"

// Cores this process may use: the affinity mask, capped by the cgroup's CPU quota rounded up; at least 1.
int AvailableCores();

// Bytes of a core's first data cache; 32 KiB where the system does not tell.
int64_t FirstCacheBytes();

// Memory this process may still take: MemAvailable, capped by what each cgroup above us leaves.
size_t AvailableMemoryBytes();

// Parts of the above that read text, apart for tests. Each returns -1 when the text means "no limit" or is malformed.
double ParseCgroupV2Cpu(std::string_view cpu_max);  // cores, of "200000 100000" or "max 100000"
double ParseCgroupV1Cpu(std::string_view quota_us, std::string_view period_us);
int64_t ParseCgroupBytes(std::string_view text);  // bytes, of "max", "-1" or a number

}  // namespace millrace::cpu
