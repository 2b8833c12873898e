/* SPDX-License-Identifier: Apache-2.0 */
/* The inverse DCT of libjpeg's jidctint.c ("ISLOW", after Loeffler, Ligtenberg and Moschytz 1989)
 * as libjpeg-turbo's vector code computes it: rows and columns of 16-bit integers, products of 32
 * bits, each pass rounded and saturated to 16 bits, sums of two inputs wrapping at 16 bits, samples
 * saturated to 8. For coefficients of real images that is the same as the plain C code.
 *
 * An input pair (p, q) contributes p * FOR_P + q * FOR_Q to an output; the products of the original
 * that share a factor are multiplied out. All factors are times 2^13. */
#ifndef LOADER_IDCT_CONSTANTS_H
#define LOADER_IDCT_CONSTANTS_H

enum {
    IDCT_FRACTION_BITS = 13,
    IDCT_PASS1_BITS = 2,
    IDCT_SHIFT1 = IDCT_FRACTION_BITS - IDCT_PASS1_BITS,
    IDCT_SHIFT2 = IDCT_FRACTION_BITS + IDCT_PASS1_BITS + 3,

    F_0_298 = 2446,  /* 0.298631336 */
    F_0_390 = 3196,  /* 0.390180644 */
    F_0_541 = 4433,  /* 0.541196100 */
    F_0_765 = 6270,  /* 0.765366865 */
    F_0_899 = 7373,  /* 0.899976223 */
    F_1_175 = 9633,  /* 1.175875602 */
    F_1_501 = 12299, /* 1.501321110 */
    F_1_847 = 15137, /* 1.847759065 */
    F_1_961 = 16069, /* 1.961570560 */
    F_2_053 = 16819, /* 2.053119869 */
    F_2_562 = 20995, /* 2.562915447 */
    F_3_072 = 25172, /* 3.072711026 */

    /* even part, inputs (2, 6) */
    E2_FOR_2 = F_0_541,
    E2_FOR_6 = F_0_541 - F_1_847,
    E3_FOR_2 = F_0_541 + F_0_765,
    E3_FOR_6 = F_0_541,
    /* odd part, sums (7 + 3, 5 + 1) */
    Z3_FOR_73 = F_1_175 - F_1_961,
    Z3_FOR_51 = F_1_175,
    Z4_FOR_73 = F_1_175,
    Z4_FOR_51 = F_1_175 - F_0_390,
    /* odd part, inputs (7, 1) and (5, 3) */
    O0_FOR_7 = F_0_298 - F_0_899,
    O0_FOR_1 = -F_0_899,
    O3_FOR_7 = -F_0_899,
    O3_FOR_1 = F_1_501 - F_0_899,
    O1_FOR_5 = F_2_053 - F_2_562,
    O1_FOR_3 = -F_2_562,
    O2_FOR_5 = -F_2_562,
    O2_FOR_3 = F_3_072 - F_2_562,
};

#endif
