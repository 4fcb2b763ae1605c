// SPDX-License-Identifier: Apache-2.0
// What constrained decoding costs per token on a big vocabulary (Qwen3's 151,643 tokens of shared/data, or the bundled
// model's where that is absent): the mask of each step of an answer, when its state is met for the first time and
// when it was met before; beside it what building the vocabulary's trie and the grammar costs. One thread, its CPU
// time.
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/grammar/matcher.h"
#include "engine/grammar/tool_calls.h"
#include "engine/text/template_json.h"
#include "engine/text/tokenizer.h"

namespace {

using namespace millrace;
namespace fs = std::filesystem;

double Milliseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

std::string ReadGzip(const fs::path& path) {  // plain files come out as they are
  std::string text, buffer(1 << 20, '\0');
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return text;
  for (int n = 0; (n = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;) {
    text.append(buffer, 0, static_cast<size_t>(n));
  }
  gzclose(file);
  return text;
}

const char* const kTools = R"([{"function": {"name": "book_flight", "parameters": {"type": "object", "properties": {
    "from": {"type": "string"}, "to": {"type": "string"}, "day": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"},
    "seats": {"type": "integer", "minimum": 1, "maximum": 9}, "class": {"enum": ["economy", "business", "first"]},
    "stops": {"type": "array", "items": {"type": "string", "maxLength": 40}}}, "required": ["from", "to", "day"]}}},
    {"function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])";
const char* const kAnswer =
    "I will look that up and book it at once, if there is a seat left on that day.\n<tool_call>\n{\"name\": "
    "\"book_flight\", "
    "\"arguments\": {\"from\": \"Frankfurt am Main\", \"to\": \"Reykjavík\", \"day\": \"2026-11-28\", \"seats\": 3, "
    "\"class\": \"economy\", \"stops\": [\"Copenhagen\", \"Tórshavn\"]}}\n</tool_call>";

void PrintTimes(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  std::printf("  %-34s %4zu steps: median %8.1f us, 99 %% %8.1f us, longest %8.1f us\n", what, times.size(),
              1e3 * times[times.size() / 2], 1e3 * times[times.size() * 99 / 100], 1e3 * times.back());
}

// The masks along the answer.
std::vector<double> Walk(const std::shared_ptr<GrammarAutomaton>& automaton, const TokenVocabulary& vocabulary,
                         const std::vector<int32_t>& tokens) {
  std::vector<double> times;
  std::vector<uint32_t> mask(vocabulary.num_mask_words());
  GrammarMatcher matcher(automaton);
  for (const int32_t token : tokens) {
    const double begin = Milliseconds();
    if (!(matcher.AllowsAll() && matcher.CanEnd())) matcher.FillMask(mask);
    const bool is_taken = matcher.Accept(token);
    times.push_back(Milliseconds() - begin);
    if (!is_taken) std::printf("  token %d was refused\n", token);
  }
  return times;
}

}  // namespace

int main() {
  const fs::path shared(MILLRACE_SHARED_DATA_DIR);
  std::string json = ReadGzip(shared / "tokenizers" / "hf" / "Qwen__Qwen3-0.6B.tokenizer.json.gz");
  if (json.empty()) json = ReadGzip(fs::path(MILLRACE_SOURCE_DIR) / "models" / "millrace-tiny" / "tokenizer.json");
  auto tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
    return 1;
  }
  double begin = Milliseconds();
  const TokenVocabulary vocabulary(**tokenizer, (*tokenizer)->vocab_size());
  std::printf("vocabulary of %d tokens, trie of %zu nodes: %.0f ms\n", vocabulary.num_ids(), vocabulary.nodes().size(),
              Milliseconds() - begin);
  const auto tools = ParseJsonValue(kTools);
  const auto tokens = (*tokenizer)->Encode(kAnswer, SpecialTokens::kParse, Framing::kNone);
  if (!tools.ok() || !tokens.ok()) return 1;
  for (const bool is_required : {false, true}) {
    begin = Milliseconds();
    const auto grammar = CompileToolCalls(*tools, {.names = {"book_flight", "weather"}, .is_required = is_required});
    if (!grammar.ok()) return 1;
    std::printf("%s: a grammar of %d states: %.2f ms\n", is_required ? "required" : "auto", (*grammar)->num_states(),
                Milliseconds() - begin);
    std::vector<int32_t> answer = *tokens;
    if (is_required) {
      const auto marker = (*tokenizer)->TokenToId("<tool_call>");
      if (!marker.has_value()) continue;
      answer.erase(answer.begin(), std::find(answer.begin(), answer.end(), *marker));
    }
    auto automaton = std::make_shared<GrammarAutomaton>(*grammar, vocabulary);
    PrintTimes("a mask, its state met first", Walk(automaton, vocabulary, answer));
    PrintTimes("a mask, its state met before", Walk(automaton, vocabulary, answer));
  }
  return 0;
}
