/* SPDX-License-Identifier: Apache-2.0 */
/* log, exp, pow and cos out of + - x / alone, in a fixed order of operations: the same bits on
 * every machine. The series are the plain ones of atanh, exp, sin and cos, cut where the next term
 * is below half a unit in the last place of the result at the end of the reduced range. */
#include "proto/draw.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ln 2 in two parts. The high one has 40 significant bits, so its product with any exponent is
 * exact. */
static const double ln2_high = 0x1.62e42fefa2p-1, ln2_low = 0x1.9ef35793c7673p-41;
static const double one_over_ln2 = 0x1.71547652b82fep+0;
static const double sqrt_2 = 0x1.6a09e667f3bcdp+0;
static const double two_pi = 0x1.921fb54442d18p+2;

/* Beyond these exp is infinite, and zero. */
static const double exp_max = 709.782712893384, exp_min = -745.13321910194122;

/* A number as the unevaluated sum of two doubles, |low| <= half a unit in the last place of high.
 */
struct pair {
    double high, low;
};

/* Exact for |a| >= |b| (Dekker 1971). */
static struct pair sum_ordered(double a, double b)
{
    double high = a + b;
    return (struct pair){high, b - (high - a)};
}

/* Exact for any order (Knuth). */
static struct pair sum(double a, double b)
{
    double high = a + b;
    double b_part = high - a;
    return (struct pair){high, (a - (high - b_part)) + (b - b_part)};
}

/* Upper 26 bits of a, so that products of halves are exact (Veltkamp). |a| < 2^995. */
static double upper_half(double a)
{
    double scaled = 0x1.0000002p+27 * a;
    return scaled - (scaled - a);
}

/* Exact unless the product's low part underflows (Dekker 1971). */
static struct pair product(double a, double b)
{
    double high = a * b;
    double a1 = upper_half(a), a2 = a - a1, b1 = upper_half(b), b2 = b - b1;
    return (struct pair){high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2};
}

static struct pair pair_product(struct pair a, struct pair b)
{
    struct pair p = product(a.high, b.high);
    return sum_ordered(p.high, p.low + (a.high * b.low + a.low * b.high));
}

static struct pair pair_sum(struct pair a, struct pair b)
{
    struct pair s = sum(a.high, b.high);
    return sum_ordered(s.high, s.low + (a.low + b.low));
}

/* x = m * 2^exponent with m in [sqrt(1/2), sqrt(2)); x positive, finite, may be subnormal. */
static double split_exponent(double x, int *exponent)
{
    int shift = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        shift = -54;
    }
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    *exponent = (int)(bits >> 52) - 1023 + shift;
    bits = (bits & 0x000fffffffffffff) | 0x3ff0000000000000;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m >= sqrt_2) {
        m *= 0.5;
        *exponent += 1;
    }
    return m;
}

/* value * 2^exponent, exponent within the range of exp; rounds once more where it is subnormal. */
static double scale(double value, int exponent)
{
    double extra = 1;
    if (exponent < -1022) {
        exponent += 54;
        extra = 0x1p-54;
    } else if (exponent > 1023) {
        exponent -= 1;
        extra = 2;
    }
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return value * power * extra;
}

/* 1/3 + z/5 + z^2/7 + ...: what atanh(s) = s + s z (...) has behind its first term, z = s^2 at most
 * (sqrt(2) - 1)^4. */
static double atanh_tail(double z, int first)
{
    double value = 0;
    for (int n = 25; n >= first; n -= 2)
        value = value * z + 1.0 / n;
    return value;
}

/* The special values of log; true when x is one. */
static bool log_is_special(double x, double *result)
{
    if (x > 0 && x <= 0x1.fffffffffffffp+1023)
        return false;
    *result = x == 0 ? -INFINITY : x > 0 ? x : NAN;
    return true;
}

/* log(1 + f) = 2 atanh(s), s = f / (2 + f). Written as f - (f^2/2 - s (f^2/2 + R)), R = 2 z (1/3 +
 * ...), the small terms do not touch f's last bit but once. */
double draw_log(double x)
{
    double special;
    if (log_is_special(x, &special))
        return special;
    int k;
    double f = split_exponent(x, &k) - 1;
    double s = f / (2 + f), z = s * s;
    double rest = 2 * z * atanh_tail(z, 3);
    double half_square = 0.5 * f * f;
    double small = s * (half_square + rest) + k * ln2_low;
    return k * ln2_high - ((half_square - small) - f);
}

/* log(x) with about 2^-64 relative error: the first two terms of the series in pairs. */
static struct pair log_pair(double x)
{
    static const struct pair third = {0x1.5555555555555p-2, 0x1.5555555555555p-56};
    int k;
    double f = split_exponent(x, &k) - 1;
    /* s = f / (2 + f), the quotient's remainder divided once more. */
    struct pair below = sum_ordered(2, f);
    double quotient = f / below.high;
    struct pair back = product(quotient, below.high);
    double remainder = ((f - back.high) - back.low) - quotient * below.low;
    struct pair s = sum_ordered(quotient, remainder / below.high);
    struct pair z = pair_product(s, s);
    struct pair tail = pair_product(z, third);
    tail = sum_ordered(tail.high, tail.low + z.high * z.high * atanh_tail(z.high, 5));
    struct pair series = pair_sum(s, pair_product(s, tail));
    struct pair doubled = {2 * series.high, 2 * series.low};
    return pair_sum((struct pair){k * ln2_high, k * ln2_low}, doubled);
}

/* exp(high + low) for exp_min <= high <= exp_max: 2^k e^r, |r| <= ln(2) / 2. */
static double exp_pair(double high, double low)
{
    static const double factorial[] = {
        1.0,     1.0,      2.0,       6.0,        24.0,        120.0,        720.0,        5040.0,
        40320.0, 362880.0, 3628800.0, 39916800.0, 479001600.0, 6227020800.0, 87178291200.0};
    double turns = high * one_over_ln2;
    int k = (int)(turns < 0 ? turns - 0.5 : turns + 0.5);
    struct pair r = sum(high - k * ln2_high, low - k * ln2_low);
    double tail = 0;
    for (int n = 14; n >= 2; n--)
        tail = tail * r.high + 1 / factorial[n];
    /* e^r = 1 + r + r^2 (1/2 + ...); r's low part counts in the first order only. */
    double value = 1 + (r.high + (r.high * r.high * tail + r.low));
    return scale(value, k);
}

double draw_exp(double x)
{
    if (!(x <= exp_max))
        return x > exp_max ? INFINITY : NAN;
    if (x < exp_min)
        return 0;
    return exp_pair(x, 0);
}

/* The special values of pow as in C11 F.10.4.4, with x < 0 a domain error. */
static bool pow_is_special(double x, double y, double *result)
{
    if (y == 0 || x == 1) {
        *result = 1;
        return true;
    }
    if (!(x >= 0) || y != y) {
        *result = NAN;
        return true;
    }
    if (x > 0 && x <= 0x1.fffffffffffffp+1023)
        return false;
    *result = (x == 0) == (y > 0) ? 0 : INFINITY;
    return true;
}

double draw_pow(double x, double y)
{
    double special;
    if (pow_is_special(x, y, &special))
        return special;
    struct pair log = log_pair(x);
    double rough = y * log.high;
    if (rough > exp_max + 1)
        return INFINITY;
    if (rough < exp_min - 1)
        return 0;
    struct pair exponent = product(y, log.high);
    exponent = sum_ordered(exponent.high, exponent.low + y * log.low);
    if (exponent.high > exp_max)
        return INFINITY;
    if (exponent.high < exp_min)
        return 0;
    return exp_pair(exponent.high, exponent.low);
}

/* cos(x) and sin(x) for 0 <= x <= pi / 4. */
static double cos_octant(double x)
{
    double z = x * x, tail = 0;
    for (int n = 18; n >= 2; n -= 2)
        tail = (1 - z * tail) / (n * (n - 1));
    return 1 - z * tail;
}

static double sin_octant(double x)
{
    double z = x * x, tail = 0;
    for (int n = 19; n >= 3; n -= 2)
        tail = (1 - z * tail) / (n * (n - 1));
    return x - x * (z * tail);
}

double draw_cos_2pi(double turns)
{
    if (!(turns >= 0 && turns <= 1))
        return NAN;
    /* Every step of the reduction is exact. */
    double folded = turns > 0.5 ? 1 - turns : turns;
    double sign = folded > 0.25 ? -1 : 1;
    if (folded > 0.25)
        folded = 0.5 - folded;
    double value =
        folded <= 0.125 ? cos_octant(two_pi * folded) : sin_octant(two_pi * (0.25 - folded));
    return sign * value;
}
