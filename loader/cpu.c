/* SPDX-License-Identifier: Apache-2.0 */
/* Instruction set levels: what the machine has, what the user allows. */
#include "loader/cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static const char *const level_names[] = {"scalar", "avx2", "avx512"};

static pthread_once_t level_once = PTHREAD_ONCE_INIT;
static enum cpu_level level_chosen;

enum cpu_level cpu_level_of_machine(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2"))
        return CPU_SCALAR;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512vbmi2"))
        return CPU_AVX2;
    return CPU_AVX512;
#else
    return CPU_SCALAR;
#endif
}

static void level_choose(void)
{
    level_chosen = cpu_level_of_machine();
    const char *wish = getenv("SATCHEL_ISA");
    if (!wish || !*wish)
        return;
    for (enum cpu_level level = CPU_SCALAR; level <= CPU_AVX512; level++) {
        if (strcmp(wish, level_names[level]) != 0)
            continue;
        if (level > level_chosen)
            log_warn("SATCHEL_ISA=%s: this machine has only %s", wish, level_names[level_chosen]);
        else
            level_chosen = level;
        return;
    }
    log_warn("SATCHEL_ISA=%s is none of scalar, avx2, avx512: ignored", wish);
}

enum cpu_level cpu_level(void)
{
    pthread_once(&level_once, level_choose);
    return level_chosen;
}

const char *cpu_level_name(enum cpu_level level)
{
    return level_names[level];
}
