// SPDX-License-Identifier: Apache-2.0
#include "engine/load/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 16;
constexpr uint64_t kMaxNameBytes = 1u << 16;
constexpr uint64_t kMaxStringBytes = 16u << 20;
constexpr uint64_t kMaxElements = 1u << 24;
constexpr uint32_t kMaxDims = 4;
constexpr int kMaxArrayDepth = 4;
constexpr uint64_t kMaxAlignment = 1u << 20;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;

absl::Status Fault(const std::string& what) { return absl::InvalidArgumentError(absl::StrCat("GGUF: ", what)); }

std::string Quoted(std::string_view name) {
  return absl::StrCat("'", absl::CHexEscape(std::string(name.substr(0, 100))), "'");
}

// Bytes of one value; 0 for strings, arrays and unknown types.
size_t FixedBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

// Takes values off the front of the bytes; every fault is "ends inside".
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  template <typename T>
  absl::StatusOr<T> Take(const char* what) {
    if (left() < sizeof(T)) return Fault(absl::StrCat("the file ends inside ", what));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  absl::StatusOr<std::string_view> TakeBytes(uint64_t num_bytes, const std::string& what) {
    if (num_bytes > left()) {
      return Fault(absl::StrCat(what, " claims ", num_bytes, " bytes, ", left(), " are left in the file"));
    }
    const std::string_view taken = bytes_.substr(position_, num_bytes);
    position_ += num_bytes;
    return taken;
  }
  absl::StatusOr<std::string_view> TakeString(uint64_t limit, const std::string& what) {
    ASSIGN_OR_RETURN(const uint64_t num_bytes, Take<uint64_t>("a string's length"));
    if (num_bytes > limit) return Fault(absl::StrCat(what, " claims ", num_bytes, " bytes, the limit is ", limit));
    return TakeBytes(num_bytes, what);
  }
  std::string_view Since(size_t begin) const { return bytes_.substr(begin, position_ - begin); }

 private:
  std::string_view bytes_;
  size_t position_ = 0;
};

absl::StatusOr<GgufType> TakeType(Reader& reader, const std::string& key) {
  ASSIGN_OR_RETURN(const uint32_t type, reader.Take<uint32_t>("a value's type"));
  if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
    return Fault(absl::StrCat("key ", Quoted(key), " has unknown type ", type));
  }
  return static_cast<GgufType>(type);
}

// Checks and skips one value of `type`.
absl::Status SkipValue(Reader& reader, GgufType type, const std::string& key, int depth) {
  if (type == GgufType::kString) return reader.TakeString(kMaxStringBytes, "key " + Quoted(key)).status();
  if (type != GgufType::kArray) return reader.TakeBytes(FixedBytes(type), "key " + Quoted(key)).status();
  if (depth == kMaxArrayDepth) return Fault(absl::StrCat("key ", Quoted(key), " nests arrays too deeply"));
  ASSIGN_OR_RETURN(const GgufType element_type, TakeType(reader, key));
  ASSIGN_OR_RETURN(const uint64_t count, reader.Take<uint64_t>("an array's length"));
  // Strings take 8 bytes at least, nested arrays 12: a claim beyond the file ends here.
  const uint64_t least_bytes = std::max<uint64_t>(FixedBytes(element_type), FixedBytes(element_type) == 0 ? 8 : 1);
  if (count > kMaxElements || count * least_bytes > reader.left()) {
    return Fault(absl::StrCat("key ", Quoted(key), " claims ", count, " elements, ", reader.left(),
                              " bytes are left in the file"));
  }
  if (FixedBytes(element_type) > 0) {
    return reader.TakeBytes(count * FixedBytes(element_type), "key " + Quoted(key)).status();
  }
  for (uint64_t i = 0; i < count; ++i) RETURN_IF_ERROR(SkipValue(reader, element_type, key, depth + 1));
  return absl::OkStatus();
}

absl::Status ReadKey(Reader& reader, GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string_view key_view, reader.TakeString(kMaxNameBytes, "a key"));
  const std::string key(key_view);
  GgufValue value;
  ASSIGN_OR_RETURN(value.type, TakeType(reader, key));
  const size_t begin = reader.position();
  RETURN_IF_ERROR(SkipValue(reader, value.type, key, 0));
  value.bytes = reader.Since(begin);
  if (value.type == GgufType::kArray) {
    Reader head(value.bytes);
    ASSIGN_OR_RETURN(value.element_type, TakeType(head, key));
    ASSIGN_OR_RETURN(value.count, head.Take<uint64_t>("an array's length"));
    value.bytes.remove_prefix(head.position());
  }
  if (!file.metadata.try_emplace(key, value).second) return Fault(absl::StrCat("key ", Quoted(key), " comes twice"));
  return absl::OkStatus();
}

// Values and bytes of one block along a row.
struct BlockShape {
  uint64_t values = 0;
  uint64_t bytes = 0;
};

absl::StatusOr<BlockShape> BlockOf(uint32_t type, std::string_view tensor) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kF32:
      return BlockShape{1, 4};
    case GgmlType::kF16:
    case GgmlType::kBF16:
      return BlockShape{1, 2};
    case GgmlType::kQ4_0:
      return BlockShape{32, 18};
    case GgmlType::kQ8_0:
      return BlockShape{32, 34};
  }
  static constexpr const char* kNames[] = {
      "F32",  "F16",  "Q4_0", "Q4_1", "Q4_2",    "Q4_3",   "Q5_0",    "Q5_1",  "Q8_0",   "Q8_1",  "Q2_K",  "Q3_K",
      "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"};
  const std::string name = type < std::size(kNames) ? kNames[type] : absl::StrCat("number ", type);
  return absl::UnimplementedError(
      absl::StrCat("GGUF: tensor ", Quoted(tensor), " has type ", name, "; supported: F32, F16, BF16, Q8_0, Q4_0"));
}

struct TensorPlace {
  std::string name;
  GgufTensor tensor;
  uint64_t offset = 0;
};

absl::StatusOr<TensorPlace> ReadTensorInfo(Reader& reader) {
  TensorPlace place;
  ASSIGN_OR_RETURN(const std::string_view name, reader.TakeString(kMaxNameBytes, "a tensor's name"));
  place.name = std::string(name);
  ASSIGN_OR_RETURN(const uint32_t num_dims, reader.Take<uint32_t>("a tensor's dimensions"));
  if (num_dims < 1 || num_dims > kMaxDims) {
    return Fault(absl::StrCat("tensor ", Quoted(name), " has ", num_dims, " dimensions"));
  }
  uint64_t num_values = 1, row_values = 0;
  for (uint32_t i = 0; i < num_dims; ++i) {
    ASSIGN_OR_RETURN(const uint64_t dim, reader.Take<uint64_t>("a tensor's dimensions"));
    if (dim == 0 || dim > kMaxDimension || num_values > (uint64_t{1} << 50) / dim) {
      return Fault(absl::StrCat("tensor ", Quoted(name), " has an impossible dimension of ", dim));
    }
    if (i == 0) row_values = dim;
    num_values *= dim;
    place.tensor.shape.insert(place.tensor.shape.begin(), static_cast<int64_t>(dim));
  }
  ASSIGN_OR_RETURN(const uint32_t type, reader.Take<uint32_t>("a tensor's type"));
  ASSIGN_OR_RETURN(const BlockShape block, BlockOf(type, name));
  if (row_values % block.values != 0) {
    return Fault(
        absl::StrCat("tensor ", Quoted(name), ": rows of ", row_values, " are not made of blocks of ", block.values));
  }
  place.tensor.type = static_cast<GgmlType>(type);
  place.tensor.num_bytes = num_values / block.values * block.bytes;
  ASSIGN_OR_RETURN(place.offset, reader.Take<uint64_t>("a tensor's offset"));
  return place;
}

absl::Status PlaceTensors(std::vector<TensorPlace> places, std::string_view data, uint64_t alignment, GgufFile& file) {
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  uint64_t end = 0;
  for (TensorPlace& place : places) {
    if (place.offset % alignment != 0) {
      return Fault(
          absl::StrCat("tensor ", Quoted(place.name), ": offset ", place.offset, " is not aligned to ", alignment));
    }
    if (place.offset > data.size() || place.tensor.num_bytes > data.size() - place.offset) {
      return Fault(absl::StrCat("tensor ", Quoted(place.name), ": ", place.tensor.num_bytes, " bytes at ", place.offset,
                                " lie outside the file's ", data.size(), " data bytes"));
    }
    if (place.offset < end) return Fault(absl::StrCat("tensor ", Quoted(place.name), " overlaps the one before it"));
    end = place.offset + place.tensor.num_bytes;
    place.tensor.data = data.data() + place.offset;
    if (!file.tensors.try_emplace(place.name, std::move(place.tensor)).second) {
      return Fault(absl::StrCat("tensor ", Quoted(place.name), " comes twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadHead(Reader& reader, uint64_t& num_tensors, uint64_t& num_keys) {
  ASSIGN_OR_RETURN(const std::string_view magic, reader.TakeBytes(4, "the magic number"));
  if (magic != "GGUF") return Fault("the file does not begin with GGUF");
  ASSIGN_OR_RETURN(const uint32_t version, reader.Take<uint32_t>("the version"));
  if (version != 0 && (version & 0xffffu) == 0) {
    return absl::UnimplementedError("GGUF: a big-endian file is not supported");
  }
  if (version != 2 && version != 3) {
    return absl::UnimplementedError(absl::StrCat("GGUF: version ", version, " is not supported; supported: 2, 3"));
  }
  ASSIGN_OR_RETURN(num_tensors, reader.Take<uint64_t>("the number of tensors"));
  ASSIGN_OR_RETURN(num_keys, reader.Take<uint64_t>("the number of keys"));
  if (num_tensors > kMaxTensors)
    return Fault(absl::StrCat("claims ", num_tensors, " tensors, the limit is ", kMaxTensors));
  if (num_keys > kMaxKeys) return Fault(absl::StrCat("claims ", num_keys, " keys, the limit is ", kMaxKeys));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Alignment(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> alignment, file.Int("general.alignment"));
  const uint64_t value = static_cast<uint64_t>(alignment.value_or(32));
  if (value == 0 || value > kMaxAlignment || !std::has_single_bit(value)) {
    return Fault(absl::StrCat("an alignment of ", value));
  }
  return value;
}

}  // namespace

std::string_view GgmlTypeName(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return "F32";
    case GgmlType::kF16:
      return "F16";
    case GgmlType::kQ4_0:
      return "Q4_0";
    case GgmlType::kQ8_0:
      return "Q8_0";
    case GgmlType::kBF16:
      return "BF16";
  }
  return "?";
}

absl::StatusOr<GgufFile> ParseGguf(std::string_view bytes) {
  Reader reader(bytes);
  uint64_t num_tensors = 0, num_keys = 0;
  RETURN_IF_ERROR(ReadHead(reader, num_tensors, num_keys));
  GgufFile file;
  for (uint64_t i = 0; i < num_keys; ++i) RETURN_IF_ERROR(ReadKey(reader, file));
  std::vector<TensorPlace> places;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    ASSIGN_OR_RETURN(TensorPlace place, ReadTensorInfo(reader));
    places.push_back(std::move(place));
  }
  ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(file));
  const uint64_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  const std::string_view data = data_begin < bytes.size() ? bytes.substr(data_begin) : std::string_view();
  RETURN_IF_ERROR(PlaceTensors(std::move(places), data, alignment, file));
  return file;
}

}  // namespace millrace
