// SPDX-License-Identifier: Apache-2.0
#pragma once
// Operand lists of ptx_wgmma.h: a product of N columns has N / 2 registers of sums. MILLRACE_D<n>: their places in the
// text. MILLRACE_SUMS<n>: the registers themselves, from column tile j on, four a tile.

#define MILLRACE_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MILLRACE_D16 MILLRACE_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MILLRACE_D24 MILLRACE_D16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define MILLRACE_D32 MILLRACE_D24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define MILLRACE_D40 MILLRACE_D32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define MILLRACE_D48 MILLRACE_D40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define MILLRACE_D56 MILLRACE_D48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define MILLRACE_D64 MILLRACE_D56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define MILLRACE_D72 MILLRACE_D64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MILLRACE_D80 MILLRACE_D72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define MILLRACE_D88 MILLRACE_D80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define MILLRACE_D96 MILLRACE_D88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define MILLRACE_D104 MILLRACE_D96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MILLRACE_D112 MILLRACE_D104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MILLRACE_D120 MILLRACE_D112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define MILLRACE_D128 MILLRACE_D120 ", %120, %121, %122, %123, %124, %125, %126, %127"

#define MILLRACE_SUMS4(constraint, d, j) \
  constraint(d[j][0]), constraint(d[j][1]), constraint(d[j][2]), constraint(d[j][3])
#define MILLRACE_SUMS8(constraint, d, j) MILLRACE_SUMS4(constraint, d, j), MILLRACE_SUMS4(constraint, d, j + 1)
#define MILLRACE_SUMS16(constraint, d, j) MILLRACE_SUMS8(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 2)
#define MILLRACE_SUMS24(constraint, d, j) MILLRACE_SUMS16(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 4)
#define MILLRACE_SUMS32(constraint, d, j) MILLRACE_SUMS24(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 6)
#define MILLRACE_SUMS40(constraint, d, j) MILLRACE_SUMS32(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 8)
#define MILLRACE_SUMS48(constraint, d, j) MILLRACE_SUMS40(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 10)
#define MILLRACE_SUMS56(constraint, d, j) MILLRACE_SUMS48(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 12)
#define MILLRACE_SUMS64(constraint, d, j) MILLRACE_SUMS56(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 14)
#define MILLRACE_SUMS72(constraint, d, j) MILLRACE_SUMS64(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 16)
#define MILLRACE_SUMS80(constraint, d, j) MILLRACE_SUMS72(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 18)
#define MILLRACE_SUMS88(constraint, d, j) MILLRACE_SUMS80(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 20)
#define MILLRACE_SUMS96(constraint, d, j) MILLRACE_SUMS88(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 22)
#define MILLRACE_SUMS104(constraint, d, j) MILLRACE_SUMS96(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 24)
#define MILLRACE_SUMS112(constraint, d, j) MILLRACE_SUMS104(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 26)
#define MILLRACE_SUMS120(constraint, d, j) MILLRACE_SUMS112(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 28)
#define MILLRACE_SUMS128(constraint, d, j) MILLRACE_SUMS120(constraint, d, j), MILLRACE_SUMS8(constraint, d, j + 30)
