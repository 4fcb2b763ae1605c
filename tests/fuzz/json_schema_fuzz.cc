// SPDX-License-Identifier: Apache-2.0
// A JSON Schema and, after a zero byte, a text: compiled under tight limits, and the text read by its automaton. Where
// the text may end, it is JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/grammar/automaton.h"
#include "engine/grammar/json_schema.h"
#include "engine/text/template_json.h"

namespace {

using namespace millrace;

const Tokenizer& ByteTokenizer() {
  static const auto* tokenizer = [] {
    auto made =
        Tokenizer::FromJson(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []})");
    if (!made.ok()) std::abort();
    return made->release();
  }();
  return *tokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  const std::string_view input(reinterpret_cast<const char*>(data), num_bytes);
  const size_t zero = input.find('\0');
  const auto schema = ParseJsonValue(input.substr(0, zero));
  if (!schema.ok()) return 0;
  auto grammar = CompileJsonSchema(*schema, {.max_states = 5000, .max_schemas = 500});
  if (!grammar.ok()) return 0;
  static const TokenVocabulary vocabulary(ByteTokenizer(), 1);
  GrammarAutomaton automaton(*std::move(grammar), vocabulary);
  const std::string text(zero == input.npos ? std::string_view(R"({"a": [1, "x"]})") : input.substr(zero + 1, 1000));
  int32_t state = automaton.start();
  for (const char byte : text) state = automaton.Next(state, static_cast<uint8_t>(byte));
  if (automaton.can_end(state) && !ParseJsonValue(text).ok()) std::abort();
  return 0;
}
