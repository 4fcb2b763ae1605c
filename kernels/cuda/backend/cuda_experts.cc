// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cuda_experts.h"

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace millrace::cuda {
namespace {

constexpr size_t kAlignBytes = 16;  // of every expert's parts

size_t StrideBytes(size_t num_bytes) { return (num_bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes; }

bool AreAlike(const WeightOnDevice& a, const WeightOnDevice& b) {
  return a.format == b.format && a.dtype == b.dtype && a.n == b.n && a.k == b.k && a.group_size == b.group_size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaExperts>> CudaExperts::Pack(
    int num_experts, absl::FunctionRef<absl::StatusOr<WeightSource>(int expert)> source, DType dense_dtype,
    CudaStream& stream) {
  auto experts = std::make_unique<CudaExperts>();
  for (int e = 0; e < num_experts; ++e) {
    ASSIGN_OR_RETURN(const WeightSource weight, source(e));
    ASSIGN_OR_RETURN(const WeightOnHost host, PackOnHost(weight, dense_dtype));
    if (e == 0) experts->shape_ = host.weight;
    if (!AreAlike(host.weight, experts->shape_)) {
      return absl::InvalidArgumentError(absl::StrCat("expert ", e, " differs from the first in shape or format"));
    }
    RETURN_IF_ERROR(experts->Add(host, static_cast<size_t>(num_experts), stream));
  }
  const size_t table_bytes = experts->parts_.size() * sizeof(ExpertParts);
  ASSIGN_OR_RETURN(experts->table_, DeviceMemory::Allocate(table_bytes, stream));
  stream.Keep(cudaMemcpyAsync(experts->table_->data(), experts->parts_.data(), table_bytes, cudaMemcpyHostToDevice,
                              stream.get()),
              "copying the table of experts");
  RETURN_IF_ERROR(stream.Synchronize());
  return experts;
}

absl::Status CudaExperts::Add(const WeightOnHost& host, size_t num_experts, CudaStream& stream) {
  const size_t index = parts_.size();
  ExpertParts expert = {.scale_unit = host.weight.scale_unit};
  const std::array<const void**, 3> pointers = {&expert.values, &expert.scales, &expert.zeros};
  for (size_t i = 0; i < host.parts.size(); ++i) {
    const absl::Span<const uint8_t> part = host.parts[i];
    if (part.empty()) continue;
    if (memory_[i] == nullptr) {  // zero points may begin with any expert
      ASSIGN_OR_RETURN(memory_[i], DeviceMemory::Allocate(num_experts * StrideBytes(part.size()), stream));
    }
    uint8_t* const to = static_cast<uint8_t*>(memory_[i]->data()) + index * StrideBytes(part.size());
    *pointers[i] = to;
    stream.Keep(cudaMemcpyAsync(to, part.data(), part.size(), cudaMemcpyHostToDevice, stream.get()),
                "copying an expert");
  }
  parts_.push_back(expert);
  return stream.Synchronize();  // the host's parts go away
}

size_t CudaExperts::num_bytes() const {
  size_t sum = table_->num_bytes();
  for (const auto& memory : memory_) sum += memory == nullptr ? 0 : memory->num_bytes();
  return sum;
}

}  // namespace millrace::cuda
