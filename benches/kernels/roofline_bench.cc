// SPDX-License-Identifier: Apache-2.0
// Prints this machine's limits for one thread and for all: the denominators of every other figure.
#include "benches/kernels/roofline.h"

int main() {
  for (int num_threads : {1, millrace::cpu::AvailableCores()}) {
    millrace::cpu::ThreadPool pool(num_threads);
    millrace::bench::PrintRoofline(millrace::bench::MeasureRoofline(pool), num_threads);
  }
  return 0;
}
