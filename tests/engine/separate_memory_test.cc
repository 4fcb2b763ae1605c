// SPDX-License-Identifier: Apache-2.0
// A device whose memory is not the host's: everything the ops read must have been copied to it.
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/model_fixture.h"
#include "tests/support/json_numbers.h"

namespace millrace {
namespace {

// Computes on the CPU, yet keeps apart what is the host's: it counts what is copied, and has no other way in.
class SeparateDevice final : public Device {
 public:
  SeparateDevice(std::unique_ptr<Device> cpu, size_t* copied_bytes)
      : cpu_(std::move(cpu)), copied_bytes_(*copied_bytes) {}
  std::string name() const override { return "separate"; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override { return cpu_->Allocate(num_bytes); }
  size_t available_bytes() const override { return cpu_->available_bytes(); }
  bool shares_host_memory() const override { return false; }
  absl::Status CopyToDevice(void* device, const void* host, size_t num_bytes) override {
    copied_bytes_ += num_bytes;
    return cpu_->CopyToDevice(device, host, num_bytes);
  }
  absl::Status CopyToHost(void* host, const void* device, size_t num_bytes) override {
    return cpu_->CopyToHost(host, device, num_bytes);
  }
  Ops& ops() override { return cpu_->ops(); }
  absl::Status Wait() override { return cpu_->Wait(); }

 private:
  const std::unique_ptr<Device> cpu_;
  size_t& copied_bytes_;
};

TEST_CASE("Model: a device with memory of its own gets all that its ops read, and gives the same bits", "[golden]") {
  const std::string name = GENERATE("llama3", "qwen2", "qwen3", "qwen3_moe");
  const std::string dir = std::string(MILLRACE_SOURCE_DIR) + "/tests/data/goldens/" + name;
  const auto prompt = GoldenFile(dir + "/golden.json").Numbers<int32_t>("/prompt");
  size_t copied_bytes = 0;
  ModelFixture separate(dir, {.make_device = [&]() -> absl::StatusOr<std::unique_ptr<Device>> {
                          auto cpu = MakeCpuDevice({.num_threads = 1});
                          if (!cpu.ok()) return cpu.status();
                          return std::make_unique<SeparateDevice>(*std::move(cpu), &copied_bytes);
                        }});
  ModelFixture shared(dir);
  const ModelInfo& info = shared.model().info();
  const size_t hidden = static_cast<size_t>(info.hidden_dim), head = static_cast<size_t>(info.head_dim);
  const size_t layers = static_cast<size_t>(info.num_layers);
  const size_t qkv = static_cast<size_t>(info.num_heads + 2 * info.num_kv_heads) * head;
  size_t num_floats = static_cast<size_t>(info.vocab_tokens) * hidden + hidden + 2 * layers * hidden;  // norms
  num_floats += 2 * static_cast<size_t>(shared.model().limits().max_positions) * (head / 2);           // RoPE
  if (info.has_qkv_bias) num_floats += layers * qkv;
  if (info.has_qk_norm) num_floats += 2 * layers * head;
  CHECK(copied_bytes == num_floats * sizeof(float));
  const int num_tokens = static_cast<int>(prompt.size());
  CHECK(separate.Logits(prompt, 0, num_tokens) == shared.Logits(prompt, 0, num_tokens));
  CHECK(separate.LastHidden(prompt) == shared.LastHidden(prompt));
}

TEST_CASE("HostRows: rows of every float format come as float32, copied where they must be", "[golden]") {
  auto device = MakeCpuDevice({.num_threads = 1});
  REQUIRE(device.ok());
  std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x0000, 0x3800};  // 1, -2, padding, 0.5
  std::vector<uint16_t> brains = {0x3f80, 0xc000, 0x0000, 0x3f00};  // likewise
  HostRows rows;
  for (auto [data, dtype] : {std::pair{&halves, DType::kF16}, std::pair{&brains, DType::kBF16}}) {
    REQUIRE(rows.Fetch({.data = data->data(), .dtype = dtype, .rows = 2, .cols = 1, .stride = 2}, **device).ok());
    CHECK(rows.row(0)[0] == 1.0f);
    CHECK(rows.row(0)[1] == -2.0f);
    CHECK(rows.row(1)[1] == 0.5f);
  }
  std::vector<float> floats = {1, 2};
  REQUIRE(rows.Fetch({.data = floats.data(), .rows = 1, .cols = 2, .stride = 2}, **device).ok());
  CHECK(rows.row(0) == floats.data());
}

}  // namespace
}  // namespace millrace
