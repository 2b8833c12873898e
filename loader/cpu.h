/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction set the vector kernels may use. Every level gives the same bits; the choice is
 * one of speed alone. */
#ifndef LOADER_CPU_H
#define LOADER_CPU_H

enum cpu_level {
    CPU_SCALAR, /* plain x86-64 (or any other machine) */
    CPU_AVX2,   /* AVX2, BMI1, BMI2 */
    CPU_AVX512, /* F, BW, DQ, VL, VBMI, VBMI2: Ice Lake, Zen 4 and later */
};

/* The highest level of this machine. */
enum cpu_level cpu_level_of_machine(void);

/* The level to use: that of the machine, or a lower one when the environment variable SATCHEL_ISA
 * says scalar, avx2 or avx512. Read once; any thread. */
enum cpu_level cpu_level(void);

const char *cpu_level_name(enum cpu_level level);

#endif
