// SPDX-License-Identifier: Apache-2.0
// The files of a model directory that say how a conversation becomes a prompt, as they come from a hub. A line of %%
// parts them: tokenizer_config.json, special_tokens_map.json, chat_template.json, chat_template.jinja.
#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include "engine/text/chat_template.h"

namespace {

namespace fs = std::filesystem;
constexpr const char* kFiles[] = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.json",
                                  "chat_template.jinja"};
constexpr std::string_view kParting = "\n%%\n";

struct Folder {
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "millrace_fuzz_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path = pattern;
  }
  ~Folder() {
    std::error_code error;
    fs::remove_all(path, error);
  }
  fs::path path;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t num_bytes) {
  using namespace millrace;
  static const Folder folder;
  std::string_view rest(reinterpret_cast<const char*>(data), num_bytes);
  for (const char* file : kFiles) {
    const size_t end = std::min(rest.find(kParting), rest.size());
    // What is empty is absent, as in most directories.
    if (end == 0) {
      fs::remove(folder.path / file);
    } else {
      std::ofstream(folder.path / file, std::ios::binary) << rest.substr(0, end);
    }
    rest.remove_prefix(std::min(end + kParting.size(), rest.size()));
  }
  absl::StatusOr<ChatTemplateSource> source = ReadChatTemplateSource(folder.path.string());
  if (!source.ok()) return 0;
  JinjaLimits limits;
  limits.max_steps = 20'000;
  limits.max_memory_bytes = 4 << 20;
  limits.max_output_bytes = 1 << 20;
  limits.max_range_items = 1000;
  for (const auto& [name, text] : source->special_tokens) {
    if (!name.ends_with("_token")) std::abort();
  }
  (void)ChatTemplate::Parse(*std::move(source), limits);
  return 0;
}
