// SPDX-License-Identifier: Apache-2.0
#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace millrace {
namespace {

constexpr bool StandsForItself(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<uint16_t, 256> MakeAlphabet() {
  std::array<uint16_t, 256> alphabet{};
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) alphabet[byte] = StandsForItself(byte) ? byte : next++;
  return alphabet;
}

constexpr std::array<uint16_t, 256> kAlphabet = MakeAlphabet();

constexpr std::array<int16_t, 324> MakeInverse() {
  std::array<int16_t, 324> inverse{};
  for (int16_t& byte : inverse) byte = -1;
  for (int16_t byte = 0; byte < 256; ++byte) inverse[kAlphabet[byte]] = byte;
  return inverse;
}

constexpr std::array<int16_t, 324> kInverse = MakeInverse();

}  // namespace

char32_t ByteToAlphabet(uint8_t byte) { return kAlphabet[byte]; }

int AlphabetToByte(char32_t code_point) { return code_point < kInverse.size() ? kInverse[code_point] : -1; }

std::string BytesToAlphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) AppendUtf8(ByteToAlphabet(static_cast<uint8_t>(c)), text);
  return text;
}

std::optional<std::string> AlphabetToBytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = Utf8At(text, i);
    const int byte = AlphabetToByte(c.code_point);
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    i += c.num_bytes;
  }
  return bytes;
}

}  // namespace millrace
