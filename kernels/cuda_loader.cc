// SPDX-License-Identifier: Apache-2.0
// MakeCudaDevice: opens libmillrace_cuda.so at run time, so that one program serves machines with and without GPUs.
#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cuda/backend/library.h"
#include "kernels/device.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr char kLibraryName[] = "libmillrace_cuda.so";

// Beside the executable, where a build leaves it, and where an installation puts it.
std::vector<std::string> LibraryPaths() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const fs::path folder = program.parent_path();
  return {(folder / kLibraryName).string(), (folder.parent_path() / "lib" / "millrace" / kLibraryName).string()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaDeviceOptions& options) {
  const std::vector<std::string> paths = LibraryPaths();
  void* library = nullptr;
  std::string path;
  for (const std::string& candidate : paths) {
    std::error_code error;
    if (!fs::exists(candidate, error)) continue;
    path = candidate;
    library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    break;
  }
  if (path.empty()) {
    return absl::NotFoundError(
        absl::StrCat("this installation has no CUDA backend: there is no ", absl::StrJoin(paths, " and no ")));
  }
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("the CUDA backend ", path, " cannot be opened: ", dlerror()));
  }
  // Never closed: the device's code lives in it.
  auto* open = reinterpret_cast<cuda::OpenFunction*>(dlsym(library, cuda::kOpenSymbol));
  absl::StatusOr<std::unique_ptr<Device>> device = absl::UnknownError("");
  const int version = open == nullptr ? 0 : open(cuda::kLibraryVersion, &options, &device);
  if (version != cuda::kLibraryVersion) {
    return absl::NotFoundError(absl::StrCat("the CUDA backend ", path, " is of another build: its interface is ",
                                            version, ", this program's is ", cuda::kLibraryVersion));
  }
  return device;
}

}  // namespace millrace
