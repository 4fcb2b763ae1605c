// SPDX-License-Identifier: Apache-2.0
#pragma once
// Prompts of a wanted length for a server whose vocabulary we do not know: it tokenises a long random text once, and
// prompts are random stretches of those ids. A server without /tokenize gets words instead. One thread.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace millrace {

class PromptPool {
 public:
  PromptPool(const std::string& url, const std::string& api_key, uint64_t seed);
  // The JSON body of a streamed request that generates exactly `output_tokens`.
  std::string Body(bool is_chat, const std::string& model, int32_t input_tokens, int32_t output_tokens);

 private:
  std::string Words(int32_t num_words);

  std::mt19937_64 random_;
  std::vector<int32_t> ids_;  // empty: the server does not tokenise
};

}  // namespace millrace
