// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/backend/cublaslt.h"

#ifdef MILLRACE_SIMT

namespace millrace::cuda {
std::unique_ptr<CublasLt> CublasLt::Open() { return nullptr; }
}  // namespace millrace::cuda

#else

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <map>

namespace millrace::cuda {
namespace {

// Below, reading the weights takes longer than multiplying, and our own kernels read them as fast.
constexpr int64_t kMinRows = 128;
constexpr size_t kMaxPlans = 1024;
constexpr uintptr_t kAlignment = 256;  // what the heuristic takes for granted

// The functions that are used, as the library exports them.
struct Api {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmul) matmul;

  bool Load(void* library) {
    const auto load = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)> >(dlsym(library, name));
      return function != nullptr;
    };
    return load(create, "cublasLtCreate") && load(destroy, "cublasLtDestroy") &&
           load(desc_create, "cublasLtMatmulDescCreate") && load(desc_destroy, "cublasLtMatmulDescDestroy") &&
           load(desc_set, "cublasLtMatmulDescSetAttribute") && load(layout_create, "cublasLtMatrixLayoutCreate") &&
           load(layout_destroy, "cublasLtMatrixLayoutDestroy") &&
           load(preference_create, "cublasLtMatmulPreferenceCreate") &&
           load(preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
           load(preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
           load(heuristic, "cublasLtMatmulAlgoGetHeuristic") && load(matmul, "cublasLtMatmul");
  }
};

cudaDataType_t TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? CUDA_R_16BF : dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_32F;
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kAlignment == 0; }

bool Takes(const MatmulLaunch& launch) {
  const WeightOnDevice& w = launch.w;
  return launch.x.rows >= kMinRows && w.format == WeightFormat::kDense && w.dtype == launch.x.dtype &&
         w.dtype != DType::kF32 && launch.bias == nullptr && IsAligned(launch.x.data) && IsAligned(w.values) &&
         IsAligned(launch.out.data) && IsAligned(launch.residual) && launch.x.stride % 8 == 0 && w.stride % 8 == 0 &&
         launch.out.stride % 8 == 0;
}

// A matmul as the library sees it: matrices column by column, so out^T [N, T] = W [N, K] * x^T [K, T], W transposed.
class Problem {
 public:
  Problem(const Api& api, const MatmulLaunch& launch) : api_(api) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const int64_t rows = launch.x.rows, n = launch.w.n, k = launch.w.k;
    is_valid_ =
        api_.desc_create(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
        api_.desc_set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) == CUBLAS_STATUS_SUCCESS &&
        Layout(w_, launch.w.dtype, k, n, launch.w.stride) && Layout(x_, launch.x.dtype, k, rows, launch.x.stride) &&
        Layout(out_, launch.out.dtype, n, rows, launch.out.stride);
  }
  ~Problem() {
    for (cublasLtMatrixLayout_t layout : {w_, x_, out_}) {
      if (layout != nullptr) api_.layout_destroy(layout);
    }
    if (desc_ != nullptr) api_.desc_destroy(desc_);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  bool is_valid() const { return is_valid_; }

  bool Choose(cublasLtHandle_t handle, cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulPreference_t preference = nullptr;
    if (api_.preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return false;
    const uint64_t workspace_bytes = CublasLt::kWorkspaceBytes;
    // Partial sums are added in a fixed order, never in that of arrival.
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasLtMatmulHeuristicResult_t found{};
    int num_found = 0;
    const bool is_found =
        api_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                            sizeof(workspace_bytes)) == CUBLAS_STATUS_SUCCESS &&
        api_.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes)) ==
            CUBLAS_STATUS_SUCCESS &&
        api_.heuristic(handle, desc_, w_, x_, out_, out_, preference, 1, &found, &num_found) == CUBLAS_STATUS_SUCCESS &&
        num_found == 1;
    api_.preference_destroy(preference);
    algorithm = found.algo;
    return is_found;
  }

  bool Run(cublasLtHandle_t handle, const MatmulLaunch& launch, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
           cudaStream_t stream) const {
    const float one = 1.0f, beta = launch.residual == nullptr ? 0.0f : 1.0f;
    const void* c = launch.residual == nullptr ? launch.out.data : launch.residual;
    return api_.matmul(handle, desc_, &one, launch.w.values, w_, launch.x.data, x_, &beta, c, out_, launch.out.data,
                       out_, &algorithm, workspace, CublasLt::kWorkspaceBytes, stream) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  bool Layout(cublasLtMatrixLayout_t& layout, DType dtype, int64_t rows, int64_t cols, int64_t stride) {
    return api_.layout_create(&layout, TypeOf(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                              stride) == CUBLAS_STATUS_SUCCESS;
  }

  const Api& api_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, out_ = nullptr;
  bool is_valid_ = false;
};

class OpenedCublasLt final : public CublasLt {
 public:
  OpenedCublasLt(const Api& api, cublasLtHandle_t handle) : api_(api), handle_(handle) {}
  ~OpenedCublasLt() override { api_.destroy(handle_); }

  bool Launch(const MatmulLaunch& launch, void* workspace, cudaStream_t stream) override {
    if (!Takes(launch)) return false;
    const Problem problem(api_, launch);
    if (!problem.is_valid()) return false;
    const Key key = {launch.x.rows,
                     launch.w.n,
                     launch.w.k,
                     launch.x.stride,
                     launch.out.stride,
                     int64_t{launch.residual != nullptr},
                     static_cast<int64_t>(launch.out.dtype)};
    auto plan = plans_.find(key);
    if (plan == plans_.end()) {
      cublasLtMatmulAlgo_t algorithm{};
      if (!problem.Choose(handle_, algorithm)) return false;
      if (plans_.size() == kMaxPlans) plans_.clear();
      plan = plans_.emplace(key, algorithm).first;
    }
    return problem.Run(handle_, launch, plan->second, workspace, stream);
  }

 private:
  using Key = std::array<int64_t, 7>;
  const Api api_;
  const cublasLtHandle_t handle_;
  std::map<Key, cublasLtMatmulAlgo_t> plans_;  // choosing takes longer than launching
};

}  // namespace

std::unique_ptr<CublasLt> CublasLt::Open() {
  // Never closed: its kernels stay loaded.
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  Api api{};
  cublasLtHandle_t handle = nullptr;
  if (library == nullptr || !api.Load(library) || api.create(&handle) != CUBLAS_STATUS_SUCCESS) return nullptr;
  return std::make_unique<OpenedCublasLt>(api, handle);
}

}  // namespace millrace::cuda

#endif
