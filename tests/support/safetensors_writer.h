// SPDX-License-Identifier: Apache-2.0
#pragma once
// Writes safetensors files for tests, right ones and, by Header, wrong ones.
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace millrace::testing {

inline void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// An empty folder below the system's temporary one, removed at the end.
class TemporaryDir {
 public:
  TemporaryDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "millrace-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDir() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TemporaryDir(const TemporaryDir&) = delete;
  TemporaryDir& operator=(const TemporaryDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::string string() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// A file of a given header and data.
inline std::string SafetensorsOf(const std::string& header, const std::string& data) {
  const uint64_t num_bytes = header.size();
  return std::string(reinterpret_cast<const char*>(&num_bytes), sizeof(num_bytes)) + header + data;
}

class SafetensorsWriter {
 public:
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           const std::string& bytes) {
    header_ += (header_.empty() ? "" : ",") + ("\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[");
    for (size_t i = 0; i < shape.size(); ++i) header_ += (i > 0 ? "," : "") + std::to_string(shape[i]);
    header_ += "],\"data_offsets\":[" + std::to_string(data_.size()) + "," +
               std::to_string(data_.size() + bytes.size()) + "]}";
    data_ += bytes;
    names_.push_back(name);
  }
  void AddFloats(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    Add(name, "F32", shape, BytesOf(values));
  }
  std::string Bytes() const { return SafetensorsOf("{" + header_ + "}", data_); }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::string header_, data_;
  std::vector<std::string> names_;
};

}  // namespace millrace::testing
