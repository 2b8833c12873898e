/* SPDX-License-Identifier: Apache-2.0 */
/* In place of loader/cpu.c: every level, the widest of them emulated (avx512_by_halves.h). */
#include "loader/cpu.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/half_arrays.h"

enum { SKIPPED = 77 }; /* meson's exit status for it */

enum cpu_level cpu_level_of_machine(void)
{
    if (!__builtin_cpu_supports("avx2") || !half_have_f16c()) {
        fprintf(stderr, "skipped: this machine has no AVX2\n");
        exit(SKIPPED);
    }
    return CPU_AVX512;
}

enum cpu_level cpu_level(void)
{
    return cpu_level_of_machine();
}

const char *cpu_level_name(enum cpu_level level)
{
    static const char *const names[] = {"scalar", "avx2", "avx512 emulated"};
    return names[level];
}
