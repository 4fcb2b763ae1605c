// SPDX-License-Identifier: Apache-2.0
#pragma once
// Counter-based noise: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A number is a function of (seed, position) alone, so a draw does not depend on the batch. Shared by every backend;
// stateless, any thread.
#include <cstdint>

#ifdef __CUDACC__
#define MILLRACE_HOST_DEVICE __host__ __device__
#else
#define MILLRACE_HOST_DEVICE
#endif

namespace millrace {

struct PhiloxWords {
  uint32_t words[4];
};

MILLRACE_HOST_DEVICE inline PhiloxWords Philox(uint64_t seed, uint64_t position) {
  PhiloxWords counter = {{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}};
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.words[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.words[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.words[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.words[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits.
MILLRACE_HOST_DEVICE inline double UniformNoise(uint64_t seed, uint64_t position) {
  const PhiloxWords noise = Philox(seed, position);
  const uint64_t bits = (uint64_t{noise.words[0]} << 32 | noise.words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace millrace
