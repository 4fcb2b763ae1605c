// SPDX-License-Identifier: Apache-2.0
#pragma once
// A folder for one test, gone with it.
#include <cstdlib>
#include <filesystem>
#include <string>

namespace millrace {

class ScratchDir {
 public:
  ScratchDir() : path_((std::filesystem::temp_directory_path() / "millrace_test_XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~ScratchDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace millrace
