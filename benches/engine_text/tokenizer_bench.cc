// SPDX-License-Identifier: Apache-2.0
// Tokenizer speed in MB/s of text: English, code and a mix of scripts, for each family of shared/data/tokenizers (or a
// tokenizer of single bytes where that is absent). One thread; the text is encoded whole, and in chat-sized pieces of
// 2 KB. Time is the thread's CPU time, so that a busy machine disturbs less. Prints the median and the spread of 21
// runs, and the time to load.
#include <simdjson.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/text/byte_alphabet.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace {

using namespace millrace;
namespace fs = std::filesystem;

constexpr int kNumRuns = 21;
constexpr size_t kTextBytes = 1 << 20;
constexpr size_t kPieceBytes = 2048;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Gunzip(const fs::path& path) {
  std::string text;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return text;
  std::string buffer(1 << 20, '\0');
  for (int n = 0; (n = gzread(file, buffer.data(), static_cast<unsigned>(buffer.size()))) > 0;) {
    text.append(buffer, 0, static_cast<size_t>(n));
  }
  gzclose(file);
  return text;
}

std::string Repeat(const std::string& text) {
  std::string out;
  while (!text.empty() && out.size() < kTextBytes) out += text;
  out.resize(std::min(out.size(), kTextBytes));
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
  if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0) out.pop_back();
  return out;
}

std::string English(const fs::path& shared) {
  const std::string book = ReadFile(shared / "text" / "frankenstein.txt");
  if (!book.empty()) return Repeat(book);
  return Repeat(
      "The keeper of the lighthouse counted twelve ships before the rain, and wrote each name in his book.\n");
}

// The project's own sources.
std::string Code() {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(MILLRACE_SOURCE_DIR) / "engine")) {
    if (entry.path().extension() == ".cc") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::string code;
  for (const fs::path& path : paths) code += ReadFile(path);
  return Repeat(code);
}

std::string Mixed(const fs::path& shared) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const std::string json = ReadFile(shared / "tokenizers" / "goldens" / "texts.json");
  std::string text;
  if (parser.parse(json).get(root) == simdjson::SUCCESS && root.is_array()) {
    for (const auto item : root.get_array()) text += std::string(item.get_string().value()) + "\n";
  } else {
    text = "日本語の文章 and English, по-русски 1234, नमस्ते 😀 été\n";
  }
  return Repeat(text);
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Run>
void Measure(const char* what, size_t num_bytes, Run&& run) {
  std::vector<double> rates;
  for (int i = 0; i < kNumRuns + 2; ++i) {
    const double begin = CpuSeconds();
    run();
    if (i >= 2) rates.push_back(static_cast<double>(num_bytes) / 1e6 / (CpuSeconds() - begin));
  }
  std::sort(rates.begin(), rates.end());
  std::printf("  %-26s %8.1f MB/s  (%.1f to %.1f)\n", what, rates[rates.size() / 2], rates.front(), rates.back());
}

void MeasureTokenizer(const Tokenizer& tokenizer, const fs::path& shared) {
  const std::pair<const char*, std::string> texts[] = {
      {"English", English(shared)}, {"code", Code()}, {"mixed", Mixed(shared)}};
  for (const auto& [what, text] : texts) {
    size_t num_tokens = 0;
    Measure((std::string(what) + " 1 MB").c_str(), text.size(),
            [&] { num_tokens = tokenizer.Encode(text, SpecialTokens::kPlainText).value().size(); });
    Measure((std::string(what) + " 2 KB pieces").c_str(), text.size(), [&] {
      for (size_t at = 0; at < text.size(); at += kPieceBytes) {
        (void)tokenizer.Encode(std::string_view(text).substr(at, kPieceBytes), SpecialTokens::kPlainText);
      }
    });
    const auto ids = tokenizer.Encode(text, SpecialTokens::kPlainText).value();
    Measure((std::string(what) + " streamed out").c_str(), text.size(), [&] {
      Detokenizer stream(tokenizer, SkipSpecial::kYes);
      std::string out;
      for (const int32_t id : ids) stream.Push(id, out);
      stream.Finish(out);
    });
    std::printf("  %-26s %8.2f bytes a token\n", what,
                static_cast<double>(text.size()) / static_cast<double>(num_tokens));
  }
}

void MeasureFile(const std::string& name, const std::string& json, const fs::path& shared) {
  const double begin = CpuSeconds();
  const auto tokenizer = Tokenizer::FromJson(json);
  const double milliseconds = 1e3 * (CpuSeconds() - begin);
  if (!tokenizer.ok()) {
    std::printf("%s: %s\n", name.c_str(), std::string(tokenizer.status().message()).c_str());
    return;
  }
  std::printf("%s: loaded in %.0f ms\n", name.c_str(), milliseconds);
  MeasureTokenizer(**tokenizer, shared);
}

}  // namespace

int main(int argc, char** argv) {
  const char* folder = std::getenv("MILLRACE_SHARED_DATA");
  const fs::path shared = folder != nullptr ? folder : MILLRACE_SHARED_DATA_DIR;
  const fs::path families = shared / "tokenizers" / "hf";
  if (!fs::exists(families)) {
    VocabSpec spec;
    spec.model = "gpt2";
    spec.pre = "llama-bpe";
    for (int byte = 0; byte < 256; ++byte) {
      spec.tokens.push_back(BytesToAlphabet(std::string(1, static_cast<char>(byte))));
    }
    std::printf("no %s: a tokenizer of single bytes\n", families.c_str());
    MeasureTokenizer(**Tokenizer::FromVocab(spec), shared);
    return 0;
  }
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(families)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    const std::string name = path.filename().string();
    if (argc < 2 || name.find(argv[1]) != std::string::npos) MeasureFile(name, Gunzip(path), shared);
  }
  return 0;
}
