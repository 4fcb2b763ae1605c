// SPDX-License-Identifier: Apache-2.0
#pragma once
// Stands before CUDA's own header in the include path when kernels are compiled for the emulator: no more of CUDA than
// the kernels and the backend use.
#include "cuda_runtime_api.h"
#include "simt_core.h"
#include "simt_device.h"
#include "simt_launch.h"
#include "vector_types.h"
