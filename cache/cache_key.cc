// SPDX-License-Identifier: Apache-2.0
#include "cache/cache_key.h"

#include <openssl/evp.h>

#include <bit>

namespace millrace {

void KeyHasher::AddKind(char kind, uint64_t number) {
  bytes_ += kind;
  for (int shift = 0; shift < 64; shift += 8) bytes_ += static_cast<char>(number >> shift);
}

void KeyHasher::Add(std::string_view bytes) {
  AddKind('b', bytes.size());
  bytes_ += bytes;
}

void KeyHasher::Add(std::span<const int32_t> numbers) {
  AddKind('t', numbers.size());
  for (const int32_t number : numbers) {
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(static_cast<uint32_t>(number) >> shift);
  }
}

void KeyHasher::Add(int64_t number) { AddKind('i', static_cast<uint64_t>(number)); }

void KeyHasher::Add(double number) { AddKind('f', std::bit_cast<uint64_t>(number == 0 ? 0.0 : number)); }

Digest KeyHasher::Finish() const { return Sha256(bytes_); }

Digest Sha256(std::string_view bytes) {
  Digest digest;
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  return digest;
}

}  // namespace millrace
