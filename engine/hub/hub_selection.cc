// SPDX-License-Identifier: Apache-2.0
// Which files of a repository are worth fetching. Never code, and never formats that can carry it (pickle).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/hub/hub_cache.h"

namespace millrace {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

bool IsCompanion(std::string_view file) {
  for (const std::string_view end : {".json", ".jinja", ".model", ".txt"}) {
    if (file.ends_with(end)) return true;
  }
  return false;
}

// "-00001-of-00003.gguf": a part of a split file, which the loader does not join.
bool IsSplitGguf(std::string_view file) { return file.find("-of-") != file.npos; }

// The wanted one, else the best of those we run: Q8_0, Q4_0, F16, F32 and then by name.
absl::StatusOr<std::string> SelectGguf(std::vector<std::string> files, std::string_view choice) {
  std::sort(files.begin(), files.end());
  const auto find = [&files](std::string_view part) {
    return std::find_if(files.begin(), files.end(),
                        [&](const std::string& file) { return Lower(file).find(part) != std::string::npos; });
  };
  std::string names;
  for (const std::string& file : files) absl::StrAppend(&names, names.empty() ? "" : ", ", file);
  if (!choice.empty()) {
    const auto exact = std::find(files.begin(), files.end(), choice);
    if (exact != files.end()) return *exact;
    const auto found = find(Lower(choice));
    if (found != files.end()) return *found;
    return absl::NotFoundError(absl::StrCat("no GGUF file '", std::string(choice), "' among: ", names));
  }
  for (const std::string_view kind : {"q8_0", "q4_0", "f16", "f32"}) {
    const auto found = find(kind);
    if (found != files.end()) return *found;
  }
  return files.front();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SelectFiles(const std::vector<std::string>& files, std::string_view choice) {
  std::vector<std::string> selected, safetensors, consolidated, gguf;
  for (const std::string& file : files) {
    const bool is_template = file.starts_with("additional_chat_templates/") && file.ends_with(".jinja") &&
                             std::count(file.begin(), file.end(), '/') == 1;
    if (file.find('/') != file.npos && !is_template) continue;  // other forms of the model: onnx/, original/ ...
    if (file.ends_with(".safetensors")) {
      (file.starts_with("consolidated") ? consolidated : safetensors).push_back(file);
    } else if (file.ends_with(".gguf")) {
      if (!IsSplitGguf(file)) gguf.push_back(file);
    } else if (IsCompanion(file)) {
      selected.push_back(file);
    }
  }
  // "consolidated" is the same weights again, in the maker's own format.
  if (safetensors.empty()) safetensors = std::move(consolidated);
  if (!safetensors.empty() && choice.empty()) {
    selected.insert(selected.end(), safetensors.begin(), safetensors.end());
    return selected;
  }
  if (gguf.empty()) {
    return absl::NotFoundError(choice.empty() ? "it has no weights as .safetensors or (unsplit) .gguf"
                                              : "it has no (unsplit) .gguf files to choose from");
  }
  absl::StatusOr<std::string> file = SelectGguf(std::move(gguf), choice);
  if (!file.ok()) return file.status();
  selected.push_back(*std::move(file));
  return selected;
}

}  // namespace millrace
