// SPDX-License-Identifier: Apache-2.0
// What the tokenizer tests share: files, the shared data folder, small tokenizers made by hand.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace millrace::testing {

inline std::string ReadFileOrDie(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The folder of public test data; empty, with a visible line, where it is absent.
inline std::filesystem::path SharedData(const std::string& what) {
  const char* folder = std::getenv("MILLRACE_SHARED_DATA");
  std::filesystem::path path = std::filesystem::path(folder != nullptr ? folder : MILLRACE_SHARED_DATA_DIR) / what;
  if (std::filesystem::exists(path)) return path;
  WARN("[SKIPPED] no " << path.string());
  return {};
}

inline std::unique_ptr<Tokenizer> MakeTokenizer(const std::string& json) {
  auto tokenizer = Tokenizer::FromJson(json);
  INFO(tokenizer.status().message());
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

inline std::vector<int32_t> EncodeOrDie(const Tokenizer& tokenizer, std::string_view text,
                                        SpecialTokens special = SpecialTokens::kParse,
                                        Framing framing = Framing::kNone) {
  auto ids = tokenizer.Encode(text, special, framing);
  INFO(ids.status().message());
  REQUIRE(ids.ok());
  return *std::move(ids);
}

// A byte-level tokenizer of 256 bytes, a few merges, control tokens, a plain added token and a run of spaces.
std::string ByteLevelJson();
// A SentencePiece-style tokenizer with byte fallback.
std::string SentencePieceJson();
std::string JsonQuote(std::string_view text);

// Random text out of `parts`.
inline std::string RandomText(std::mt19937& random, const std::vector<std::string>& parts, size_t max_parts) {
  std::string text;
  for (size_t n = random() % (max_parts + 1); n > 0; --n) text += parts[random() % parts.size()];
  return text;
}

// Random bytes, mostly broken UTF-8.
inline std::string RandomBytes(std::mt19937& random, size_t max_bytes) {
  std::string bytes(random() % (max_bytes + 1), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() % 3 == 0 ? random() % 256 : 0x80 + random() % 0x78);
  return bytes;
}

}  // namespace millrace::testing
