// SPDX-License-Identifier: Apache-2.0
// GPT-2's byte-level alphabet: every byte as one printable character, so that tokens of raw bytes can be written in
// JSON. 33..126, 161..172 and 174..255 stand for themselves, the other 68 bytes are U+0100 onwards in order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace millrace {

// The code point that stands for a byte.
char32_t ByteToAlphabet(uint8_t byte);

// The byte a code point stands for, or -1.
int AlphabetToByte(char32_t code_point);

std::string BytesToAlphabet(std::string_view bytes);

// Nothing when a character is not of the alphabet. REQUIRES: valid UTF-8.
std::optional<std::string> AlphabetToBytes(std::string_view text);

}  // namespace millrace
