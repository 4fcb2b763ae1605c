// SPDX-License-Identifier: Apache-2.0
// Safetensors files, right and hostile, and the files of a Hugging Face directory.
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "engine/load/hf_files.h"
#include "engine/load/model_weights.h"
#include "engine/load/safetensors.h"
#include "engine/load/tensor_source.h"
#include "kernels/device.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/tiny_checkpoint.h"

namespace millrace {
namespace {

using Catch::Matchers::Contains;
using testing::SafetensorsOf;
using testing::TemporaryDir;
using testing::TinyCheckpoint;
using testing::WriteFile;

std::string ErrorOf(const absl::Status& status) { return std::string(status.message()); }

TEST_CASE("ParseSafetensors: finds the tensors of a right file", "[load]") {
  testing::SafetensorsWriter writer;
  writer.AddFloats("a", {2, 3}, {1, 2, 3, 4, 5, 6});
  writer.Add("b", "BF16", {1}, std::string(2, '\x3f'));
  writer.Add("empty", "F32", {0, 4}, "");
  const std::string bytes = writer.Bytes();
  const auto tensors = ParseSafetensors(bytes);
  REQUIRE(tensors.status().ToString() == "OK");
  REQUIRE(tensors->size() == 3);
  CHECK(tensors->at("a").shape == std::vector<int64_t>{2, 3});
  CHECK(static_cast<const float*>(tensors->at("a").data)[5] == 6.0f);
  CHECK(tensors->at("b").dtype == "BF16");
}

TEST_CASE("ParseSafetensors: a hostile file is refused with the tensor and the fault", "[load]") {
  struct Case {
    std::string bytes;
    const char* message;
  };
  const std::string data(16, '\0');
  const auto tensor = [&](const std::string& fields) { return SafetensorsOf("{\"w\":{" + fields + "}}", data); };
  const std::string ten_gigabytes = std::string("\x00\xe4\x0b\x54\x02\x00\x00\x00", 8);
  std::string nested = "{\"w\":";
  for (int i = 0; i < 200; ++i) nested += "[";
  const Case test = GENERATE_COPY(values<Case>({
      {"", "shorter"},
      {"\x01\x02\x03", "shorter"},
      {ten_gigabytes + "{}", "a header of 10000000000 bytes in a file of 10 (limit"},
      {std::string(8, '\xff') + "{}", "a header of 18446744073709551615"},
      {SafetensorsOf("not json", ""), "no JSON object"},
      {SafetensorsOf("[1, 2]", ""), "no JSON object"},
      {SafetensorsOf("{\"w\": {\"dtype\": \"F32\"", ""), "no JSON object"},
      {SafetensorsOf(nested, ""), "no JSON object"},
      {SafetensorsOf("{\"w\": 3}", ""), "'w': no dtype"},
      {tensor(R"("shape":[4],"data_offsets":[0,16])"), "'w': no dtype"},
      {tensor(R"("dtype":"Q9","shape":[4],"data_offsets":[0,16])"), "'w': unknown dtype Q9"},
      {tensor(R"("dtype":"F32","data_offsets":[0,16])"), "'w': no shape"},
      {tensor(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "'w': bad shape"},
      {tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16])"), "'w': bad shape"},
      {tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16])"), "'w': a dimension of"},
      {tensor(R"("dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,16])"), "'w': its shape overflows"},
      {tensor(R"("dtype":"F32","shape":[4])"), "'w': no data_offsets"},
      {tensor(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), "'w': no data_offsets"},
      {tensor(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), "lie outside"},
      {tensor(R"("dtype":"F32","shape":[4],"data_offsets":[8,24])"), "bytes [8, 24) lie outside the file's 16"},
      {tensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,16])"), "holds 16 bytes, its shape and dtype need 12"},
      {SafetensorsOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                     data),
       "overlap"},
      {SafetensorsOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
                     data),
       "'a': named twice"},
  }));
  CAPTURE(test.message);
  const auto tensors = ParseSafetensors(test.bytes);
  REQUIRE(tensors.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(ErrorOf(tensors.status()), Contains(test.message));
}

TEST_CASE("ParseSafetensors: a file cut anywhere is refused or whole", "[load]") {
  testing::SafetensorsWriter writer;
  writer.AddFloats("a", {2, 3}, {1, 2, 3, 4, 5, 6});
  const std::string bytes = writer.Bytes();
  for (size_t num_bytes = 0; num_bytes < bytes.size(); ++num_bytes) {
    CHECK_FALSE(ParseSafetensors(bytes.substr(0, num_bytes)).ok());
  }
}

TEST_CASE("ParseShardIndex: a file name must stay in the directory", "[load]") {
  CHECK(
      *ParseShardIndex(R"({"weight_map": {"a": "x-2.safetensors", "b": "x-1.safetensors", "c": "x-2.safetensors"}})") ==
      std::vector<std::string>{"x-1.safetensors", "x-2.safetensors"});
  for (const char* name : {"../x", "/etc/passwd", "a/b", "", "..", "."}) {
    CHECK_FALSE(ParseShardIndex(std::string(R"({"weight_map": {"a": ")") + name + "\"}}").ok());
  }
  for (const char* json :
       {"", "[]", "{}", R"({"weight_map": 1})", R"({"weight_map": {}})", R"({"weight_map": {"a": 1}})"}) {
    CHECK_FALSE(ParseShardIndex(json).ok());
  }
}

struct Loaded {
  absl::Status status;
  ModelWeights weights;
};

Loaded Load(const std::string& dir, const LoadOptions& options = {}) {
  const auto device = MakeCpuDevice({.num_threads = 1});
  auto info = ReadModelInfo(dir, options);
  if (!info.ok()) return {info.status(), {}};
  auto weights = LoadWeights(*info, options, **device);
  if (!weights.ok()) return {weights.status(), {}};
  return {absl::OkStatus(), std::move(*weights)};
}

TEST_CASE("LoadWeights: a single file loads, and reports progress to the end", "[load]") {
  const TemporaryDir dir;
  TinyCheckpoint().Write(dir.path());
  double last = 0;
  const Loaded loaded = Load(dir.string(), {.on_progress = [&](std::string_view, double fraction) {
                               CHECK(fraction >= last);
                               last = fraction;
                             }});
  REQUIRE(loaded.status.ToString() == "OK");
  CHECK(last == 1.0);
  CHECK(loaded.weights.layers.size() == 2);
  CHECK(loaded.weights.layers[0].qkv->n() == 256);
  CHECK(loaded.weights.layers[0].gate_up->n() == 512);
}

TEST_CASE("LoadWeights: shards named by an index load as one file does", "[load]") {
  const TemporaryDir dir;
  const TinyCheckpoint checkpoint;
  WriteFile(dir.path() / "config.json", TinyCheckpoint::Config());
  testing::SafetensorsWriter shards[2];
  std::string map;
  int at = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const int shard = at++ % 2;
    shards[shard].AddFloats(name, tensor.shape, tensor.values);
    map += (map.empty() ? "\"" : ", \"") + name + "\": \"model-" + std::to_string(shard) + ".safetensors\"";
  }
  for (const int i : {0, 1}) WriteFile(dir.path() / ("model-" + std::to_string(i) + ".safetensors"), shards[i].Bytes());
  WriteFile(dir.path() / "model.safetensors.index.json", R"({"metadata": {}, "weight_map": {)" + map + "}}");
  CHECK(Load(dir.string()).status.ToString() == "OK");

  SECTION("a shard that is not there is named") {
    std::filesystem::remove(dir.path() / "model-1.safetensors");
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("model-1.safetensors: No such file"));
  }
  SECTION("a tensor in two shards is named") {
    shards[1].AddFloats("model.norm.weight", {1}, {0});
    shards[0].AddFloats("model.norm.weight", {1}, {0});
    for (const int i : {0, 1})
      WriteFile(dir.path() / ("model-" + std::to_string(i) + ".safetensors"), shards[i].Bytes());
    CHECK_FALSE(Load(dir.string()).status.ok());
  }
}

TEST_CASE("LoadWeights: names what is missing or does not fit", "[load]") {
  const TemporaryDir dir;
  TinyCheckpoint checkpoint;
  SECTION("every missing tensor") {
    checkpoint.tensors.erase("model.layers.1.mlp.up_proj.weight");
    checkpoint.tensors.erase("model.norm.weight");
    checkpoint.Write(dir.path());
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("2 tensors are missing") && Contains("model.norm.weight") &&
                                                       Contains("model.layers.1.mlp.up_proj.weight"));
  }
  SECTION("an output matrix without tied embeddings") {
    checkpoint.tensors.erase("lm_head.weight");
    checkpoint.Write(dir.path());
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("lm_head.weight") && Contains("tie_word_embeddings"));
  }
  SECTION("a shape") {
    checkpoint.tensors["model.layers.0.self_attn.k_proj.weight"] = {{32, 128}, std::vector<float>(32 * 128)};
    checkpoint.Write(dir.path());
    CHECK_THAT(ErrorOf(Load(dir.string()).status),
               Contains("model.layers.0.self_attn.k_proj.weight has shape [32, 128], the config asks for [64, 128]"));
  }
  SECTION("a dtype") {
    checkpoint.tensors.erase("model.norm.weight");
    checkpoint.Write(dir.path());
    auto writer = checkpoint.AllFloats();
    writer.Add("model.norm.weight", "I64", {128}, std::string(1024, '\0'));
    WriteFile(dir.path() / "model.safetensors", writer.Bytes());
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("model.norm.weight is I64"));
  }
  SECTION("a weight that is not finite, when it is to be quantised") {
    checkpoint.tensors["model.layers.1.mlp.down_proj.weight"].values[300] = NAN;
    checkpoint.Write(dir.path());
    CHECK_THAT(ErrorOf(Load(dir.string(), {.quantization = "int8"}).status),
               Contains("model.layers.1.mlp.down_proj: row 1 holds a value that is not finite"));
  }
  SECTION("weights in another format") {
    checkpoint.Write(dir.path());
    std::filesystem::rename(dir.path() / "model.safetensors", dir.path() / "pytorch_model.bin");
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("pytorch_model.bin") && Contains("convert"));
  }
  SECTION("a directory of GGUF files") {
    WriteFile(dir.path() / "model-q4.gguf", "GGUF");
    CHECK_THAT(ErrorOf(Load(dir.string()).status), Contains("no config.json") && Contains("model-q4.gguf"));
  }
  SECTION("no directory") { CHECK_THAT(ErrorOf(Load(dir.string() + "/x").status), Contains("no such model")); }
  SECTION("a load format that does not fit") {
    checkpoint.Write(dir.path());
    CHECK_THAT(ErrorOf(Load(dir.string(), {.load_format = "gguf"}).status), Contains("--load-format gguf"));
    CHECK_THAT(ErrorOf(Load(dir.string(), {.load_format = "pt"}).status), Contains("is not one of"));
    CHECK_THAT(ErrorOf(Load(dir.string(), {.quantization = "int3"}).status), Contains("--quantization int3"));
    CHECK_THAT(ErrorOf(Load(dir.string(), {.dtype = "fp8"}).status), Contains("--dtype fp8"));
  }
}

TEST_CASE("LoadWeights: a tied model saved as lm_head loads", "[load]") {
  const TemporaryDir dir;
  TinyCheckpoint checkpoint;
  checkpoint.tensors.erase("model.embed_tokens.weight");
  checkpoint.Write(dir.path());
  CHECK_FALSE(Load(dir.string()).status.ok());
  std::string config = TinyCheckpoint::Config();
  config.replace(config.find("\"tie_word_embeddings\": false"), 28, "\"tie_word_embeddings\": true");
  WriteFile(dir.path() / "config.json", config);
  CHECK(Load(dir.string()).status.ToString() == "OK");
}

TEST_CASE("ReadModelInfo: the fingerprint follows the weights, not the path", "[load]") {
  const TemporaryDir a, b;
  TinyCheckpoint checkpoint;
  checkpoint.Write(a.path());
  checkpoint.Write(b.path());
  const uint64_t first = ReadModelInfo(a.string(), {})->weights_fingerprint;
  CHECK(first != 0);
  CHECK(first == ReadModelInfo(b.string(), {})->weights_fingerprint);
  checkpoint.tensors["model.norm.weight"].values[7] += 1;
  checkpoint.Write(b.path());
  CHECK(first != ReadModelInfo(b.string(), {})->weights_fingerprint);
}

}  // namespace
}  // namespace millrace
