// SPDX-License-Identifier: Apache-2.0
#include "server/api/call_id.h"

#include "absl/hash/hash.h"

namespace millrace {

std::string MakeCallId(int64_t now, int32_t choice, int32_t number) {
  constexpr char kLetters[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  size_t hash = absl::HashOf(now, choice, number);
  std::string id(9, '0');
  for (char& letter : id) {
    letter = kLetters[hash % 36];
    hash /= 36;
  }
  return id;
}

}  // namespace millrace
