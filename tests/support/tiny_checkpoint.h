// SPDX-License-Identifier: Apache-2.0
#pragma once
// A small random Llama written as a Hugging Face directory, whole or with some tensors replaced. Tests only.
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/reference.h"
#include "tests/support/safetensors_writer.h"

namespace millrace::testing {

struct TinyTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class TinyCheckpoint {
 public:
  static constexpr int kHidden = 128, kFfn = 256, kHeads = 4, kKvHeads = 2, kHeadDim = 32, kVocab = 96, kLayers = 2;

  explicit TinyCheckpoint(uint32_t seed = 1) : seed_(seed) {
    Matrix("model.embed_tokens.weight", kVocab, kHidden);
    Matrix("lm_head.weight", kVocab, kHidden);
    Norm("model.norm.weight");
    for (int i = 0; i < kLayers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      Norm(prefix + "input_layernorm.weight");
      Norm(prefix + "post_attention_layernorm.weight");
      Matrix(prefix + "self_attn.q_proj.weight", kHeads * kHeadDim, kHidden);
      Matrix(prefix + "self_attn.k_proj.weight", kKvHeads * kHeadDim, kHidden);
      Matrix(prefix + "self_attn.v_proj.weight", kKvHeads * kHeadDim, kHidden);
      Matrix(prefix + "self_attn.o_proj.weight", kHidden, kHeads * kHeadDim);
      Matrix(prefix + "mlp.gate_proj.weight", kFfn, kHidden);
      Matrix(prefix + "mlp.up_proj.weight", kFfn, kHidden);
      Matrix(prefix + "mlp.down_proj.weight", kHidden, kFfn);
    }
  }

  std::map<std::string, TinyTensor> tensors;

  static bool IsLinear(const std::string& name) { return name.find("_proj.weight") != std::string::npos; }

  // `extra` are further fields, e.g. R"("rope_scaling": null)".
  static std::string Config(const std::string& extra = "") {
    return R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 256,
      "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 96,
      "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "torch_dtype": "float32", "eos_token_id": 2,
      "tie_word_embeddings": false)" +
           (extra.empty() ? "" : ", " + extra) + "}";
  }

  SafetensorsWriter AllFloats() const {
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) writer.AddFloats(name, tensor.shape, tensor.values);
    return writer;
  }
  void Write(const std::filesystem::path& dir) const {
    WriteFile(dir / "config.json", Config());
    WriteFile(dir / "model.safetensors", AllFloats().Bytes());
  }

 private:
  void Matrix(const std::string& name, int64_t n, int64_t k) {
    tensors[name] = {{n, k}, RandomFloats(n * k, seed_++, 1.0f / std::sqrt(static_cast<float>(k)))};
  }
  void Norm(const std::string& name) {
    std::vector<float> values = RandomFloats(kHidden, seed_++, 0.1f);
    for (float& value : values) value += 1.0f;
    tensors[name] = {{kHidden}, values};
  }

  uint32_t seed_;
};

}  // namespace millrace::testing
