#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The CUDA library's kernels travel compressed. library_size_test.py LIBRARY NUM_ARCHITECTURES.

Of one architecture they are 13 MiB of machine code and 2 compressed; with -lineinfo nvcc compresses nothing.
"""
import os
import sys

MIB_OF_ARCHITECTURE = 6


def main():
    library, num_architectures = sys.argv[1], int(sys.argv[2])
    size = os.path.getsize(library) / 2**20
    most = MIB_OF_ARCHITECTURE * num_architectures
    print(f"{library}: {size:.1f} MiB with the kernels of {num_architectures} architectures, at most {most} are allowed")
    return 0 if size <= most else 1


if __name__ == "__main__":
    sys.exit(main())
