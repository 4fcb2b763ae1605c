// SPDX-License-Identifier: Apache-2.0
#include "engine/load/safetensors.h"

#include <simdjson.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100u << 20;  // the format's own limit
constexpr size_t kMaxTensors = 1u << 20;
constexpr size_t kMaxDepth = 8;
constexpr size_t kMaxDims = 8;

using simdjson::dom::element;

absl::Status Fault(std::string_view name, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("safetensors: tensor '", std::string(name.substr(0, 200)), "': ", what));
}

absl::StatusOr<TensorView> ParseTensor(std::string_view name, element entry, std::string_view data) {
  TensorView view;
  std::string_view dtype;
  if (entry["dtype"].get(dtype) != simdjson::SUCCESS) return Fault(name, "no dtype");
  const size_t element_bytes = SafetensorsDTypeBytes(dtype);
  if (element_bytes == 0) return Fault(name, absl::StrCat("unknown dtype ", std::string(dtype.substr(0, 20))));
  view.dtype = std::string(dtype);
  simdjson::dom::array shape;
  if (entry["shape"].get(shape) != simdjson::SUCCESS) return Fault(name, "no shape");
  uint64_t num_bytes = element_bytes;
  for (const element dim : shape) {
    uint64_t size = 0;
    if (dim.get(size) != simdjson::SUCCESS || view.shape.size() == kMaxDims) return Fault(name, "bad shape");
    if (size > (uint64_t{1} << 40)) return Fault(name, absl::StrCat("a dimension of ", size));
    if (size != 0 && num_bytes > (uint64_t{1} << 50) / size) return Fault(name, "its shape overflows");
    num_bytes *= size;
    view.shape.push_back(static_cast<int64_t>(size));
  }
  simdjson::dom::array offsets;
  uint64_t begin = 0, end = 0;
  if (entry["data_offsets"].get(offsets) != simdjson::SUCCESS || offsets.size() != 2 ||
      offsets.at(0).get(begin) != simdjson::SUCCESS || offsets.at(1).get(end) != simdjson::SUCCESS) {
    return Fault(name, "no data_offsets");
  }
  if (begin > end || end > data.size()) {
    return Fault(name,
                 absl::StrCat("bytes [", begin, ", ", end, ") lie outside the file's ", data.size(), " data bytes"));
  }
  if (end - begin != num_bytes) {
    return Fault(name, absl::StrCat("holds ", end - begin, " bytes, its shape and dtype need ", num_bytes));
  }
  view.data = data.data() + begin;
  view.num_bytes = num_bytes;
  return view;
}

absl::Status CheckNoOverlap(const TensorMap& tensors) {
  std::vector<std::pair<const char*, const char*>> ranges;
  for (const auto& [name, view] : tensors) {
    const char* begin = static_cast<const char*>(view.data);
    if (view.num_bytes > 0) ranges.emplace_back(begin, begin + view.num_bytes);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) return absl::InvalidArgumentError("safetensors: two tensors overlap");
  }
  return absl::OkStatus();
}

}  // namespace

size_t SafetensorsDTypeBytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL" || dtype == "F8_E4M3" || dtype == "F8_E5M2") return 1;
  return 0;
}

absl::StatusOr<TensorMap> ParseSafetensors(std::string_view bytes) {
  static_assert(std::endian::native == std::endian::little, "the format is little-endian");
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) return absl::InvalidArgumentError("safetensors: shorter than its header");
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof(header_bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("safetensors: a header of ", header_bytes, " bytes in a file of ",
                                                   bytes.size(), " (limit ", kMaxHeaderBytes, ")"));
  }
  const std::string_view header = bytes.substr(sizeof(header_bytes), header_bytes);
  const std::string_view data = bytes.substr(sizeof(header_bytes) + header_bytes);
  simdjson::dom::parser parser;
  element root;
  simdjson::error_code error = parser.allocate(std::max<size_t>(header.size(), 64), kMaxDepth);
  if (error == simdjson::SUCCESS) error = parser.parse(simdjson::padded_string(header)).get(root);
  simdjson::dom::object object;
  if (error == simdjson::SUCCESS) error = root.get(object);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("safetensors: header is no JSON object: ", simdjson::error_message(error)));
  }
  TensorMap tensors;
  for (const auto& [name, entry] : object) {
    if (name == "__metadata__") continue;
    if (tensors.size() == kMaxTensors) return absl::InvalidArgumentError("safetensors: too many tensors");
    ASSIGN_OR_RETURN(TensorView view, ParseTensor(name, entry, data));
    if (!tensors.try_emplace(std::string(name), std::move(view)).second) return Fault(name, "named twice");
  }
  RETURN_IF_ERROR(CheckNoOverlap(tensors));
  return tensors;
}

}  // namespace millrace
