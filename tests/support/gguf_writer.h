// SPDX-License-Identifier: Apache-2.0
#pragma once
// Writes GGUF files for tests: metadata in the order given, tensors aligned to 32 bytes.
#include <cstdint>
#include <string>
#include <vector>

namespace millrace::testing {

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t extra_tensors = 0;  // claimed and not there
  uint64_t extra_keys = 0;

  template <typename T>
  static void Append(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static void AppendString(std::string& out, const std::string& text) {
    Append<uint64_t>(out, text.size());
    out += text;
  }

  void Raw(const std::string& key, uint32_t type, const std::string& value) {
    AppendString(keys_, key);
    Append(keys_, type);
    keys_ += value;
    ++num_keys_;
  }
  template <typename T>
  void Scalar(const std::string& key, uint32_t type, T value) {
    std::string bytes;
    Append(bytes, value);
    Raw(key, type, bytes);
  }
  void U32(const std::string& key, uint32_t value) { Scalar(key, 4, value); }
  void F32(const std::string& key, float value) { Scalar(key, 6, value); }
  void Bool(const std::string& key, bool value) { Scalar<uint8_t>(key, 7, value ? 1 : 0); }
  void String(const std::string& key, const std::string& value) {
    std::string bytes;
    AppendString(bytes, value);
    Raw(key, 8, bytes);
  }
  void Strings(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = ArrayHead(8, values.size());
    for (const std::string& value : values) AppendString(bytes, value);
    Raw(key, 9, bytes);
  }
  template <typename T>
  void Array(const std::string& key, uint32_t type, const std::vector<T>& values) {
    std::string bytes = ArrayHead(type, values.size());
    for (const T value : values) Append(bytes, value);
    Raw(key, 9, bytes);
  }
  static std::string ArrayHead(uint32_t type, uint64_t count) {
    std::string bytes;
    Append(bytes, type);
    Append(bytes, count);
    return bytes;
  }

  // `dims` as GGUF writes them: the row length first.
  void Tensor(const std::string& name, uint32_t type, const std::vector<uint64_t>& dims, const std::string& bytes) {
    data_.resize((data_.size() + 31) / 32 * 32, '\0');
    TensorAt(name, type, dims, data_.size());
    data_ += bytes;
  }
  void TensorAt(const std::string& name, uint32_t type, const std::vector<uint64_t>& dims, uint64_t offset) {
    AppendString(infos_, name);
    Append<uint32_t>(infos_, static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) Append(infos_, dim);
    Append(infos_, type);
    Append(infos_, offset);
    ++num_tensors_;
  }
  std::string Bytes() const {
    std::string out = "GGUF";
    Append(out, version);
    Append<uint64_t>(out, num_tensors_ + extra_tensors);
    Append<uint64_t>(out, num_keys_ + extra_keys);
    out += keys_ + infos_;
    out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + data_;
  }

 private:
  std::string keys_, infos_, data_;
  uint64_t num_keys_ = 0, num_tensors_ = 0;
};

}  // namespace millrace::testing
