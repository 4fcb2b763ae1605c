// SPDX-License-Identifier: Apache-2.0
// Parts of models: what the ranks hold, put together, is the whole, for every format and for shapes drawn at random,
// and for experts as files of each format hold them.
#include "engine/load/model_part.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/load/dummy_weights.h"
#include "engine/load/float_tensor.h"
#include "engine/load/gguf_weights.h"
#include "engine/load/hf_config.h"
#include "engine/load/part_tensors.h"
#include "engine/load/stored_int.h"
#include "engine/load/weight_formats.h"
#include "engine/load/weight_plan.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/reference.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/stored_int4.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;

// Random floats, or the same as a checkpoint's own quantiser would have left them.
class RandomTensors final : public TensorSource {
 public:
  explicit RandomTensors(std::optional<WeightKind> stored) : floats_(MakeDummyTensors(7)), stored_(stored) {}
  bool Has(const std::string& /*name*/) const override { return true; }
  absl::StatusOr<MatrixRows> Matrix(const std::string& name, int64_t n, int64_t k) override {
    return floats_->Matrix(name, n, k);
  }
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t n) override {
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + name.size());
    return values;
  }
  absl::StatusOr<std::optional<StoredForm>> FormOf(const std::string& name, int64_t /*n*/, int64_t k) override {
    if (!stored_.has_value() || SplitOf(name) == SplitBy::kNothing) return std::nullopt;
    WeightKind kind = *stored_;
    kind.group_size = kind.GroupFor(k);
    return StoredForm{.kind = kind};
  }
  absl::StatusOr<std::unique_ptr<BuiltWeight>> Stored(const std::string& name, int64_t n, int64_t k) override {
    auto built = BuildWeight(*Matrix(name, n, k), *stored_);
    if (stored_->format != WeightFormat::kInt4) return built;
    std::mt19937 engine(static_cast<uint32_t>(n * 1000 + k));
    for (size_t i = 0; i < (*built)->scales.size(); ++i) (*built)->zeros.push_back(static_cast<uint8_t>(engine() % 16));
    (*built)->PointSource();
    return built;
  }

 private:
  const std::unique_ptr<TensorSource> floats_;
  const std::optional<WeightKind> stored_;
};

struct Numbers {
  int64_t n = 0, k = 0;
  std::vector<float> values;
};

Numbers NumbersOf(std::unique_ptr<BuiltWeight> built) {
  const WeightSource source = built->source;
  Numbers numbers{source.n, source.k, std::vector<float>(static_cast<size_t>(source.n * source.k))};
  const MatrixRows rows = source.format == WeightFormat::kDense
                              ? FloatRows(source.values, source.dtype, source.n, source.k)
                              : DequantizedRows(std::shared_ptr<const BuiltWeight>(std::move(built)));
  const std::shared_ptr<BuiltWeight> kept = source.format == WeightFormat::kDense ? std::move(built) : nullptr;
  for (int64_t row = 0; row < source.n; ++row) rows.read(row, &numbers.values[static_cast<size_t>(row * source.k)]);
  return numbers;
}

// Every linear of layer 0, its router, the head and the embedding as they would be packed, by name.
std::map<std::string, Numbers> AllNumbers(TensorSource& source, const ModelInfo& info, const WeightKind& kind) {
  std::map<std::string, Numbers> all;
  const LayerSpec layer = LayerSpecOf(info, 0);
  const LinearSpec head = HeadSpecOf(info);
  std::vector<const LinearSpec*> specs = layer.Linears();
  specs.insert(specs.end(), {&layer.router, &head});
  for (const LinearSpec* each : specs) {
    const LinearSpec& spec = *each;
    for (const LinearSpec::Part& part : spec.parts) {
      const auto form = source.FormOf(part.name, part.n, spec.k);
      REQUIRE(form.status().ToString() == "OK");
      const bool is_stored = form->has_value() && (**form).is_exact;
      auto built = is_stored ? source.Stored(part.name, part.n, spec.k)
                             : BuildWeight(*source.Matrix(part.name + ".weight", part.n, spec.k),
                                           form->has_value() ? (**form).kind : kind);
      REQUIRE(built.status().ToString() == "OK");
      if (is_stored) CHECK((*built)->source.group_size == (**form).kind.group_size);
      all[part.name] = NumbersOf(*std::move(built));
    }
  }
  return all;
}

// Puts the ranks' numbers where they belong; counts how often each place was filled.
void CheckReassembles(const Numbers& whole, const std::string& name, const std::vector<ModelInfo>& infos,
                      const std::vector<Numbers>& parts) {
  std::vector<int> num_filled(whole.values.size(), 0);
  int64_t num_wrong = 0;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    const Numbers& part = parts[rank];
    const bool is_by_inputs = SplitOf(name) == SplitBy::kInputs;
    const Interval interval = IntervalOf(name, infos[rank], is_by_inputs ? part.k : part.n);
    REQUIRE(interval.whole == (is_by_inputs ? whole.k : whole.n));
    const int64_t first_row = is_by_inputs ? 0 : interval.first, first_col = is_by_inputs ? interval.first : 0;
    for (int64_t row = 0; row < part.n; ++row) {
      for (int64_t col = 0; col < part.k; ++col) {
        const size_t at = static_cast<size_t>((first_row + row) * whole.k + first_col + col);
        num_wrong += part.values[static_cast<size_t>(row * part.k + col)] == whole.values.at(at) ? 0 : 1;
        ++num_filled[at];
      }
    }
  }
  CHECK(num_wrong == 0);
  const int times = num_filled.at(0);
  const bool is_shared = name.ends_with(".k_proj") || name.ends_with(".v_proj");  // where there are few heads
  CHECK((is_shared ? times >= 1 : times == 1));
  CHECK(std::count(num_filled.begin(), num_filled.end(), times) == static_cast<std::ptrdiff_t>(num_filled.size()));
}

ModelInfo RandomShape(Architecture architecture, int num_ranks, std::mt19937& engine) {
  const auto draw = [&engine](int low, int high) { return low + static_cast<int>(engine() % (high - low + 1)); };
  ModelInfo info;
  info.architecture = architecture;
  info.num_layers = 1;
  info.hidden_dim = 32 * draw(1, 5);
  info.ffn_dim = 32 * draw(1, 4) * num_ranks;
  info.head_dim = 32 * draw(1, 2);
  // Fewer key-value heads than ranks, as many, or more.
  info.num_kv_heads = draw(0, 1) == 0 ? num_ranks * draw(1, 2) : draw(1, 2) == 1 ? 1 : std::max(num_ranks / 2, 1);
  info.num_heads = std::max(info.num_kv_heads, num_ranks) * draw(1, 2);
  info.vocab_tokens = num_ranks * draw(5, 40);
  info.has_tied_embeddings = draw(0, 1) == 1;
  if (architecture == Architecture::kLlama) return info;
  info.experts = {.num_experts = 3, .num_choices = 2, .ffn_dim = info.ffn_dim};
  info.ffn_dim = 97;  // of dense layers, which there are none of
  return info;
}

struct Kind {
  WeightKind kind;
  bool is_stored;
};
const Kind kKinds[] = {
    {{.format = WeightFormat::kDense, .dtype = DType::kBF16}, false},
    {{.format = WeightFormat::kDense, .dtype = DType::kF32}, false},
    {{.format = WeightFormat::kInt8}, false},
    {{.format = WeightFormat::kInt4, .group_size = 128}, false},
    {{.format = WeightFormat::kInt8}, true},
    {{.format = WeightFormat::kInt8, .group_size = 32}, true},
    {{.format = WeightFormat::kInt4, .group_size = 128}, true},
    {{.format = WeightFormat::kInt4, .group_size = 32}, true},
};

// `open` gives the tensors of the whole or of a part.
void CheckParts(const ModelInfo& info, int num_ranks, const WeightKind& kind,
                const std::function<std::unique_ptr<TensorSource>(const ModelInfo&)>& open) {
  const std::map<std::string, Numbers> whole = AllNumbers(*open(info), info, kind);
  std::vector<ModelInfo> infos;
  std::map<std::string, std::vector<Numbers>> parts;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const auto part = PartOf(info, rank, num_ranks);
    REQUIRE(part.status().ToString() == "OK");
    infos.push_back(*part);
    for (auto& [name, numbers] : AllNumbers(*open(*part), *part, kind)) parts[name].push_back(std::move(numbers));
  }
  for (const auto& [name, numbers] : whole) {
    CAPTURE(name);
    if (SplitOf(name) == SplitBy::kNothing) {
      CHECK(name.ends_with(".gate"));  // the router, every rank's
      for (const Numbers& part : parts.at(name)) CHECK(part.values == numbers.values);
      continue;
    }
    CheckReassembles(numbers, name, infos, parts.at(name));
  }
}

TEST_CASE("Parts: the ranks' slices together are the whole, number for number", "[ranks]") {
  const Kind kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
  const int num_ranks = GENERATE(2, 3, 4, 8);
  const Architecture architecture = GENERATE(Architecture::kLlama, Architecture::kQwen3Moe, Architecture::kMixtral);
  const uint32_t seed = GENERATE(range(0u, 3u));
  std::mt19937 engine(seed * 100 + static_cast<uint32_t>(num_ranks));
  const ModelInfo info = RandomShape(architecture, num_ranks, engine);
  CAPTURE(static_cast<int>(architecture), num_ranks, seed, kind.is_stored, kind.kind.group_size, info.hidden_dim,
          info.ffn_dim, info.head_dim, info.num_heads, info.num_kv_heads, info.vocab_tokens);
  const auto stored = kind.is_stored ? std::optional<WeightKind>(kind.kind) : std::nullopt;
  CheckParts(info, num_ranks, kind.kind, [&stored](const ModelInfo& part) -> std::unique_ptr<TensorSource> {
    auto source = std::make_unique<RandomTensors>(stored);
    if (part.part.num_ranks == 1) return source;
    return MakePartTensors(std::move(source), part);
  });
}

ModelInfo MixtureShape(Architecture architecture) {
  ModelInfo info;
  info.architecture = architecture;
  info.num_layers = 1;
  info.hidden_dim = 128;
  info.head_dim = 32;
  info.num_heads = 4;
  info.num_kv_heads = 2;
  info.vocab_tokens = 96;
  info.experts = {.num_experts = 3, .num_choices = 2, .ffn_dim = 256};
  return info;
}

// Layer 0 as GPTQ and AWQ store it.
void WriteInt4(const testing::Scheme& scheme, const std::filesystem::path& dir, ModelInfo& info) {
  testing::SafetensorsWriter writer;
  uint32_t seed = 1;
  const LayerSpec layer = LayerSpecOf(info, 0);
  for (const LinearSpec* spec : layer.Linears()) {
    for (const LinearSpec::Part& part : spec->parts) {
      const auto m = testing::RandomInt4(part.n, spec->k, scheme.group == 0 ? spec->k : scheme.group, scheme.zeros,
                                         scheme.order, seed++);
      scheme.is_awq ? testing::AddAwq(writer, part.name, m)
                    : testing::AddGptq(writer, part.name, m, scheme.zero_offset);
    }
  }
  for (const LinearSpec& spec : {layer.router, HeadSpecOf(info)}) {
    const LinearSpec::Part& part = spec.parts[0];
    writer.AddFloats(part.name + ".weight", {part.n, spec.k}, testing::RandomFloats(part.n * spec.k, seed++));
  }
  testing::WriteFile(dir / "model.safetensors", writer.Bytes());
  info.source = dir.string();
  info.quantization = ParseModelConfig(testing::QuantizedConfig(scheme))->quantization;
}

TEST_CASE("Parts: experts in GPTQ and AWQ files are cut number for number", "[ranks][experts]") {
  const testing::Scheme scheme = GENERATE(from_range(std::begin(testing::kSchemes), std::end(testing::kSchemes)));
  ModelInfo info = MixtureShape(GENERATE(Architecture::kQwen3Moe, Architecture::kMixtral));
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(scheme.config, scheme.group, static_cast<int>(info.architecture), num_ranks);
  const testing::TemporaryDir dir;
  WriteInt4(scheme, dir.path(), info);
  CheckParts(info, num_ranks, {.dtype = DType::kF32}, [](const ModelInfo& part) { return *OpenTensors(part, {}); });
}

constexpr uint32_t kF16 = 1, kQ4_0 = 2, kQ8_0 = 8;

std::string RandomGgufValues(uint32_t type, int64_t count, std::mt19937& engine) {
  std::string bytes;
  const auto add_half = [&] { bytes += testing::Halves({0.01f * static_cast<float>(1 + engine() % 100)}); };
  for (int64_t block = 0; block < count / 32; ++block) {
    add_half();  // of the others, the block's scale
    for (int i = 1; i < 32 && type == kF16; ++i) add_half();
    for (int i = 0; i < (type == kF16 ? 0 : type == kQ8_0 ? 32 : 16); ++i) bytes += static_cast<char>(engine());
  }
  return bytes;
}

// Layer 0 as GGUF stores it: one tensor of the same matrix of all experts.
void WriteGguf(uint32_t type, const std::filesystem::path& path, ModelInfo& info) {
  std::map<std::string, std::pair<std::vector<uint64_t>, std::string>> stacks;  // dimensions, bytes
  std::mt19937 engine(type);
  const LayerSpec layer = LayerSpecOf(info, 0);
  for (const LinearSpec* spec : layer.Linears()) {
    for (const LinearSpec::Part& part : spec->parts) {
      auto& [dims, bytes] = stacks[GgufTensorName(part.name + ".weight")];
      bytes += RandomGgufValues(type, part.n * spec->k, engine);
      const bool is_expert = part.name.find(".experts.") != std::string::npos;
      if (dims.empty()) dims = {static_cast<uint64_t>(spec->k), static_cast<uint64_t>(part.n)};
      if (is_expert) dims.resize(3);
      if (is_expert) ++dims[2];
    }
  }
  testing::GgufWriter writer;
  for (const auto& [name, stack] : stacks) writer.Tensor(name, type, stack.first, stack.second);
  for (const LinearSpec& spec : {layer.router, HeadSpecOf(info)}) {
    const LinearSpec::Part& part = spec.parts[0];
    writer.Tensor(GgufTensorName(part.name + ".weight"), kF16,
                  {static_cast<uint64_t>(spec.k), static_cast<uint64_t>(part.n)},
                  RandomGgufValues(kF16, part.n * spec.k, engine));
  }
  testing::WriteFile(path, writer.Bytes());
  info.source = path.string();
}

TEST_CASE("Parts: experts in GGUF files are cut number for number", "[ranks][experts]") {
  const uint32_t type = GENERATE(kF16, kQ4_0, kQ8_0);
  ModelInfo info = MixtureShape(GENERATE(Architecture::kQwen3Moe, Architecture::kMixtral));
  const int num_ranks = GENERATE(2, 4);
  CAPTURE(type, static_cast<int>(info.architecture), num_ranks);
  const testing::TemporaryDir dir;
  WriteGguf(type, dir.path() / "m.gguf", info);
  CheckParts(info, num_ranks, {.dtype = DType::kF32}, [](const ModelInfo& part) { return *OpenTensors(part, {}); });
}

TEST_CASE("Parts: a rank's query heads read its own key-value heads", "[ranks]") {
  for (const auto& [num_heads, num_kv_heads, num_ranks] :
       {std::tuple(8, 8, 4), {8, 4, 2}, {8, 2, 4}, {8, 1, 8}, {12, 3, 3}, {24, 2, 4}}) {
    CAPTURE(num_heads, num_kv_heads, num_ranks);
    ModelInfo info;
    info.head_dim = 2;
    info.num_heads = num_heads;
    info.num_kv_heads = num_kv_heads;
    info.ffn_dim = info.vocab_tokens = 24;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const ModelInfo part = *PartOf(info, rank, num_ranks);
      const int64_t first_q = IntervalOf("x.q_proj", part, part.num_heads * 2).first / 2;
      const int64_t first_kv = IntervalOf("x.k_proj.weight", part, part.num_kv_heads * 2).first / 2;
      CHECK(IntervalOf("x.v_proj.bias", part, part.num_kv_heads * 2).first == first_kv * 2);
      for (int head = 0; head < part.num_heads; ++head) {
        const int64_t wanted = (first_q + head) / (num_heads / num_kv_heads);
        CHECK(wanted == first_kv + head / (part.num_heads / part.num_kv_heads));
      }
    }
  }
}

TEST_CASE("Parts: biases follow their outputs, and one that is added to a sum is one rank's", "[ranks]") {
  ModelInfo info;
  info.head_dim = 4;
  info.num_heads = info.num_kv_heads = 2;
  info.ffn_dim = 6;
  info.vocab_tokens = 2;
  const auto vector = [&info](int rank, const std::string& name, int64_t n) {
    return *MakePartTensors(std::make_unique<RandomTensors>(std::nullopt), *PartOf(info, rank, 2))->Vector(name, n);
  };
  RandomTensors whole(std::nullopt);
  for (const auto& [name, n] : {std::pair("l.q_proj.bias", 8), {"l.v_proj.bias", 8}, {"l.up_proj.bias", 6}}) {
    std::vector<float> joined = vector(0, name, n / 2), rest = vector(1, name, n / 2);
    joined.insert(joined.end(), rest.begin(), rest.end());
    CHECK(joined == *whole.Vector(name, n));
  }
  for (const char* name : {"l.o_proj.bias", "l.down_proj.bias"}) {
    CHECK(vector(0, name, 5) == *whole.Vector(name, 5));
    CHECK(vector(1, name, 5) == std::vector<float>(5, 0.0f));
  }
  for (const char* name : {"l.q_norm.weight", "model.norm.weight"}) CHECK(vector(1, name, 5) == *whole.Vector(name, 5));
}

TEST_CASE("Parts: what does not divide is refused with its number", "[ranks]") {
  ModelInfo info;
  info.head_dim = 16;
  info.hidden_dim = 64;
  info.num_layers = 1;
  info.num_heads = 6;
  info.num_kv_heads = 6;
  info.ffn_dim = 96;
  info.vocab_tokens = 100;
  const auto message = [](const ModelInfo& model, int num_ranks) {
    const absl::Status status = PartOf(model, 0, num_ranks).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  CHECK_THAT(message(info, 4), Contains("--tensor-parallel-size 4") && Contains("6 attention heads"));
  CHECK_THAT(message(info, 3), Contains("100 entries of the vocabulary"));
  CHECK_THAT(message(info, 0), Contains("not in 1..64"));
  CHECK_THAT(message(info, 65), Contains("not in 1..64"));
  ModelInfo mixture = info;
  mixture.ffn_dim = 97;
  mixture.experts = {.num_experts = 8, .num_choices = 2, .ffn_dim = 51};
  CHECK_THAT(message(mixture, 2), Contains("--tensor-parallel-size 2") && Contains("51 dimensions of an expert's ffn"));
  CHECK(PartOf(mixture, 0, 1).ok());
  mixture.experts.ffn_dim = 96;
  CHECK(PartOf(mixture, 1, 2)->experts.ffn_dim == 48);
  mixture.num_layers = 2;
  mixture.experts.dense_layers = {1};
  CHECK_THAT(message(mixture, 2), Contains("97 dimensions of the ffn"));
  ModelInfo other = info;
  other.num_heads = 12;
  other.num_kv_heads = 3;
  CHECK_THAT(message(other, 2), Contains("3 key-value heads"));
  other = info;
  other.ffn_dim = 97;
  CHECK_THAT(message(other, 2), Contains("97 dimensions of the ffn"));
  CHECK(PartOf(info, 0, 1)->part.num_ranks == 1);
  CHECK(PartOf(info, 1, 2)->num_heads == 3);

  // 48 inputs of the ffn a rank are not whole groups of 32.
  const ModelInfo part = *PartOf(info, 0, 2);
  const WeightKind stored{.format = WeightFormat::kInt4, .group_size = 32};
  const auto slices = MakePartTensors(std::make_unique<RandomTensors>(stored), part);
  for (const std::string name : {"mlp.down_proj", "mlp.experts.7.down_proj", "block_sparse_moe.experts.7.w2"}) {
    const absl::Status status = slices->FormOf("model.layers.0." + name, 64, 48).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Contains(name) && Contains("96 inputs") && Contains("48"));
  }
  ModelInfo experts = part;
  experts.ffn_dim = 32;
  experts.experts = {.num_experts = 8, .num_choices = 2, .ffn_dim = 48};
  CHECK_THAT(std::string(ChooseWeightFormats(experts, {.quantization = "int4"}).status().message()),
             Contains("with 48 for each of 2 ranks"));
  const absl::Status anew = ChooseWeightFormats(part, {.quantization = "int4"}).status();
  CHECK(anew.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(anew.message()), Contains("with 48 for each of 2 ranks"));
}

}  // namespace
}  // namespace millrace
