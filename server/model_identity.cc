// SPDX-License-Identifier: Apache-2.0
#include "server/model_identity.h"

#include <elf.h>
#include <link.h>

#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "engine/load/model_info.h"
#include "engine/text/tokenizer.h"

namespace millrace {
namespace {

void AddShape(const ModelInfo& model, KeyHasher& hasher) {
  hasher.Add(model.architecture_name);
  for (const int32_t number : {model.num_layers, model.hidden_dim, model.ffn_dim, model.num_heads, model.num_kv_heads,
                               model.head_dim, model.vocab_tokens, model.max_positions, model.window_tokens}) {
    hasher.Add(number);
  }
  hasher.Add(model.norm_eps);
  const RopeParams& rope = model.rope;
  hasher.Add(static_cast<int32_t>(rope.scaling));
  for (const double number : {rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
                              rope.original_max_positions, rope.beta_fast, rope.beta_slow, rope.attention_factor}) {
    hasher.Add(number);
  }
}

void AddDefaults(const ModelInfo& model, KeyHasher& hasher) {
  hasher.Add(model.eos_token_ids);
  hasher.Add(model.default_temperature);
  hasher.Add(model.default_top_p);
  hasher.Add(model.default_min_p);
  hasher.Add(model.default_top_k);
  hasher.Add(model.default_repetition_penalty);
}

void AddVocabulary(const Tokenizer& tokenizer, KeyHasher& hasher) {
  hasher.Add(tokenizer.vocab_size());
  std::string all;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    all += static_cast<char>((tokenizer.IsSpecial(id) ? 1 : 0) | (tokenizer.IsControl(id) ? 2 : 0));
    all += std::to_string(bytes.size()) + ':';
    all += bytes;
  }
  hasher.Add(all);
}

// The notes' entries: three numbers, then name and description, each padded to four bytes.
int AddBuildId(dl_phdr_info* object, size_t, void* hasher) {
  const bool is_ours = object->dlpi_name[0] == '\0' || absl::StrContains(object->dlpi_name, "libmillrace");
  for (int i = 0; is_ours && i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = object->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(object->dlpi_addr + header.p_vaddr);
    const char* const end = at + header.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(at);
      const char* description = at + sizeof(*note) + ((note->n_namesz + 3) & ~3U);
      if (note->n_type == NT_GNU_BUILD_ID) {
        static_cast<KeyHasher*>(hasher)->Add(std::string_view(description, note->n_descsz));
      }
      at = description + ((note->n_descsz + 3) & ~3U);
    }
  }
  return 0;
}

// Kernels are chosen by these, and different ones round differently.
std::string ProcessorAbilities() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (absl::StartsWith(line, "flags") || absl::StartsWith(line, "Features")) return line;
  }
  return "";
}

}  // namespace

Digest ModelIdentity(const Engine& engine, const EngineOptions& options) {
  KeyHasher hasher("millrace model");
  const ModelInfo& model = engine.model();
  hasher.Add(model.weights_fingerprint);
  AddShape(model, hasher);
  AddDefaults(model, hasher);
  AddVocabulary(engine.tokenizer(), hasher);
  for (const std::string& text : {options.device, options.dtype, options.load_format, options.quantization,
                                  options.kv_cache_dtype, model.weights_name}) {
    hasher.Add(text);
  }
  hasher.Add(options.dummy_seed);
  hasher.Add(engine.scheduler_config().max_model_tokens);
  dl_iterate_phdr(AddBuildId, &hasher);
  hasher.Add(ProcessorAbilities());
  return hasher.Finish();
}

}  // namespace millrace
